"""The page of a person's predictions: the video beside its timeline."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from abaw_expr.infer.prediction import PersonPrediction
from abaw_expr.report.blocks import Fact, Facts, Part, Player
from abaw_expr.report.packing import Pack
from abaw_expr.report.page import write_page
from abaw_expr.report.registry import kind_of
from abaw_expr.report.scored import DecidedVideo
from abaw_expr.report.timeline import task_value, video_value


def write_person_page(prediction: PersonPrediction, videos: Sequence[Path], path: Path) -> None:
    """Writes the page, whole or not at all; it names the video files by their way from it, and does not hold them."""
    kind, frames, pack = kind_of(prediction.task), prediction.frames, Pack()
    value = task_value(kind, [*frames.p]) | {
        "video": video_value(kind, DecidedVideo(frames, prediction.p, prediction.label), prediction.audio, pack)
    }
    facts = [Fact(name, cell) for name, cell in prediction.summary().items()]
    facts += [Fact("frames", len(prediction.p)), Fact("with a face", int(frames.crop.sum()))]
    sources = [address(video, path.parent) for video in videos]
    player = Player(value, sources, f"The video of {prediction.name}")
    section = Part(f"{prediction.task.name.upper()}: what is predicted", [player, Facts(facts)], prediction.headline())
    write_page(path, prediction.name, [section], pack)


def address(video: Path, folder: Path) -> str:
    """A file as a page in a folder links it: by its way from there, whatever its name holds."""
    way = os.path.relpath(os.path.realpath(video), os.path.realpath(folder))
    return quote(os.fsencode(Path(way).as_posix()))
