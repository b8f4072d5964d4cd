"""The table of branch outputs: round trip, schema, and every fault found."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from abaw_expr.errors import OutputsError
from abaw_expr.outputs.joining import read_joined
from abaw_expr.outputs.table import Outputs, Source, VideoOutputs, branch_columns, read_outputs, write_outputs
from abaw_expr.tasks.task import EXPR
from abaw_expr.version import VERSION
from tests.helpers.branches import BRANCHES

C = EXPR.n_columns
PRIOR = (0.3, 0.02, 0.02, 0.03, 0.13, 0.1, 0.04, 0.36)


def make_outputs(videos: list[VideoOutputs], **changes: Any) -> Outputs:
    """A table from arrays, as a program that brings its own model would make it."""
    tables = []
    for video in videos:
        columns = {name: getattr(video, name) for name in ("frame", "time", "crop", "label")}
        for branch, rows in video.p.items():
            columns |= dict(zip(branch_columns(branch, EXPR), rows.T, strict=True))
        tables.append(pd.DataFrame({"video": video.name, **columns}))
    source = Source("0123456789abcdef", changes.pop("prior", PRIOR))
    branches = dict.fromkeys(videos[0].p, source)
    return replace(Outputs(EXPR, pd.concat(tables, ignore_index=True), "validation", branches), **changes)


def make_video(
    name: str, length: int, seed: int = 0, gaps: float = 0.2, branches: tuple[str, ...] = BRANCHES
) -> VideoOutputs:
    """A video of random probabilities and labels; a share `gaps` of each branch is missing."""
    rng = np.random.default_rng([seed, *name.encode()])
    p = {branch: rng.dirichlet(np.ones(C), length).astype(np.float32) for branch in branches}
    for rows in p.values():
        rows[rng.random(length) < gaps] = np.nan
    label = rng.integers(-1, C, length).astype(np.int8)
    # Multiples of 1/64 s, so that an independent window computes the same edges.
    time = np.cumsum(rng.integers(1, 7, length)) / 64
    crop = ~np.isnan(p[branches[-1]][:, 0])
    return VideoOutputs(name, np.arange(1, length + 1, dtype=np.int32), time, crop, p, label)


@pytest.fixture
def outputs() -> Outputs:
    return make_outputs([make_video("a", 6), make_video("b_left", 9)])


def test_reading_gives_what_was_written(tmp_path: Path, outputs: Outputs) -> None:
    path = tmp_path / "outputs.parquet"
    write_outputs(path, outputs)
    read = read_outputs(path)
    assert (read.task, read.split, read.branches, read.path) == (EXPR, "validation", outputs.branches, path)
    assert list(read.branches) == ["audio", "visual"]
    for ours, theirs in zip(read.videos(), outputs.videos(), strict=True):
        assert ours.name == theirs.name
        for name in ("frame", "time", "crop", "label"):
            one, other = getattr(ours, name), getattr(theirs, name)
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
        for name in BRANCHES:
            assert ours.p[name].dtype == np.float32
            assert np.array_equal(ours.p[name], theirs.p[name], equal_nan=True)


def test_videos_are_arrays_with_nan_where_a_modality_is_missing() -> None:
    made = [make_video("a", 5, gaps=0.5), make_video("b", 3)]
    a, b = make_outputs(made).videos()
    assert (a.name, b.name) == ("a", "b")
    assert (a.p["audio"].shape, b.p["visual"].shape, a.p["audio"].dtype) == ((5, C), (3, C), np.float32)
    assert np.array_equal(a.p["audio"], made[0].p["audio"], equal_nan=True)
    assert np.array_equal(b.label, made[1].label)


def test_ordinary_tools_see_the_contract(tmp_path: Path, outputs: Outputs) -> None:
    path = tmp_path / "outputs.parquet"
    write_outputs(path, outputs)
    table = pq.read_table(path)
    types = {field.name: str(field.type) for field in table.schema}
    probabilities = {f"{branch}_{index}": "float" for branch in ("audio", "visual") for index in range(C)}
    video = {"video": "dictionary<values=string, indices=int32, ordered=0>"}
    assert types == video | {"frame": "int32", "time": "double", "crop": "bool"} | probabilities | {"label": "int8"}
    assert json.loads(table.schema.metadata[b"abaw_expr"]) == {
        "task": "expr",
        "class_names": list(EXPR.columns),
        "split": "validation",
        "branches": {name: {"run": "0123456789abcdef", "prior": list(PRIOR)} for name in BRANCHES},
        "version": VERSION,
    }
    missing = int(np.isnan(outputs.branch("audio")[:, 0]).sum())
    assert missing > 0
    assert table["audio_0"].null_count == table["audio_7"].null_count == missing
    assert pd.read_parquet(path)["video"].tolist() == ["a"] * 6 + ["b_left"] * 9


def test_equal_outputs_give_equal_bytes(tmp_path: Path, outputs: Outputs) -> None:
    write_outputs(tmp_path / "one", outputs)
    write_outputs(tmp_path / "two", read_outputs(tmp_path / "one"))
    other = outputs.table.assign(video=pd.Categorical(outputs.table["video"], ["z", "b_left", "a"]))
    write_outputs(tmp_path / "three", replace(outputs, table=other))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()


def test_a_branch_without_a_word_is_null_columns(tmp_path: Path) -> None:
    path = tmp_path / "outputs.parquet"
    write_outputs(path, make_outputs([make_video("a", 4, gaps=1.0)]))
    assert pq.read_table(path)["visual_3"].null_count == 4
    assert np.isnan(read_outputs(path).branch("audio")).all()


@pytest.mark.parametrize("branches", [("visual",), ("clip", "Face-2"), ("audio", "visual", "text")])
def test_any_branches_can_vote(tmp_path: Path, branches: tuple[str, ...]) -> None:
    path = tmp_path / "outputs.parquet"
    made = make_video("a", 6, branches=branches)
    write_outputs(path, make_outputs([made]))
    read = read_outputs(path).videos()[0]
    assert list(read.p) == list(branches)
    assert all(np.array_equal(read.p[name], made.p[name], equal_nan=True) for name in branches)


def written(path: Path, branches: tuple[str, ...], videos: str = "ab", **changes: Any) -> Path:
    """A file of outputs; its branches' numbers depend on its name."""
    made = [make_video(name, 6, seed=len(path.name), branches=branches) for name in videos]
    same = [replace(video, label=make_video(video.name, 6).label, time=np.arange(6) / 8) for video in made]
    write_outputs(path, make_outputs(same, **changes))
    return path


