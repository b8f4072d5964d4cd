"""The registry of predictions by kind of task; a new kind is added here."""

from abaw_expr.infer.prediction import PersonPrediction
from abaw_expr.infer.prediction_classes import ClassPrediction
from abaw_expr.infer.prediction_units import UnitPrediction
from abaw_expr.infer.prediction_values import ValuePrediction
from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.table import VideoOutputs

PREDICTIONS: dict[str, type[PersonPrediction]] = {
    "classes": ClassPrediction,
    "values": ValuePrediction,
    "units": UnitPrediction,
}
"""By `Task.kind`."""


def person_prediction(frames: VideoOutputs, decision: Decision) -> PersonPrediction:
    """What a decision says of the outputs for one person."""
    rows = decision.probabilities(frames)
    label = decision.metric.decide(rows, decision.thresholds)
    return PREDICTIONS[decision.task.kind](frames.name, frames, rows, label, decision.task)
