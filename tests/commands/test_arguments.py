"""What is typed: overview and helps, leading words, and errors that name what was meant."""

import inspect
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path

import pytest
import tyro

from abaw_expr.commands.helping import arguments_of
from abaw_expr.commands.main import main
from abaw_expr.commands.parsing import SYNONYMS, expand, nearest, parse
from abaw_expr.commands.table import GROUPS, WAY, commands, find
from abaw_expr.errors import UserError
from abaw_expr.version import VERSION
from tests.helpers.paths import ROOT

COMMANDS = commands(main)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command line that succeeds prints."""
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The error of a command line that cannot be read."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


# Overview


def test_the_overview_has_a_line_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    texts = {shown(capsys, *words) for words in ((), ("--help",), ("-h",), ("help",))}
    assert len(texts) == 1
    lines = texts.pop().splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    listed = [found[1] for line in lines if (found := re.match(r"  (\w+)  +\S", line))]
    first = dict.fromkeys(name.split()[0] for name in (*WAY, *COMMANDS))
    assert listed[: len(first)] == list(first)


def test_a_group_has_an_overview(capsys: pytest.CaptureFixture[str]) -> None:
    for group in GROUPS:
        text = shown(capsys, group)
        assert text == shown(capsys, group, "--help") == shown(capsys, "help", group)
        assert [name for name in COMMANDS if f"  {name} " in text] == [n for n in COMMANDS if n.startswith(f"{group} ")]


def test_the_version_is_told_without_torch() -> None:
    code = (
        "import sys; from abaw_expr.commands.main import main; main(['--version']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"abaw-expr {VERSION}, torch \d+\.\d+\.\S+, Python 3\.\d+\.\d+\n", done.stdout)


# Helps


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_fits_the_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, *name.split(), "--help")
    assert text == shown(capsys, "help", *name.split())
    assert text.startswith(f"usage: abaw-expr {name} ")
    assert max(map(len, text.splitlines())) <= 80
    assert "None" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_lists_what_tyro_reads(name: str) -> None:
    function = COMMANDS[name].make([name])
    with redirect_stdout(io.StringIO()) as text, suppress(SystemExit):
        tyro.cli(function, args=["--help"])
    lines = re.findall(r"^\W{1,2}(--[a-z].*?)(?:  |$)", text.getvalue(), re.MULTILINE)
    read = {flag for line in lines for flag in re.findall(r"--[a-z][\w.-]*", line)}
    assert {flag for argument in arguments_of(function) for flag in argument.names} == read


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_is_explained(name: str) -> None:
    for argument in arguments_of(COMMANDS[name].make([name])):
        assert argument.text, argument
        assert argument.text[-1] in ".)", argument


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_help_can_be_read(name: str) -> None:
    text = (inspect.getdoc(COMMANDS[name].make([name])) or "").replace("\\\n", " ")
    for example in re.findall(r"^    abaw-expr (.*)$", text, re.MULTILINE):
        words = shlex.split(example)
        found, rest = find(COMMANDS, words)
        assert callable(parse(found, COMMANDS[found], rest))


def test_a_usage_names_leading_words_and_flags_that_exist() -> None:
    for name, command in COMMANDS.items():
        known = {flag for argument in arguments_of(command.make([name])) for flag in argument.names}
        assert set(re.findall(r"--[\w.-]+", command.usage)) <= known
        for flags in command.leading.values():
            assert {flag.removesuffix("...") for flag in flags} <= known
            assert len([flag for flag in flags[:-1] if flag.endswith("...")]) == 0


def test_the_settings_of_train_are_grouped_by_section(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "train", "--help")
    sections = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert sections == ["arguments", "data", "augment", "branches", "model", "loss", "optimiser", "compute"]
    for section, part in zip(sections, re.split(r"^\w+:$", text, flags=re.MULTILINE)[1:], strict=True):
        flags = re.findall(r"^  (?:--\w+ INT, )?--([\w.-]+)", part, re.MULTILINE)
        assert flags
        above = {"arguments": {""}, "branches": {"branches.audio", "branches.visual"}}.get(section, {section})
        assert {flag.rpartition(".")[0] for flag in flags} == above


# Leading words


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("prepare release store", "--release release --store store"),
        ("prepare release --store store", "--release release --store store"),
        ("prepare --release release --store store", "--release release --store store"),
        ("prepare store --verify", "--store store --verify"),
        ("train store ravdess=0.3 --run run", "--store store ravdess=0.3 --run run"),
        ("train --run run --store store", "--run run --store store"),
        ("predict run store --split val", "--run run --store store --split val"),
        ("predict run --store store", "--run run --store store"),
        ("tune a.parquet b=c.parquet --out d.json", "--outputs a.parquet b=c.parquet --out d.json"),
        ("score val.parquet", "--outputs val.parquet"),
        ("score p.txt --annotations folder", "--predictions p.txt --annotations folder"),
        ("submit test.parquet --out p.txt", "--outputs test.parquet --out p.txt"),
        ("faces release", "--release release"),
        ("faces a.mp4 b.mp4 --out found", "--videos a.mp4 b.mp4 --out found"),
        ("ablate store --out out", "--store store --out out"),
        ("penalties store more=.1 --run run", "--store store more=.1 --run run"),
        ("refit store --run run", "--store store --run run"),
        ("demo folder --seed 1", "--out folder --seed 1"),
        ("describe paper", "--settings paper"),
        ("check predictions.txt --template t", "predictions.txt --template t"),
    ],
)
def test_leading_words_stand_for_flags(typed: str, read: str) -> None:
    name, *words = typed.split()
    assert expand(name, COMMANDS[name], words) == read.split()


def test_leading_words_that_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(capsys, "predict", "run", "store", "val", "--out", "o")
    assert (
        "predict takes 2 words before its flags; found 'run store val'; expected `abaw-expr predict RUN STORE" in text
    )
    assert "`abaw-expr predict --help`" in text
    for flag in ("--store", "--store=other"):
        text = refused(capsys, "train", "store", "--run", "r", flag, "other")
        assert "--store is given twice: before the flags and as one; found 'store --run r --store" in text


def test_several_processes_get_arguments_that_they_read_alike(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[list[str], int]] = []

    def start(words: Sequence[str], count: int) -> int:
        told.append((list(words), count))
        return 0

    monkeypatch.setattr("abaw_expr.training.launch.start_processes", start)
    typed = ["train", str(store), "--run", str(tmp_path / "run"), "--devices", "2"]
    assert main(["--", *typed]) == 0
    (words, count) = told.pop()
    assert (words, count) == (["train", "--store", *typed[1:]], 2)
    assert main(words) == 0
    assert told == [(words, 2)]


# Errors


@pytest.mark.parametrize("more", [[], ["--help"], ["--run", "x"]])
def test_an_unknown_command_names_the_nearest(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = refused(capsys, "tain", *more)
    assert text == (
        "abaw-expr: error: there is no command tain. Did you mean `train`? `abaw-expr --help` lists the commands.\n"
    )
    assert "Did you mean `ledger add`? `abaw-expr ledger --help`" in refused(capsys, "ledger", "ad", *more)
    assert "there is no command zzz. `abaw-expr --help`" in refused(capsys, "zzz", *more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "typed", "meant"),
    [
        ("train", "--lr", "--optimiser.learning-rate"),
        ("train", "--learning_rate", "--optimiser.learning-rate"),
        ("train", "--bs", "--optimiser.batch-size"),
        ("train", "--batch-size", "--optimiser.batch-size"),
        ("train", "--epochs", "--optimiser.epochs"),
        ("train", "--epoch", "--optimiser.epochs"),
        ("train", "--wd", "--optimiser.weight-decay"),
        ("train", "--ema", "--optimiser.ema-decay"),
        ("train", "--workers", "--compute.workers"),
        ("train", "--num-workers", "--compute.workers"),
        ("train", "--device", "--compute.accelerator"),
        ("train", "--gpu", "--compute.accelerator"),
        ("train", "--sed", "--seed"),
        ("train", "--output", "--run"),
        ("train", "--out", "--run"),
        ("train", "-o", "--run"),
        ("train", "--ckpt", "--initial-weights"),
        ("train", "--config", "--settings"),
        ("train", "--optimizer.epochs", "--optimiser.epochs"),
        ("predict", "--device", "--accelerator"),
        ("predict", "--ckpt", "--checkpoint"),
        ("predict", "--output", "--out"),
        ("prepare", "--num-workers", "--workers"),
        ("prepare", "--out", "--store"),
    ],
)
def test_an_unknown_flag_names_the_nearest_of_its_command(
    name: str, typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([typed, "1"], [f"{typed}=1"], ["--seed", "1", typed]):
        text = refused(capsys, name, *words)
        flag = typed.replace("_", "-")
        assert f"error: {name} has no flag " in text
        assert f"{flag} (did you mean `{meant}`?)" in text
        assert text.endswith(f"`abaw-expr {name} --help` lists its flags.\n")
        assert text.count("\n") == 1


def test_what_else_is_wrong_names_the_help_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["predict", "--split", "dev"], ["train", "store"], ["train", "s", "--run", "r", "--seed", "x"]):
        text = refused(capsys, *words)
        assert f"abaw-expr {words[0]} --help" in text


def test_a_flag_like_none_has_no_suggestion() -> None:
    assert nearest("--zzz", ["--store", "--run"]) is None
    assert nearest("--lr", ["--store"]) is None


def test_synonyms_lead_to_flags_that_exist() -> None:
    known = {
        flag for name, c in COMMANDS.items() for argument in arguments_of(c.make([name])) for flag in argument.names
    }
    assert {flag for flags in SYNONYMS.values() for flag in flags} <= known


def test_leading_words_are_of_one_meaning() -> None:
    with pytest.raises(UserError, match="--release is given twice"):
        expand("prepare", COMMANDS["prepare"], ["a", "--release", "b", "--store", "c"])
