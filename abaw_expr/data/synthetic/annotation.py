"""Annotates the synthetic corpus for the three challenges, from what its faces show and its voices sound like.

Valence is mostly seen and arousal mostly heard, so that each branch gives one of them well and both together give both.
Eight action units are those of the drawn face; a drawing has no lips or jaw to strain, so four follow the voice. These
tables are for exercise and say nothing about people.

Shapes: T frames, L label lines.
"""

import numpy as np

from abaw_expr.tasks.task import AU, Task

_UNANNOTATED_FRACTION = 0.1
"""The fraction of a video's frames, in one stretch, that are not annotated."""
_PARTIAL_FRACTION = 0.05
"""The fraction of a video's frames, before or after that stretch, in which only some action units are annotated."""
_PARTIAL_UNITS = 4
"""The number of action units that are not annotated there."""
_DECIMALS = 3
"""Of valence and arousal."""

_OBSERVED = (
    *("corners", "opening", "width", "brows", "inner_brows", "eyes", "wrinkles"),
    *("pitch", "range", "pace", "level", "tilt", "breath"),
)
"""The columns of `drawing.CLASS_LOOKS`, then those of `speech.MANNERS`, in their units."""
VALENCE_AROUSAL: dict[str, tuple[dict[str, float], float]] = {
    "valence": (
        {"corners": 0.65, "opening": -0.2, "eyes": -0.4, "brows": 0.1, "wrinkles": -0.3, "range": 0.04, "breath": -1.2},
        0.05,
    ),
    "arousal": ({"pitch": 0.042, "pace": 0.15, "level": 0.05, "opening": 0.45, "eyes": 0.3}, -0.93),
}
"""By field the coefficients of what is observed, and the constant added to their sum; the value is clipped to
[-1, 1]."""
ACTION_UNITS: dict[str, tuple[dict[str, float], float]] = {
    "AU1": ({"brows": 1, "inner_brows": 1}, 0.6),  # inner brow raiser
    "AU2": ({"brows": 1, "inner_brows": -0.6}, 0.5),  # outer brow raiser
    "AU4": ({"inner_brows": -1}, 0.55),  # brow lowerer
    "AU6": ({"eyes": -1}, 0.2),  # cheek raiser: narrow eyes
    "AU7": ({"pitch": 1}, 4.0),  # lid tightener: a high voice
    "AU10": ({"wrinkles": 1, "opening": 0.5}, 0.3),  # upper lip raiser: wrinkles beside the nose, an open mouth
    "AU12": ({"corners": 1}, 0.25),  # lip corner puller
    "AU15": ({"corners": -1}, 0.3),  # lip corner depressor
    "AU23": ({"tilt": 1}, -8.3),  # lip tightener: a tense, bright voice
    "AU24": ({"pace": -1}, -3.7),  # lip pressor: slow speech
    "AU25": ({"opening": 1}, 0.28),  # lips part
    "AU26": ({"level": 1, "range": 1}, 5.5),  # jaw drop: a loud, lively voice
}
"""By action unit the coefficients of what is observed, and the threshold that their sum exceeds where the unit is
active. Each unit is active in 18 to 42 % of the frames of the default corpus."""


def valence_arousal(looks: np.ndarray, manners: np.ndarray) -> np.ndarray:
    """Valence and arousal of frames with looks [T, 7] and manners [T, 6], [T, 2] in [-1, 1], with three decimals."""
    sums, constants = _weighted(VALENCE_AROUSAL, looks, manners)
    return np.round(np.clip(sums + constants, -1, 1), _DECIMALS) + 0.0  # + 0.0 makes -0 a 0


def action_units(looks: np.ndarray, manners: np.ndarray) -> np.ndarray:
    """Which action units are active in frames with looks [T, 7] and manners [T, 6], int [T, 12] of 0 and 1."""
    sums, thresholds = _weighted(ACTION_UNITS, looks, manners)
    return (sums > thresholds).astype(int)


def _weighted(
    table: dict[str, tuple[dict[str, float], float]], looks: np.ndarray, manners: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The weighted sums [T, rows] of what is observed, and the second entry of each row of the table, [rows]."""
    weights = np.zeros((len(_OBSERVED), len(table)))
    for row, (coefficients, _) in enumerate(table.values()):
        for name, coefficient in coefficients.items():
            weights[_OBSERVED.index(name), row] = coefficient
    return np.hstack([looks, manners]) @ weights, np.array([number for _, number in table.values()])


def unannotated(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Which frames of a video are not annotated, bool [T] for T = `frames`: one stretch."""
    stretch = _stretch(_UNANNOTATED_FRACTION, frames)
    start = rng.integers(frames - stretch + 1)
    return (np.arange(frames) >= start) & (np.arange(frames) < start + stretch)


def unannotated_units(hidden: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which action units of which frames are not annotated, bool [T, 12].

    They are all units where `hidden` [T] is true, and some units in a stretch of the other frames.
    """
    others = np.flatnonzero(~hidden)
    stretch = min(_stretch(_PARTIAL_FRACTION, len(hidden)), len(others))
    start = rng.integers(len(others) - stretch + 1)
    units = rng.choice(AU.n_columns, _PARTIAL_UNITS, replace=False)
    marked = np.repeat(hidden[:, None], AU.n_columns, axis=1)
    marked[np.ix_(others[start : start + stretch], units)] = True
    return marked


def label_lines(values: np.ndarray, hidden: np.ndarray, task: Task, extra: int) -> np.ndarray:
    """The label lines [L] or [L, fields] of a video's frames: `extra` more than frames, or fewer where negative.

    `values` are [T] or [T, fields]; where `hidden`, [T] or [T, fields], is true, they become the ignore value.
    """
    lines = values.copy()
    lines[hidden] = task.ignore_value
    return lines[:extra] if extra < 0 else np.concatenate([lines, np.repeat(lines[-1:], extra, axis=0)])


def _stretch(fraction: float, frames: int) -> int:
    return max(1, round(fraction * frames))
