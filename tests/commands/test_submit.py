"""`submit` through the front door: every edition's golden file from outputs tables, filling, and what is refused."""

from pathlib import Path

import pytest

from abaw_expr.commands.exit_status import COULD_NOT_RUN, OK
from abaw_expr.commands.main import main
from abaw_expr.outputs.decision import Decision, Vote
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import AU, EXPR, VA, Task
from tests.golden.make_golden import ANSWERS
from tests.helpers.paths import SUBMISSIONS

TABLES = {"": [""], "va/": ["va/"], "au/": ["au/"], "compound/": ["compound/"], "multi-task/": ["", "va/", "au/"]}
"""By golden folder: the folders whose predictions make the tables that it is submitted from."""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An outputs table of each golden file of one challenge."""
    folder = tmp_path_factory.mktemp("tables")
    made = {}
    for name in TABLES:
        if name != "multi-task/":
            made[name] = str(folder / f"{name.strip('/') or 'expr'}.parquet")
            assert (
                main(["convert", str(SUBMISSIONS / name / "predictions.txt"), "--out", made[name], "--rate", "30"])
                == OK
            )
    return made


def submit(tables: list[str], template: Path, out: Path, *arguments: str | Path) -> int:
    flags = ["--outputs", *tables, "--template", str(template), "--out", str(out)]
    return main(["submit", *flags, *map(str, arguments)])


def write_decision(path: Path, challenge: Task) -> Path:
    Decision({"predictions": Vote(metric_of(challenge).unknown_prior)}, task=challenge).save(path)
    return path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ANSWERS)
def test_golden_file(name: str, tables: dict[str, str], tmp_path: Path) -> None:
    template = SUBMISSIONS / name / "template.txt"
    assert submit([tables[own] for own in TABLES[name]], template, tmp_path / "p.txt") == OK
    assert (tmp_path / "p.txt").read_bytes() == (SUBMISSIONS / name / "predictions.txt").read_bytes()


@pytest.mark.parametrize("name", [name for name in ANSWERS if (SUBMISSIONS / name / "per_video").is_dir()])
def test_golden_folder(name: str, tables: dict[str, str], tmp_path: Path) -> None:
    template = SUBMISSIONS / name / "template.txt"
    assert submit([tables[name]], template, tmp_path / "folder", "--edition", "per-video") == OK
    written = {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
    assert written == {path.name: path.read_bytes() for path in (SUBMISSIONS / name / "per_video").iterdir()}


def test_each_challenge_has_its_decision_in_any_order(tables: dict[str, str], tmp_path: Path) -> None:
    decisions = [write_decision(tmp_path / f"{challenge.name}.json", challenge) for challenge in (AU, EXPR, VA)]
    golden, own = SUBMISSIONS / "multi-task", [tables[name] for name in TABLES["multi-task/"]]
    assert submit(own, golden / "template.txt", tmp_path / "p.txt", "--decision", *decisions) == OK
    assert (tmp_path / "p.txt").read_bytes() == (golden / "predictions.txt").read_bytes()


def test_decisions_that_do_not_fit_are_refused(
    tables: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template, out = SUBMISSIONS / "template.txt", tmp_path / "p.txt"
    expr, again, va = (
        write_decision(tmp_path / f"{name}.json", challenge)
        for name, challenge in (("expr", EXPR), ("again", EXPR), ("va", VA))
    )
    for decisions, message in (
        ([va], "va.json: task cannot be used; found 'va'; expected expr"),
        ([expr, again], "again.json: is a second decision for the same task"),
    ):
        assert submit([tables[""]], template, out, "--decision", *decisions) == COULD_NOT_RUN
        assert message in said(capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "given", "found", "expected"),
    [
        ("va/", [""], "expr (Neutral,", "va (valence,arousal)"),
        ("", ["", "va/"], "expr (Neutral,", "expr (Neutral,"),
        ("multi-task/", ["", "va/"], "expr (Neutral,", "va (valence,arousal); expr"),
        ("compound/", [""], "expr (Neutral,", "compound (Fearfully_Surprised"),
    ],
)
def test_template_of_another_challenge_is_refused(
    name: str,
    given: list[str],
    found: str,
    expected: str,
    tables: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    template = SUBMISSIONS / name / "template.txt"
    assert submit([tables[own] for own in given], template, tmp_path / "p.txt") == COULD_NOT_RUN
    message = said(capsys)
    assert f"{template}:1: the template is of another challenge" in message
    assert f"found '{found}" in message
    assert f"expected {expected}" in message


def test_rows_are_filled_only_where_it_is_said_and_counted(
    tables: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (SUBMISSIONS / "va" / "template.txt").read_text().splitlines()
    lines += ["video7/00004.jpg,", "video7/00005.jpg,", "video7_left/00009.jpg,"]
    (tmp_path / "template.txt").write_text("\n".join(lines) + "\n")
    assert submit([tables["va/"]], tmp_path / "template.txt", tmp_path / "p.txt") == COULD_NOT_RUN
    message = said(capsys)
    assert f"{tmp_path / 'template.txt'}:24: 3 of 25 rows have no prediction: video7/00004.jpg" in message
    assert "--fill" in message
    assert submit([tables["va/"]], tmp_path / "template.txt", tmp_path / "p.txt", "--fill", "interpolate") == OK
    assert "Rows filled by --fill interpolate: 2 of video7, 1 of video7_left." in said(capsys)
    golden = (SUBMISSIONS / "va" / "predictions.txt").read_text()
    last = {line.partition("/")[0]: line.partition(",")[2] for line in golden.splitlines()}
    held = [f"{line}{last[line.partition('/')[0]]}\n" for line in lines[-3:]]
    assert (tmp_path / "p.txt").read_text() == golden + "".join(held)