def test_several_files_are_one_table(tmp_path: Path) -> None:
    one, other = written(tmp_path / "one", BRANCHES), written(tmp_path / "the other", ("clip",))
    joined = read_joined([one, other])
    assert list(joined.branches) == ["audio", "visual", "clip"]
    assert joined.paths == (one, other)
    for name, path in {"audio": one, "visual": one, "clip": other}.items():
        assert np.array_equal(joined.branch(name), read_outputs(path).branch(name), equal_nan=True)
    write_outputs(tmp_path / "joined", joined)
    assert list(read_outputs(tmp_path / "joined").branches) == ["audio", "visual", "clip"]


def test_a_file_can_be_given_another_name(tmp_path: Path) -> None:
    one, other = written(tmp_path / "one", BRANCHES), written(tmp_path / "other", ("clip",))
    assert list(read_joined([one, Path(f"second={one}"), Path(f"face={other}")]).branches) == [
        "audio",
        "visual",
        "second-audio",
        "second-visual",
        "face",
    ]
    with pytest.raises(OutputsError, match=r"other: has branches.*found \['clip'\].*NAME=.*other"):
        read_joined([other, other])
    with pytest.raises(OutputsError, match="the name of a branch is not valid; found '2nd'; expected letters"):
        read_joined([one, Path(f"2nd={other}")])


def test_files_of_other_frames_are_not_joined(tmp_path: Path) -> None:
    one, fewer = written(tmp_path / "one", BRANCHES), written(tmp_path / "fewer", ("clip",), videos="a")
    with pytest.raises(
        OutputsError, match=r"fewer: has other rows.*found '0 rows that are not in the first file, 6 rows of"
    ):
        read_joined([one, fewer])
    test = written(tmp_path / "test", ("clip",), split="test")
    with pytest.raises(OutputsError, match="test: is of another split; found 'test'; expected validation"):
        read_joined([one, test])
    relabelled = tmp_path / "relabelled"
    table = read_outputs(written(relabelled, ("clip",))).table
    label = table["label"].to_numpy().copy()
    label[8] = (label[8] + 1) % C
    write_outputs(relabelled, replace(read_outputs(relabelled), table=table.assign(label=label)))
    with pytest.raises(OutputsError, match="relabelled: video b, frame 3: the label differs"):
        read_joined([one, relabelled])


def test_a_file_with_wider_types_is_read(tmp_path: Path, outputs: Outputs) -> None:
    path = tmp_path / "outputs.parquet"
    write_outputs(path, outputs)
    narrow, metadata = read_outputs(path).table, pq.read_schema(path).metadata
    wide = outputs.table.astype({"frame": "int64", "label": "int64"} | {f"audio_{i}": "float64" for i in range(C)})
    pq.write_table(pa.Table.from_pandas(wide).replace_schema_metadata(metadata), path)
    assert pq.read_schema(path).field("frame").type == pa.int64()
    pd.testing.assert_frame_equal(read_outputs(path).table, narrow)


def edit(table: pd.DataFrame, row: int, **values: Any) -> pd.DataFrame:
    table = table.copy()
    for name, value in values.items():
        table.loc[row, name] = value
    return table


