"""Files and folders appear whole or not at all; digests tell contents apart."""

import hashlib
import json
from pathlib import Path

import pytest

from abaw_expr.errors import StoreError
from abaw_expr.files import atomic, digest, file_digest, read_json, write_json, write_text

ERRORS = [ValueError, KeyboardInterrupt, SystemExit]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep/er/a.txt"
    for text in ("old", "new"):
        before = path.read_text() if path.exists() else None
        with atomic(path) as temporary:
            temporary.write_text(text)
            assert path.parent in temporary.parents  # one file system, so that the last step is one rename
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == text
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("old", [None, "old"])
def test_interrupted_file_leaves_the_old_one(tmp_path: Path, error: type[BaseException], old: str | None) -> None:
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)

    def interrupted() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == ([] if old is None else ["a.txt"])
    assert old is None or path.read_text() == old


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("old", [False, True])
def test_interrupted_folder_leaves_the_old_one(tmp_path: Path, error: type[BaseException], old: bool) -> None:
    path = tmp_path / "a"
    if old:
        path.mkdir()
        (path / "old").write_text("old")

    def interrupted() -> None:
        with atomic(path) as temporary:
            (temporary / "deep").mkdir(parents=True)
            (temporary / "deep/half").write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert names(tmp_path) == (["a"] if old else [])
    assert not old or names(path) == ["old"]


def test_folder_replaces_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for name in ("old", "new"):
        with atomic(path) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert names(tmp_path) == ["a"]
    assert names(path) == ["new"]


def test_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def replace() -> None:
        with atomic(path) as temporary:
            temporary.mkdir()

    with pytest.raises(OSError):  # noqa: PT011  which one depends on the system
        replace()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_text_is_utf_8_with_plain_newlines(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é\n1\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\n1\n"


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": "é"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json", StoreError, "") == json.loads((tmp_path / "a.json").read_text()) == value


def test_json_without_a_number_for_nan_is_refused_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", [float("nan")])
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_json_that_cannot_be_read_is_the_callers_error(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(StoreError, match=r"a\.json: cannot be read \(No such file.*\)\. Make it again\."):
        read_json(path, StoreError, "Make it again.")
    for data in (b"", b"{", b"\xff\xfe{}x"):
        path.write_bytes(data)
        with pytest.raises(StoreError, match=r"a\.json: is not JSON.*Make it again\."):
            read_json(path, StoreError, "Make it again.")


def test_digest_is_of_the_value_not_of_its_order(tmp_path: Path) -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert len({digest(value) for value in ({"a": 1}, {"a": 2}, {"b": 1}, [1, 2], [2, 1], "1", 1)}) == 7
    assert digest({"b": "é", "a": 1}) == hashlib.sha256('{"a":1,"b":"é"}'.encode()).hexdigest()[:16]


def test_file_digest_is_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "a").write_bytes(data)
    assert file_digest(tmp_path / "a") == hashlib.sha256(data).hexdigest()[:16]
