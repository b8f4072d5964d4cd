"""Predicts for everyone in a video file with a trained run, of any task: a table and a plot each.

The steps are those of a release: faces are detected, tracked and cropped, crops and audio prepared, and the branches
predicted and fused. Slow imports are inside the functions, so that the detection of faces starts early.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from abaw_expr.data.problems import Problem
from abaw_expr.data.release.reader import Annotation, Recording, Video
from abaw_expr.data.store.recording import prepare_recording
from abaw_expr.data.store.store import Store, read_recording, stored_videos
from abaw_expr.data.workers import OnProgress
from abaw_expr.errors import RunError, VideoError, shorten
from abaw_expr.faces.extract import Faces, extract_faces
from abaw_expr.files import atomic
from abaw_expr.tasks.task import Task
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.run import RunFolder

if TYPE_CHECKING:
    from abaw_expr.infer.prediction import PersonPrediction
    from abaw_expr.outputs.decision import Decision


@dataclass(frozen=True)
class InferenceOptions:
    """The run that predicts, and how. Raises RunError, before any work, where there is no such run."""

    run: RunFolder
    decision: "Decision | None"
    """None: all branches have equal weights, without smoothing."""
    stride: float | None
    """Seconds between the frames that the networks see; 0: every frame; None: the default of `predict`."""
    accelerator: Literal["auto", "cpu", "cuda"]

    def __post_init__(self) -> None:
        self.run.load_settings()

    @property
    def task(self) -> Task:
        """The task of the run."""
        return self.run.load_settings().task_of

    @property
    def checkpoint(self) -> Literal["best", "last"]:
        """The checkpoint that predicts: the one that the decision was tuned on, if it names one, else the best
        epoch's."""
        return (self.decision and self.decision.checkpoint) or "best"

    def decision_mismatches(self) -> list[str]:
        """Differences between the run and the one that the decision was tuned on. Raises RunError without a
        checkpoint."""
        if self.decision is None:
            return []
        from abaw_expr.outputs.table import Source

        trained = load_checkpoint(getattr(self.run, self.checkpoint))
        source = Source(trained.signature, tuple(trained.prior), self.checkpoint)
        return self.decision.source_mismatches(dict.fromkeys(self.run.load_settings().branches, source))


def find_people(video: Path, out: Path, every: int, on_progress: OnProgress) -> Faces:
    """Detects and crops the faces of a video into `out`. Raises VideoError where the video cannot be read."""
    found = extract_faces({video.stem: video}, out, every, on_progress=on_progress)[video.stem]
    if isinstance(found, Faces):
        return found
    raise VideoError(f"cannot be read as a video ({found})", path=video, remedy="Does a player show it?")


def predict_people(
    video: Path,
    faces: Faces,
    options: InferenceOptions,
    on_progress: OnProgress,
    problems: list[Problem] | None = None,
) -> "list[PersonPrediction]":
    """A run's predictions for everyone in a video; for a video without faces, one from its audio alone.

    The problems that `prepare` reports of the video are added to `problems`. Raises VideoError where the video has none
    of the run's modalities, RunError and DecisionError as `predict` and `Decision.check` do.
    """
    from abaw_expr.infer.registry import person_prediction
    from abaw_expr.outputs.decision import equal_weights
    from abaw_expr.report.media import Media
    from abaw_expr.report.timeline import sampled_times
    from abaw_expr.training.predict import predict

    task = options.task
    people: dict[str, tuple[Path, ...]] = {name: (folder,) for name, folder in faces.crops.items()}
    people = people or {video.stem: ()}
    videos = tuple(Video(name, {task: Annotation("test")}, folders) for name, folders in people.items())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "recording"
        prepare_recording(Recording(video.stem, video, videos), folder)
        prepared = read_recording(folder)
        if problems is not None:
            problems += [Problem(**problem) for problem in prepared["problems"]]
        _check(prepared, video, options.run)
        store = Store(folder, digest="", videos=tuple(stored_videos(folder, task)))
        how = options.stride, options.accelerator, options.checkpoint
        outputs = predict(options.run, store, "test", None, *how, on_progress)
        decision = options.decision or equal_weights(outputs)
        decision.check(outputs)
        media, predicted = Media.of(store), [person_prediction(one, decision) for one in outputs.videos()]
        return [replace(one, audio=media.audio(one.name, sampled_times(one.frames))) for one in predicted]


def write_person_predictions(
    predictions: "Sequence[PersonPrediction]", faces: Faces, out: Path, videos: Sequence[Path]
) -> None:
    """Writes `<name>.csv`, `<name>.png` and `<name>.html` of everyone into a folder, each whole or not at all.

    `videos` are the files that the page may show, of which a browser takes the first that it can play.
    """
    from abaw_expr.infer.page import write_person_page
    from abaw_expr.infer.timeline import draw_timeline

    for prediction in predictions:
        with atomic(out / f"{prediction.name}.csv") as temporary:
            prediction.table().to_csv(temporary, index=False)
        draw_timeline(prediction, faces.crops.get(prediction.name), out / f"{prediction.name}.png")
        write_person_page(prediction, videos, out / f"{prediction.name}.html")


def _check(prepared: dict[str, Any], video: Path, run: RunFolder) -> None:
    """Raises VideoError where the video has none of the run's modalities."""
    from abaw_expr.models.network import outline

    has = {"audio": prepared["sound"] is not None, "visual": any(v["crops"] for v in prepared["videos"].values())}
    has["waveform"] = has["audio"]
    read = outline(run.load_settings()).reads
    if embedded := [name for name in read if name not in has]:
        remedy = "Prepare the video as a release, embed it, and predict."
        raise RunError("reads embeddings, which a video has not", path=run.root, found=shorten(embedded), remedy=remedy)
    if not any(has[name] for name in read):
        lacking = {"audio": "audio", "waveform": "audio", "visual": "face"}
        missing = " and no ".join(dict.fromkeys(lacking[name] for name in read))
        remedy = "A face must be at least a tenth of the frame's shorter side high; audio must be a stream of the file."
        raise VideoError(f"has no {missing} to predict from", path=video, remedy=remedy)