FAULTS = {
    "frame 0": (lambda t: edit(t, 0, frame=0), "video a, frame 0: the frame number is too low"),
    "twice": (lambda t: edit(t, 8, frame=2), "video b_left, frame 2: the row occurs twice"),
    "frames unsorted": (lambda t: t.iloc[[0, 2, 1]], "video a, frame 2: the row is out of order.*sorted by video"),
    "videos unsorted": (lambda t: t.iloc[::-1].sort_values("frame"), "the row is out of order"),
    "video split": (lambda t: pd.concat([t, t[:1]]), "video a, frame 1: the row is out of order"),
    "time back": (lambda t: edit(t, 7, time=0.0), "video b_left, frame 2: time decreases"),
    "time infinite": (lambda t: edit(t, 14, time=np.inf), "frame 9: time is not a number"),
    "label high": (
        lambda t: edit(t, 3, label=8),
        r"video a, frame 4: the label is out of range; expected 0..7, or -1",
    ),
    "label low": (lambda t: edit(t, 3, label=-5), "video a, frame 4: the label is out of range"),
    "label too wide": (lambda t: t.assign(label=300), "column label cannot be converted to int8"),
    "label empty": (lambda t: t.assign(label=[None] * len(t)), "column label has empty cells; found 15"),
    "partly empty": (
        lambda t: edit(t, 10, **dict.fromkeys(branch_columns("audio", EXPR), 1 / C) | {"audio_3": np.nan}),
        "video b_left, frame 5: the audio row is partly empty",
    ),
    "sum": (
        lambda t: edit(t, 2, **dict.fromkeys(branch_columns("visual", EXPR), 0.2)),
        "video a, frame 3: the visual row does not sum to 1; expected a sum within 0.001 of 1",
    ),
    "infinite": (
        lambda t: edit(t, 2, **dict.fromkeys(branch_columns("visual", EXPR), np.inf)),
        "the visual row does not sum to 1",
    ),
    "negative": (
        lambda t: edit(t, 2, **dict.fromkeys(branch_columns("visual", EXPR), 0) | {"visual_0": 2, "visual_1": -1}),
        "video a, frame 3: the visual row has a negative probability",
    ),
    "column absent": (lambda t: t.drop(columns=["audio_0", "label"]), "lacks columns: audio_0, label"),
    "no rows": (lambda t: t.iloc[:0], "has no rows"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_table_that_breaks_the_contract_is_neither_written_nor_read(
    tmp_path: Path, outputs: Outputs, fault: str
) -> None:
    path, (change, message) = tmp_path / "outputs.parquet", FAULTS[fault]
    write_outputs(path, outputs)
    bytes_before, metadata = path.read_bytes(), pq.read_schema(path).metadata
    broken = change(outputs.table)
    with pytest.raises(OutputsError, match=message):
        write_outputs(path, replace(outputs, table=broken))
    assert path.read_bytes() == bytes_before
    pq.write_table(pa.Table.from_pandas(broken, preserve_index=False).replace_schema_metadata(metadata), path)
    with pytest.raises(OutputsError, match=f"outputs.parquet: .*{message}"):
        read_outputs(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "va"}, "is of another task; found 'va'; expected expr"),
        ({"class_names": sorted(EXPR.columns)}, r"other classes or another order of them; found \['Anger'"),
        ({"branches": {}}, "has no branches; found {}"),
        ({"branches": ["audio"]}, "has no branches"),
        ({"branches": {"2nd": {}}}, "the name of a branch is not valid; found '2nd'; expected letters"),
        (
            {"branches": {"audio": {"run": "x", "prior": [0.5] * C}}},
            "audio has no valid prior; found .*; expected run, and prior: 8 fractions that sum to 1",
        ),
        ({"branches": {"audio": {"run": "x", "prior": [1.0]}}}, "no valid prior"),
        ({"branches": {"audio": {"prior": [1 / C] * C}}}, "no valid prior"),
        ({"branches": {"audio": 3}}, "no valid prior"),
    ],
)
def test_metadata_of_something_else_is_refused(
    tmp_path: Path, outputs: Outputs, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "outputs.parquet"
    write_outputs(path, outputs)
    table = pq.read_table(path)
    metadata = json.dumps(json.loads(table.schema.metadata[b"abaw_expr"]) | change)
    pq.write_table(table.replace_schema_metadata({"abaw_expr": metadata}), path)
    with pytest.raises(OutputsError, match=message):
        read_outputs(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "no `abaw_expr` metadata"),
        ("{", "metadata that is not JSON"),
        ("{}", "lacks metadata: task, class_names, split, branches"),
        ("[]", "lacks metadata: task"),
    ],
)
def test_a_parquet_file_of_another_program_is_refused(
    tmp_path: Path, outputs: Outputs, metadata: str | None, message: str
) -> None:
    path = tmp_path / "outputs.parquet"
    table = pa.Table.from_pandas(outputs.table)
    pq.write_table(table.replace_schema_metadata(metadata and {"abaw_expr": metadata}), path)
    with pytest.raises(OutputsError, match=message):
        read_outputs(path)


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("video,frame\n")
    with pytest.raises(OutputsError, match=r"table\.csv: is not a Parquet file"):
        read_outputs(tmp_path / "table.csv")
    with pytest.raises(OutputsError, match=r"absent\.parquet: cannot be read"):
        read_outputs(tmp_path / "absent.parquet")
    with pytest.raises(OutputsError, match="cannot be read"):
        read_outputs(tmp_path)
