"""Other models' probabilities: every source gives the same table, and what cannot be used is refused by its row."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax

from abaw_expr.commands.main import main
from abaw_expr.errors import OutputsError
from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.importing import Imported, import_branch
from abaw_expr.outputs.joining import read_joined
from abaw_expr.outputs.table import Outputs, read_outputs, write_outputs
from abaw_expr.tasks.task import EXPR
from tests.outputs.test_table import make_outputs, make_video

C = EXPR.n_columns
NAMES = list(EXPR.columns)


@pytest.fixture
def like() -> Outputs:
    return make_outputs([make_video("a", 6), make_video("b_left", 9)])


def numbers(like: Outputs, seed: int = 0) -> pd.DataFrame:
    """What another model says of every frame, with a column a class."""
    p = np.random.default_rng(seed).dirichlet(np.ones(C), len(like.table))
    return pd.DataFrame(p, columns=NAMES).assign(video=like.table["video"], frame=like.table["frame"])


def csv(folder: Path, table: pd.DataFrame) -> Path:
    table.to_csv(folder / "clip.csv", index=False)
    return folder / "clip.csv"


def parquet(folder: Path, table: pd.DataFrame) -> Path:
    table.to_parquet(folder / "clip.parquet")
    return folder / "clip.parquet"


def images(folder: Path, table: pd.DataFrame) -> Path:
    locations = [f"{video}/{frame:05d}.jpg" for video, frame in zip(table["video"], table["frame"], strict=True)]
    return csv(folder, table.drop(columns=["video", "frame"]).assign(image_location=locations))


def npz(folder: Path, table: pd.DataFrame) -> Path:
    for video, rows in table.groupby("video"):
        arrays = {"probabilities": rows[NAMES].to_numpy(), "frame": rows["frame"].to_numpy()}
        np.savez(folder / f"{video}.npz", classes=NAMES, **arrays)
    return folder


Writer = Callable[[Path, pd.DataFrame], Path]
WRITERS = {"csv": csv, "parquet": parquet, "images": images, "npz": npz}


def imported(source: Path, like: Outputs, logits: bool = False, incomplete: bool = False) -> Imported:
    return import_branch(source, "clip", like, logits, None, incomplete)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_source_gives_the_same_table(tmp_path: Path, like: Outputs, kind: str) -> None:
    table = numbers(like)
    mixed = table.sample(frac=1, random_state=1)[["frame", *NAMES[::-1], "video"]]
    made = imported(WRITERS[kind](tmp_path, mixed), like)
    assert (made.used, made.unmatched, made.unfilled) == (15, 0, 0)
    assert made.outputs.branch("clip") == pytest.approx(table[NAMES].to_numpy(np.float32), abs=1e-7)
    for column in ("video", "frame", "time", "crop", "label"):
        assert made.outputs.table[column].tolist() == like.table[column].tolist()
    write_outputs(tmp_path / "out.parquet", made.outputs)
    assert list(read_outputs(tmp_path / "out.parquet").branches) == ["clip"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["csv", "npz"]))
def test_what_is_imported_is_what_was_written(tmp_path: Path, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    like = make_outputs(
        [make_video("a", int(rng.integers(1, 8)), seed), make_video("b", int(rng.integers(1, 8)), seed)]
    )
    table = numbers(like, seed)
    kept = table[rng.random(len(table)) < 0.7]
    kept = pd.concat([kept, table.groupby("video").head(1)]).drop_duplicates(["video", "frame"])
    for file in tmp_path.glob("*.npz"):
        file.unlink()
    made = imported(WRITERS[kind](tmp_path, kept), like)
    expected = table[NAMES].to_numpy(np.float32).copy()
    expected[~table.index.isin(kept.index)] = np.nan
    assert made.outputs.branch("clip") == pytest.approx(expected, abs=1e-7, nan_ok=True)
    assert (made.used, made.unfilled) == (len(kept), len(table) - len(kept))


def test_logits_become_probabilities(tmp_path: Path, like: Outputs) -> None:
    table = numbers(like)
    logits = 3 * np.random.default_rng(1).standard_normal((len(table), C)) + 500
    table[NAMES] = logits
    made = imported(csv(tmp_path, table), like, logits=True)
    assert made.outputs.branch("clip") == pytest.approx(softmax(logits, axis=1), rel=1e-5)
    for video, rows in table.groupby("video"):
        np.savez(tmp_path / f"{video}.npz", classes=NAMES, logits=rows[NAMES].to_numpy())
    (tmp_path / "clip.csv").unlink()
    again = imported(tmp_path, like)
    assert np.array_equal(again.outputs.branch("clip"), made.outputs.branch("clip"))


def test_rows_of_other_videos_and_frames_are_left_out(tmp_path: Path, like: Outputs) -> None:
    table = numbers(like)
    others = table.iloc[:3].assign(video="of another split")
    unmatched = table.iloc[:1].assign(frame=700)
    made = imported(csv(tmp_path, pd.concat([others, table, unmatched])), like)
    assert (made.used, made.unmatched, made.unfilled) == (15, 4, 0)


def change(row: int, **values: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def changed(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype(dict.fromkeys(values, object))
        for name, value in values.items():
            table.loc[row, name] = value
        return table

    return changed


FAULTS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "sum": (change(7, Fear=0.9), r"csv:9: video b_left, frame 2: the row does not sum to 1; .*Use --logits"),
    "not a number": (change(3, Anger=float("nan")), "csv:5: video a, frame 4: the row has a cell that is not a number"),
    "text": (change(3, Anger="high"), "csv:5: video a, frame 4: the row has a cell that is not a number"),
    "infinite": (change(3, Anger=float("inf")), "csv:5: video a, frame 4: the row has a cell that is not a number"),
    "negative": (change(0, Anger=-1.0, Fear=1.5), "csv:2: video a, frame 1: the row has a negative probability"),
    "twice": (lambda t: pd.concat([t, t.iloc[[4]]]), "csv:17: video a, frame 5: the row occurs twice"),
    "frame 0": (change(0, frame=0), "csv:2: .*does not name a frame.*a frame counted from 1"),
    "frame": (change(2, frame="third"), "csv:4: .*does not name a frame"),
    "half a frame": (change(2, frame=2.5), "csv:4: .*does not name a frame"),
    "video": (lambda t: t[t["video"] != "a"], "csv: lacks videos; found '1 missing: a'.*--incomplete"),
    "classes": (
        lambda t: t.rename(columns={name: str(index) for index, name in enumerate(NAMES)}),
        r"csv: has no columns with the names of the classes; found \['0', .*; expected Neutral,Anger,.*is not assumed",
    ),
    "one class": (
        lambda t: t.rename(columns={"Fear": "Contempt"}),
        "csv: has no columns with the names of the classes",
    ),
    "no frames": (lambda t: t.drop(columns="frame"), "csv: has no columns that name the frames"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_source_that_cannot_be_used_is_refused_by_its_row(tmp_path: Path, like: Outputs, fault: str) -> None:
    change, message = FAULTS[fault]
    with pytest.raises(OutputsError, match=message):
        imported(csv(tmp_path, change(numbers(like))), like)


NAMES_LIKE_OTHER_THINGS = [
    "0012",
    "171",
    "NA",
    "nan",
    "null",
    "None",
    "no",
    "1e5",
    "0x10",
    "True",
    "-",
    "12.0",
    "1_000",
]


@pytest.mark.parametrize("kind", WRITERS)
def test_names_are_text_whatever_they_look_like(tmp_path: Path, kind: str) -> None:
    like = make_outputs([make_video(name, 4) for name in sorted(NAMES_LIKE_OTHER_THINGS)])
    table = numbers(like)
    made = imported(WRITERS[kind](tmp_path, table), like)
    assert (made.used, made.unmatched, made.unfilled, made.respelled, made.extra_videos) == (len(table), 0, 0, {}, ())
    assert made.outputs.branch("clip") == pytest.approx(table[NAMES].to_numpy(np.float32), abs=1e-7)


def test_numbers_in_a_parquet_are_names_and_fractions_are_not(tmp_path: Path) -> None:
    like = make_outputs([make_video("171", 4)])
    assert imported(parquet(tmp_path, numbers(like).assign(video=171)), like).used == 4
    with pytest.raises(
        OutputsError, match=r"names that are not text; found .video, float64.\. Write that column as text"
    ):
        imported(parquet(tmp_path, numbers(like).assign(video=171.0)), like)
    lacking = numbers(like).assign(video=["171", None, "171", "171"])
    with pytest.raises(OutputsError, match=r"parquet:2: the row does not name a frame; found ', 2'"):
        imported(parquet(tmp_path, lacking), like)


@pytest.mark.parametrize(
    ("location", "shown"),
    [("a/00001.gif", "a/00001.gif"), ("00001.jpg", "00001.jpg"), ("a", "a"), ("a/00000.jpg", "a/00000.jpg")],
)
def test_the_location_that_cannot_be_read_is_shown(tmp_path: Path, like: Outputs, location: str, shown: str) -> None:
    source = images(tmp_path, numbers(like))
    source.write_text(source.read_text().replace("a/00003.jpg", location))
    with pytest.raises(OutputsError, match=rf"csv:4: the row does not name a frame.* found '{shown}'.*VIDEO/00001"):
        imported(source, like)


SPELLINGS = ["{}.mp4", "{}.AVI", "cropped_aligned/{}", "./batch1/{}.mkv", "{}/", " {}", "videos\\{}", "C:\\x\\{}.mp4"]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", ["csv", "images", "parquet"])
def test_the_usual_spellings_of_names_are_understood(tmp_path: Path, like: Outputs, kind: str, spelling: str) -> None:
    table = numbers(like)
    respelled = table.assign(video=[spelling.format(name) for name in table["video"]])
    made = imported(WRITERS[kind](tmp_path, respelled), like)
    assert made.used == 15
    assert set(made.respelled.values()) <= {"a", "b_left"}
    assert made.outputs.branch("clip") == pytest.approx(table[NAMES].to_numpy(np.float32), abs=1e-7)


@pytest.mark.parametrize("ending", [".png", ".jpeg", ".JPG"])
def test_locations_of_other_pictures_are_understood(tmp_path: Path, like: Outputs, ending: str) -> None:
    source = images(tmp_path, numbers(like))
    source.write_text(source.read_text().replace(".jpg", ending))
    assert imported(source, like).used == 15


def test_names_of_which_two_mean_the_same_are_not_guessed(tmp_path: Path, like: Outputs) -> None:
    table = numbers(like)
    both = pd.concat([table, table[table["video"] == "a"].assign(video="old/a.mp4")])
    made = imported(csv(tmp_path, both), like)
    assert (made.used, made.unmatched, made.extra_videos) == (15, 6, ("old/a.mp4",))


@pytest.mark.parametrize("incomplete", [True, False])
def test_a_branch_without_numbers_is_refused(tmp_path: Path, like: Outputs, incomplete: bool) -> None:
    table = numbers(like)
    strange = table.assign(video=[f"clip {name}" for name in table["video"]])
    message = r"holds no video of the table; found '2 missing: a, b_left'\. It has other videos: clip a, clip b_left"
    with pytest.raises(OutputsError, match=message):
        imported(csv(tmp_path, strange), like, incomplete=incomplete)
    with pytest.raises(OutputsError, match=r"has no frame of the table; found '1001 to 1009'; expected 1 to 9"):
        imported(csv(tmp_path, table.assign(frame=table["frame"] + 1000)), like, incomplete=incomplete)


@pytest.mark.parametrize("decimals", [1, 2, 3])
def test_rounded_probabilities_are_made_to_sum_to_1(tmp_path: Path, like: Outputs, decimals: int) -> None:
    table = numbers(like)
    table[NAMES] = table[NAMES].round(decimals)
    sums = table[NAMES].sum(axis=1)
    table = table[sums > 0]
    assert (np.abs(sums - 1) > 1e-3).any()
    made = imported(csv(tmp_path, table), like)
    expected = table[NAMES].to_numpy() / table[NAMES].sum(axis=1).to_numpy()[:, None]
    branch = made.outputs.branch("clip")
    assert branch[~np.isnan(branch[:, 0])] == pytest.approx(expected, abs=1.1e-3)
    assert made.scaled == (np.abs(table[NAMES].sum(axis=1) - 1) > 1e-6).sum()
    write_outputs(tmp_path / "out.parquet", made.outputs)


def test_probabilities_are_not_taken_for_logits(tmp_path: Path, like: Outputs) -> None:
    table = numbers(like)
    for said in (table, table.round(2)):
        with pytest.raises(OutputsError, match=r"holds probabilities, not logits.*Leave out --logits"):
            imported(csv(tmp_path, said), like, logits=True)


def test_percentages_are_not_taken_for_logits(tmp_path: Path, like: Outputs) -> None:
    table = numbers(like)
    table[NAMES] *= 100
    with pytest.raises(OutputsError, match=r"holds probabilities, not logits.*Leave out --logits"):
        imported(csv(tmp_path, table), like, logits=True)


@pytest.mark.parametrize(
    ("cell", "shown"), [("high", "high"), ("50%", "50%"), ("0,5", "0,5"), ("NA", "NA"), ("", ""), ("inf", "inf")]
)
def test_the_cell_that_is_no_number_is_shown(tmp_path: Path, like: Outputs, cell: str, shown: str) -> None:
    table = numbers(like).astype({"Fear": object})
    table.loc[2, "Fear"] = cell
    message = rf"csv:4: video a, frame 3: the row has a cell that is not a number; found \"?Fear '{shown}'.*Leave out"
    with pytest.raises(OutputsError, match=message):
        imported(csv(tmp_path, table), like)


TEXTS: dict[str, tuple[Callable[[str], str], str]] = {
    "semicolons": (lambda text: text.replace(",", ";"), "is not separated by commas; found ';'.*by commas"),
    "tabs": (lambda text: text.replace(",", "\t"), "is not separated by commas"),
    "a comma at each end": (
        lambda text: text.replace("\n", ",\n").replace(",\n", "\n", 1),
        "more cells than the header; found 11; expected 10",
    ),
    "a column twice": (lambda text: text.replace("Other", "neutral", 1), "has a column twice; found 'neutral'"),
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_csv_of_another_form_is_refused_by_what_is_wrong(tmp_path: Path, like: Outputs, text: str) -> None:
    change_text, message = TEXTS[text]
    source = csv(tmp_path, numbers(like))
    source.write_text(change_text(source.read_text()))
    with pytest.raises(OutputsError, match=message):
        imported(source, like)


def test_columns_that_pandas_wrote_as_an_index_are_columns(tmp_path: Path, like: Outputs) -> None:
    numbers(like).set_index(["video", "frame"]).to_parquet(tmp_path / "clip.parquet")
    assert imported(tmp_path / "clip.parquet", like).used == 15


def test_numbers_for_names_may_be_absent_in_a_parquet(tmp_path: Path, like: Outputs) -> None:
    table = numbers(like)
    table["video"] = pd.array([None] + [12] * (len(table) - 1), dtype="Int64")
    with pytest.raises(OutputsError, match=r"parquet:1: the row does not name a frame; found ', 1'"):
        imported(parquet(tmp_path, table), like)


@pytest.mark.parametrize("classes", [np.array(NAMES, "S"), np.array([f" {name.upper()} " for name in NAMES])])
def test_classes_of_an_npz_are_understood_as_columns_are(tmp_path: Path, like: Outputs, classes: NDArray[Any]) -> None:
    table = numbers(like)
    for video, rows in table.groupby("video"):
        np.savez(tmp_path / f"{video}.npz", classes=classes, probabilities=rows[NAMES].to_numpy())
    assert imported(tmp_path, like).outputs.branch("clip") == pytest.approx(table[NAMES].to_numpy(), abs=1e-6)


EVEN = np.full((6, C), 1 / C)
ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "a frame number": ({"frame": 3}, r"frame has another length; found \(\); expected 6"),
    "frames in columns": ({"frame": np.ones((6, 1))}, r"frame has another length; found \(6, 1\); expected 6"),
    "words for frames": ({"frame": ["first"] * 6}, "frame are not numbers; found '<U5: first"),
    "times for frames": ({"frame": np.arange(6).astype("datetime64[s]")}, "frame are not numbers"),
    "one class": ({"classes": "Fear"}, r"has no columns with the names of the classes; found \['fear'\]"),
    "a class twice": ({"classes": [*NAMES[:-1], NAMES[0]]}, "has a column twice; found 'neutral'"),
    "words for numbers": ({"probabilities": np.full((6, C), "x")}, "probabilities are not numbers"),
    "complex numbers": ({"probabilities": EVEN.astype(complex)}, "probabilities are not numbers"),
}


@pytest.mark.parametrize("fault", ARRAYS)
def test_arrays_that_cannot_be_used_are_named(tmp_path: Path, like: Outputs, fault: str) -> None:
    arrays, message = ARRAYS[fault]
    held: dict[str, Any] = {"probabilities": EVEN, "classes": NAMES} | arrays
    np.savez(tmp_path / "a.npz", **held)
    with pytest.raises(OutputsError, match=rf"a\.npz: {message}"):
        imported(tmp_path, like)


def damaged(file: Path) -> None:
    data = bytearray(file.read_bytes())
    for place in range(60, len(data) // 2, 7):
        data[place] ^= 0xFF
    file.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "bytes": damaged,
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:200]),
    "empty": lambda file: file.write_bytes(b""),
    "an array": lambda file: file.write_bytes(_array()),
}


def _array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, EVEN)
    return stream.getvalue()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_npz_is_named(tmp_path: Path, like: Outputs, damage: str) -> None:
    np.savez_compressed(tmp_path / "a.npz", probabilities=EVEN, classes=NAMES)
    DAMAGES[damage](tmp_path / "a.npz")
    with pytest.raises(OutputsError, match=r"a\.npz: is not an NPZ file"):
        imported(tmp_path, like)


def test_rows_that_share_a_fault_are_counted(tmp_path: Path, like: Outputs) -> None:
    table = numbers(like)
    table[NAMES] *= 2
    with pytest.raises(OutputsError, match=r"csv:2: .*does not sum to 1.* 14 more rows have this fault. Use --logits"):
        imported(csv(tmp_path, table), like)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"probabilities": np.full((6, C), 1 / C)}, r"a\.npz: has no columns with the names of the classes"),
        ({"probabilities": np.full((6, 7), 1 / 7), "classes": NAMES}, r"a\.npz: probabilities has another shape"),
        ({"scores": np.ones((6, C)), "classes": NAMES}, r"a\.npz: has no numbers; found \['classes', 'scores'\]"),
        (
            {"probabilities": np.full((6, C), 1 / C), "classes": NAMES, "frame": [1, 2]},
            r"a\.npz: frame has another length; found 2; expected 6",
        ),
        (
            {"probabilities": np.eye(6, C) / 2, "classes": NAMES},
            r"a\.npz:1: video a, frame 1: the row does not sum to 1",
        ),
    ],
)
def test_an_npz_that_cannot_be_used_is_refused(
    tmp_path: Path, like: Outputs, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(OutputsError, match=message):
        imported(tmp_path, like)


def test_a_file_of_another_kind_is_refused(tmp_path: Path, like: Outputs) -> None:
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(OutputsError, match=r"x\.parquet: is not a Parquet file"):
        imported(tmp_path / "x.parquet", like)
    with pytest.raises(OutputsError, match=r"none\.csv: cannot be read"):
        imported(tmp_path / "none.csv", like)
    (tmp_path / "a.npz").write_text("no")
    with pytest.raises(OutputsError, match=r"a\.npz: is not an NPZ file"):
        imported(tmp_path, like)
    (tmp_path / "a.npz").unlink()
    with pytest.raises(OutputsError, match=r"holds no \.npz file"):
        imported(tmp_path, like)


@pytest.mark.slow
def test_a_teams_own_network_is_tuned_beside_ours(
    tmp_path: Path, like: Outputs, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line, from its CSV to a decision of three branches; its numbers are the truth."""
    like = replace(like, table=like.table.assign(label=np.arange(15, dtype=np.int8) % C))
    write_outputs(tmp_path / "val.parquet", like)
    table = numbers(like)
    table[NAMES] = 0.9 * np.eye(C)[like.table["label"]] + 0.1 / C
    source = csv(tmp_path, table)
    words = ["import", source, "--like", tmp_path / "val.parquet", "--name", "clip", "--out", tmp_path / "clip.parquet"]
    assert main([str(word) for word in words]) == 0
    assert "rows with numbers" in capsys.readouterr().out
    both = [str(tmp_path / "val.parquet"), str(tmp_path / "clip.parquet")]
    assert main(["tune", "--outputs", *both, "--out", str(tmp_path / "decision.json")]) == 0
    shown = capsys.readouterr().out
    assert "clip alone, nothing tuned" in shown
    decision = Decision.load(tmp_path / "decision.json")
    assert list(decision.branches) == ["audio", "visual", "clip"]
    assert decision.scores is not None
    assert decision.scores["alone"]["clip"] == 1.0
    assert decision.scores["macro_f1"] == 1.0
    scored = [
        "score",
        "--outputs",
        *both,
        "--decision",
        str(tmp_path / "decision.json"),
        "--out",
        str(tmp_path / "s.json"),
    ]
    assert main(scored) == 0
    assert json.loads((tmp_path / "s.json").read_text())["all annotated frames"]["macro_f1"] == 1.0
    assert main(["score", "--outputs", both[0], "--decision", str(tmp_path / "decision.json")]) == 2
    assert "the outputs lack a branch" in capsys.readouterr().err
    joined = read_joined([Path(path) for path in both])
    assert decision.labels(joined.videos()[0]).tolist() == joined.videos()[0].label.tolist()


def test_a_table_that_is_given_a_name_is_not_overwritten(tmp_path: Path, like: Outputs) -> None:
    for name in ("val", "other"):
        write_outputs(tmp_path / f"{name}.parquet", like)
    before = (tmp_path / "other.parquet").read_bytes()
    tables = [str(tmp_path / "val.parquet"), f"second={tmp_path / 'other.parquet'}"]
    assert main(["tune", "--outputs", *tables, "--out", str(tmp_path / "other.parquet")]) == 2
    assert (tmp_path / "other.parquet").read_bytes() == before


def test_the_source_is_not_overwritten(tmp_path: Path, like: Outputs) -> None:
    write_outputs(tmp_path / "val.parquet", like)
    source = csv(tmp_path, numbers(like))
    words = ["import", str(source), "--like", str(tmp_path / "val.parquet"), "--name", "clip"]
    before = source.read_bytes()
    assert main([*words, "--out", str(source)]) == 2
    assert source.read_bytes() == before
