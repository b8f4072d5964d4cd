"""One video file of anybody's -> a run's answer for everyone in it: a table, a picture, and the video itself annotated.

The way is the release's: faces are found and cropped, crops and sound prepared, both branches predicted and fused.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from abaw_expr.data.problems import Problem
from abaw_expr.data.release.reader import Recording, Video
from abaw_expr.data.store.recording import prepare_recording
from abaw_expr.data.store.store import Store, read_recording, stored_videos
from abaw_expr.errors import VideoError
from abaw_expr.faces.extract import Faces, extract_faces
from abaw_expr.files import atomic
from abaw_expr.infer.answer import Answer
from abaw_expr.infer.timeline import draw_timeline
from abaw_expr.outputs.decision import Decision, equal_weights
from abaw_expr.outputs.table import Source
from abaw_expr.tasks.task import Task
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.predict import predict, wanted_of_split
from abaw_expr.training.run import RunFolder

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Question:
    """Who is asked, and how. Raises RunError, before any work, where there is no such run."""

    run: RunFolder
    decision: Decision | None
    """None: every branch has the same vote, and nothing is smoothed."""
    interval: float
    """Seconds between the frames that the networks see; 0: every frame."""
    accelerator: Literal["auto", "cpu", "cuda"]

    def __post_init__(self) -> None:
        self.run.load_settings()

    @property
    def checkpoint(self) -> Literal["best", "last"]:
        """The weights that answer: those that the decision was tuned on, if it says so, else of the best epoch."""
        return (self.decision and self.decision.checkpoint) or "best"

    def strangers(self) -> list[str]:
        """What the run is that the decision was not tuned on, in words. Raises RunError where it has no checkpoint."""
        if self.decision is None:
            return []
        trained = load_checkpoint(getattr(self.run, self.checkpoint))
        source = Source(trained.signature, tuple(trained.prior), self.checkpoint)
        return self.decision.strangers(dict.fromkeys(self.run.load_settings().model.branches, source))


def find_people(video: Path, out: Path, every: int, progress: Progress) -> Faces:
    """The faces of a video, cropped into `out`. Raises VideoError where there is no video to read."""
    found = extract_faces({video.stem: video}, out, every, progress=progress)[video.stem]
    if isinstance(found, Faces):
        return found
    raise VideoError(f"cannot be read as a video ({found})", path=video, remedy="Does a player show it?")


def answer_people(
    video: Path, faces: Faces, asked: Question, task: Task, progress: Progress, problems: list[Problem] | None = None
) -> list[Answer]:
    """What a run says of everyone in a video; where nobody is seen, of the sound alone.

    What `prepare` would tell of the video goes to `problems`. Raises VideoError where the video has nothing that the
    run could judge by, RunError and DecisionError as `predict` and `Decision.check` do.
    """
    people: dict[str, tuple[Path, ...]] = {name: (folder,) for name, folder in faces.crops.items()}
    people = people or {video.stem: ()}
    videos = tuple(Video(name, "test", labels=None, crop_folders=folders) for name, folders in people.items())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "recording"
        prepare_recording(Recording(video.stem, video, videos), folder)
        prepared = read_recording(folder)
        if problems is not None:
            problems += [Problem(**problem) for problem in prepared["problems"]]
        _check(prepared, video, asked.run)
        store = Store(folder, digest="", videos=tuple(stored_videos(folder)))
        how = asked.interval, asked.accelerator, asked.checkpoint
        outputs = predict(asked.run, store, task, "test", wanted_of_split(store, "test"), *how, progress)
    decision = asked.decision or equal_weights(outputs)
    decision.check(outputs)
    return [Answer(one.name, one, decision.probabilities(one), task) for one in outputs.videos()]


def write_answers(answers: Sequence[Answer], faces: Faces, out: Path) -> None:
    """Writes of everyone `<name>.csv` and `<name>.png` into a folder, each whole or not at all."""
    for answer in answers:
        with atomic(out / f"{answer.name}.csv") as temporary:
            answer.table().to_csv(temporary, index=False)
        draw_timeline(answer, faces.crops.get(answer.name), out / f"{answer.name}.png")


def _check(prepared: dict[str, Any], video: Path, run: RunFolder) -> None:
    """Refuses what no branch of the run could judge."""
    has = {"audio": prepared["sound"] is not None, "visual": any(v["crops"] for v in prepared["videos"].values())}
    branches = run.load_settings().model.branches
    if not any(has[name] for name in branches):
        lacking = {"audio": "sound", "visual": "face"}
        missing = " and no ".join(lacking[name] for name in branches)
        remedy = "A face must be as high as a tenth of the picture's shorter side; the video must have a sound stream."
        raise VideoError(f"has no {missing} that could be judged", path=video, remedy=remedy)
