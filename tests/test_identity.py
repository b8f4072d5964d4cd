"""What was made by one run and is applied to another is told: settings, heads, decisions, recordings seen before."""

from dataclasses import replace
from pathlib import Path

import pytest

from abaw_expr.commands.main import main
from abaw_expr.errors import RunError
from abaw_expr.files import read_json
from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.table import Outputs, read_outputs, write_outputs
from abaw_expr.settings import Settings
from abaw_expr.settings_file import save_settings
from abaw_expr.training.checkpoint import load_checkpoint, save_checkpoint
from abaw_expr.training.predict import predict, wanted_of_split
from abaw_expr.training.run import RunFolder
from abaw_expr.training.signature import signature
from tests.helpers.fitting import AUDIO, fit, opened
from tests.helpers.tiny import contents
from tuning.features import cached_features
from tuning.refit import refit
from tuning.selection import caveats, decide, search


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(opened(store), tmp_path_factory.mktemp("identity") / "run", AUDIO)


def said(run: RunFolder, store: Path, split: str = "val", checkpoint: str = "last") -> Outputs:
    """What a run says of a split's videos."""
    whole = opened(store)
    wanted = wanted_of_split(whole, split)
    return predict(run, whole, split, wanted, 1.0, "cpu", checkpoint, lambda done, total: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("part", "devices", "same"), [(8, 1, False), (8, 2, True), (16, 1, True), (4, 2, False)])
def test_a_batch_in_parts_is_another_run_as_bn_sees_other_batches(part: int, devices: int, same: bool) -> None:
    whole = Settings()
    cut = replace(whole, compute=replace(whole.compute, micro_batch=part, devices=devices))
    assert (signature(cut, "data") == signature(whole, "data")) == same


@pytest.mark.slow
def test_a_run_is_not_gone_on_with_in_other_parts(store: Path, tmp_path: Path) -> None:
    fit(opened(store), tmp_path / "run", AUDIO)
    (tmp_path / "run/manifest.json").unlink()
    cut = replace(AUDIO, compute=replace(AUDIO.compute, micro_batch=4))
    with pytest.raises(RunError, match="holds a run of other settings"):
        fit(opened(store), tmp_path / "run", cut, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_settings_that_were_edited_predict_nothing(
    checkpoint: str, complete: bool, store: Path, tmp_path: Path
) -> None:
    run = fit(opened(store), tmp_path / "run", AUDIO)
    if not complete:
        run.manifest.unlink()
    assert len(said(run, store, checkpoint=checkpoint).table)
    save_settings(replace(AUDIO, data=replace(AUDIO.data, sequence=2)), run.settings)
    with pytest.raises(RunError, match=r"settings\.yaml: has other settings than the checkpoint.*Put back") as error:
        said(run, store, checkpoint=checkpoint)
    assert load_checkpoint(run.last).signature in str(error.value)


@pytest.mark.slow
def test_heads_trained_again_are_another_run_though_the_loss_is_the_same(
    run: RunFolder, store: Path, tmp_path: Path
) -> None:
    features = cached_features(tmp_path / "f.pt", run, opened(store), 1.0, "cpu", lambda done, total: None)
    for seed in (1, 2):
        refit(run, features, AUDIO, seed, tmp_path / str(seed))
    runs = [run, *(RunFolder(tmp_path / str(seed)) for seed in (1, 2))]
    assert len({load_checkpoint(one.best).signature for one in runs}) == 3
    for one in runs:
        assert read_json(one.manifest, RunError, "")["signature"] == load_checkpoint(one.last).signature
        (source,) = said(one, store).branches.values()
        assert source.run == load_checkpoint(one.last).signature
    again = cached_features(tmp_path / "g.pt", runs[1], opened(store), 1.0, "cpu", lambda done, total: None)
    assert again.key["run"] == load_checkpoint(runs[1].last).signature


@pytest.mark.slow
def test_a_decision_of_another_run_says_so(
    run: RunFolder, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = fit(opened(store), tmp_path / "other", replace(AUDIO, seed=1))
    paths = [tmp_path / f"{name}.parquet" for name in ("first", "second", "best")]
    for path, table in zip(
        paths, [said(run, store), said(other, store), said(run, store, checkpoint="best")], strict=True
    ):
        write_outputs(path, table)
    decision = tmp_path / "decision.json"
    assert main(["tune", "--outputs", str(paths[0]), "--out", str(decision)]) == 0
    told = []
    for path in paths:
        capsys.readouterr()
        assert main(["score", "--outputs", str(path), "--decision", str(decision)]) == 0
        told.append(" ".join(capsys.readouterr().err.split()))
    assert told[0] == ""
    assert "was tuned on other outputs: audio is of run " + load_checkpoint(other.last).signature in told[1]
    assert "audio is of checkpoint best, not of last" in told[2]
    assert all("Tune again" in text for text in told[1:])


def test_a_table_that_does_not_say_its_checkpoint_is_not_told_to_be_of_another(run: RunFolder, store: Path) -> None:
    """As tables were before they said it."""
    table = said(run, store)
    older = {name: replace(source, checkpoint=None) for name, source in table.branches.items()}
    assert decide(table, search(table)).source_mismatches(older) == []


def test_imported_numbers_are_of_a_file_a_split(run: RunFolder, store: Path) -> None:
    table = said(run, store)
    val, test = (
        replace(table, branches={"audio": replace(table.branches["audio"], run=name, checkpoint=None)})
        for name in ("clip_val.csv", "clip_test.csv")
    )
    decision = decide(val, search(val))
    assert decision.source_mismatches(test.branches) == []
    prior = (0.3, *(0.1,) * 7)
    assert decision.source_mismatches({"audio": replace(test.branches["audio"], prior=prior)}) == [
        "audio has another prior"
    ]


@pytest.mark.slow
def test_what_makes_the_nested_estimate_too_high_is_told_and_kept(
    run: RunFolder, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caveats(said(run, store)) == []
    # As if the run had been trained on the other person of a validation recording.
    videos = [video.name for video in opened(store).split("val")]
    copied = RunFolder(tmp_path / "run")
    copied.root.mkdir()
    for name, data in contents(run.root).items():
        (copied.root / name).parent.mkdir(exist_ok=True)
        (copied.root / name).write_bytes(data)
    checkpoint = load_checkpoint(run.best)
    other = videos[0].removesuffix("_left").removesuffix("_right") + "_right"
    save_checkpoint(copied.best, replace(checkpoint, videos=(*checkpoint.videos, other)))
    path, decision = tmp_path / "val.parquet", tmp_path / "decision.json"
    words = ["--run", str(copied.root), "--store", str(store), "--split", "val", "--accelerator", "cpu"]
    assert main(["predict", *words, "--out", str(path)]) == 0
    recording = other.removesuffix("_right")
    assert f"trained on 1 of these recordings, or on another person in them: {recording}" in _flat(capsys)
    assert read_outputs(path).branches["audio"].seen == (recording,)
    assert main(["tune", "--outputs", str(path), "--out", str(decision)]) == 0
    shown = _flat(capsys)
    assert "nested (too high, see below)" in shown
    assert "predict with --checkpoint last" in shown
    kept = Decision.load(decision).estimate
    assert kept is not None
    assert [caveat.split(":")[0] for caveat in kept["caveats"]] == [
        "the epoch of audio was chosen on validation frames",
        "1 recordings were trained on by audio, or another person in them was",
    ]


def test_outputs_of_the_training_split_are_told(run: RunFolder, store: Path) -> None:
    assert caveats(said(run, store, split="train")) == ["these are the frames that were trained on"]


def _flat(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join("".join(capsys.readouterr()).split())
