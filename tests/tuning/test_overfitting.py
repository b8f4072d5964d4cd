"""A planted case: a member that overfits wins on the validation that it was chosen on, and loses on all that is new."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from abaw_expr.commands.main import main
from abaw_expr.outputs.averaging import average
from abaw_expr.outputs.joining import stack
from abaw_expr.outputs.table import Outputs, Source, VideoOutputs, write_outputs
from tests.outputs.test_table import C, make_outputs

VALIDATION = [f"v{number:02d}" for number in range(6)]
TRAINING = [f"t{number:02d}" for number in range(30)]
TEST = [f"x{number:02d}" for number in range(30)]
FRAMES = 60


def outputs(names: Sequence[str], knowledge: float, run: str, split: str, checkpoint: str = "last") -> Outputs:
    """What a run says of videos whose classes it knows to some degree; labels depend on the video alone."""
    videos = []
    for name in names:
        label = np.random.default_rng([*name.encode()]).integers(0, C, FRAMES).astype(np.int8)
        noise = np.random.default_rng([*name.encode(), *run.encode()]).normal(size=(FRAMES, C))
        logits = knowledge * np.eye(C)[label] + noise
        p = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
        frame, crop = np.arange(1, FRAMES + 1, dtype=np.int32), np.ones(FRAMES, bool)
        videos.append(VideoOutputs(name, frame, 10.0 * np.arange(FRAMES, dtype=np.float64), crop, {"visual": p}, label))
    source = Source(run.ljust(16, "0"), (1 / C,) * C, checkpoint)
    return replace(make_outputs(videos), split=split, branches={"visual": source})


def members(name: str, split: str, names: Sequence[str], knowledge: float, checkpoint: str = "last") -> list[Outputs]:
    return [outputs(names, knowledge, f"{name}{number}", split, checkpoint) for number in range(2)]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Tables of an overfitted ensemble, a, and of another, b: `a` knows the validation that chose its epoch."""
    for name, on_validation, on_others, checkpoint in (("a", 4.0, 1.2, "best"), ("b", 2.4, 2.0, "last")):
        val = average(members(name, "val", VALIDATION, on_validation, checkpoint))
        test = average(members(name, "test", TEST, on_others, checkpoint))
        folds = [TRAINING[:15], TRAINING[15:]]
        own = [outputs(names, on_others, f"{name}{fold}", "held-out") for fold, names in enumerate(folds)]
        for split, table in (("val", val), ("test", test), ("oof", stack(own))):
            write_outputs(tmp_path / f"{name}-{split}.parquet", table)
    return tmp_path


def call(*words: object) -> int:
    return main([str(word) for word in words])


def test_validation_says_a_and_all_that_is_new_says_b(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("val", "oof"):
        for name in "ab":
            table = written / f"{name}-{split}.parquet"
            assert call("tune", table, "--out", written / f"{name}-{split}.json") == 0
    said = capsys.readouterr().err
    assert "the epoch of visual was chosen on validation frames" in " ".join(said.split())
    better = {}
    for split, of in (("val", "val"), ("oof", "oof"), ("test", "oof")):
        files = [(written / f"{name}-{split}.parquet", written / f"{name}-{of}.json") for name in "ab"]
        (first, one), (second, other) = files
        words = ["--outputs", first, "--decision", one, "--other-outputs", second, "--other-decision", other]
        assert call("compare", *words) == 0
        better[split] = "a" if "The first is better" in capsys.readouterr().out else "b"
    assert better == {"val": "a", "oof": "b", "test": "b"}


def test_the_decision_says_which_estimate_to_trust(written: Path) -> None:
    estimates = {}
    for split in ("val", "oof"):
        assert call("tune", written / f"a-{split}.parquet", "--out", written / "d.json") == 0
        estimates[split] = json.loads((written / "d.json").read_text())["estimate"]
    assert estimates["val"]["nested_macro_f1"] > estimates["oof"]["nested_macro_f1"] + 0.2
    (caveat,) = estimates["val"]["caveats"]
    assert "predict with --checkpoint last" in caveat
    assert "caveats" not in estimates["oof"]
