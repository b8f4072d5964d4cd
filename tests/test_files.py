"""Files and folders appear whole or not at all; digests tell contents apart."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import pytest

from abaw_expr.errors import RunError, StoreError
from abaw_expr.files import atomic, clean, digest, file_digest, locked, read_json, remove_folder, write_json, write_text

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


WRITER = """
import os, signal, sys
from pathlib import Path
from abaw_expr.files import atomic
path, count, end = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for number in range(count):
    with atomic(path) as temporary:
        temporary.mkdir()
        for file in range(20):
            (temporary / str(file)).write_text(f"{os.getpid()} {number}")
        if end == "killed":
            print("at it", flush=True)
            signal.pause()
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_folders_swapped_at_the_same_moment_are_each_whole(tmp_path: Path) -> None:
    """Four processes write one folder; whoever looks sees one of their folders, whole, and never none for good."""
    path = tmp_path / "a"
    writers = [start(WRITER, path, 30, "done") for _ in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert names(tmp_path) == ["a"]
    assert len(names(path)) == 20
    assert len({file.read_text() for file in path.iterdir()}) == 1


def test_two_writers_of_one_process_number_do_not_meet(tmp_path: Path) -> None:
    """Containers that share a folder give their processes the same numbers."""
    path = tmp_path / "a.txt"
    with atomic(path) as first, atomic(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # which ended last
    assert names(tmp_path) == ["a.txt"]


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    killed, living = (start(WRITER, path, 1, "killed") for _ in range(2))
    for writer in (killed, living):
        assert writer.stdout is not None
        assert writer.stdout.readline() == "at it\n"
    killed.kill()
    killed.wait()
    assert len(names(tmp_path / ".a.part")) == 2
    with atomic(path) as temporary:
        temporary.write_text("new")
    assert len(names(tmp_path / ".a.part")) == 1
    living.kill()
    living.wait()
    (tmp_path / ".a.part/notes.txt").write_text("somebody's")
    clean(tmp_path)
    assert names(tmp_path / ".a.part") == ["notes.txt"]
    assert path.read_text() == "new"


def test_what_a_killed_process_had_put_aside_comes_back(tmp_path: Path) -> None:
    """Killed between the two renames that swap a folder."""
    aside = tmp_path / ".a.part/0123456789abcdef/old0"
    aside.mkdir(parents=True)
    (aside / "old").write_text("old")
    clean(tmp_path)
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["old"]


def test_a_swap_that_fails_midway_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, replace = tmp_path / "a", os.replace
    path.mkdir()
    (path / "old").write_text("old")

    def failing(source: Path, target: Path) -> None:
        if path.exists():
            replace(source, target)  # which is refused, as the folder is not empty
        raise OSError(errno.EIO, "Input/output error", str(source))

    def write() -> None:
        with atomic(path) as temporary:
            temporary.mkdir()

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="Input/output error") as raised:
        write()
    assert raised.value.filename == str(path)
    assert names(tmp_path) == ["a"]
    assert names(path) == ["old"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.txt").symlink_to("disk/b.txt")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "disk/b.txt").read_text() == "new"


def test_an_error_of_ffmpeg_goes_through(tmp_path: Path) -> None:
    """Its file name cannot be set; that of another file than the one that is written stays."""

    def write(film: Path) -> None:
        with atomic(tmp_path / "a") as temporary:
            av.open(str(temporary if film.name == "a" else film))

    with pytest.raises(av.FFmpegError) as raised:
        write(tmp_path / "nothing.mp4")
    assert raised.value.filename == str(tmp_path / "nothing.mp4")
    with pytest.raises(FileNotFoundError) as other:
        write(tmp_path / "a")
    assert other.value.filename == str(tmp_path / "a")
    assert names(tmp_path) == []


def test_a_folder_is_removed_whole(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").touch()
    remove_folder(tmp_path / "a")
    assert names(tmp_path) == []


# Locks

HOLDER = """
import os, signal, sys
from pathlib import Path
from abaw_expr.errors import StoreError
from abaw_expr.files import locked
with locked(Path(sys.argv[1]), StoreError):
    if sys.argv[2] == "alone" or os.fork() == 0:  # of two, the child tells it: it may run long after the fork
        signal.alarm(60)
        print("held", flush=True)
    signal.pause()
"""


def hold(folder: Path, how: str = "alone") -> subprocess.Popen[str]:
    holder = start(HOLDER, folder, how)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


@pytest.mark.parametrize("how", ["alone", "parent"])
def test_a_folder_is_one_process_s_until_that_is_killed(how: str, tmp_path: Path) -> None:
    """A child that it had forked, such as one that loads data, does not hold on to it."""
    folder = tmp_path / "deep/run"
    holder = hold(folder, how)
    with (
        pytest.raises(
            RunError, match=rf"run: is being written by another process; found 'process {holder.pid} on .*, since "
        ),
        locked(folder, RunError),
    ):
        pass
    holder.kill()
    holder.wait()
    assert names(folder) == [".lock"]
    with locked(folder, RunError):
        assert names(folder) == [".lock"]
    assert names(folder) == []


def test_a_folder_made_for_a_lock_goes_with_it(tmp_path: Path) -> None:
    with locked(tmp_path / "deep/run", RunError):
        pass
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is not a folder"), locked(tmp_path / "file", RunError):
        pass


@pytest.mark.slow
def test_many_processes_have_a_folder_one_after_the_other(tmp_path: Path) -> None:
    """Taking, leaving and removing the folder at the same moments never gives it to two."""
    code = """
import os, sys, time
from pathlib import Path
from abaw_expr.errors import StoreError
from abaw_expr.files import locked
folder, mark, had = Path(sys.argv[1]), Path(sys.argv[2]), 0
end = time.monotonic() + 1.5
while time.monotonic() < end:
    try:
        with locked(folder, StoreError):
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            os.unlink(mark)
            had += 1
    except StoreError:
        pass
print(had)
"""
    holders = [start(code, tmp_path / "deep/run", tmp_path / "mark") for _ in range(3)]
    said = [holder.communicate()[0] for holder in holders]
    assert [holder.returncode for holder in holders] == [0] * 3
    assert all(int(text) > 0 for text in said)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


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


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[" * 60 + "]" * 60, '{"a": ' * 900 + "1" + "}" * 900, '"\\ud800"', '{"\\udc00": 1}', "1" * 5000],
)
def test_json_that_could_not_be_shown_or_written_again_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(StoreError, match=r"a\.json: is not JSON"):
        read_json(tmp_path / "a.json", StoreError, "Make it again.")


def test_json_of_another_shape_is_refused_by_place(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, "2"]}')
    with pytest.raises(
        StoreError,
        match=r"a\.json: a\.1 cannot be used \(.* integer\); found '2'\. Make it again\.",
    ):
        read_json(tmp_path / "a.json", StoreError, "Make it again.", dict[str, list[int]])


def test_digest_is_of_the_value_not_of_its_order(tmp_path: Path) -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert len({digest(value) for value in ({"a": 1}, {"a": 2}, {"b": 1}, [1, 2], [2, 1], "1", 1)}) == 7
    assert digest({"b": "é", "a": 1}) == hashlib.sha256('{"a":1,"b":"é"}'.encode()).hexdigest()[:16]


def test_file_digest_is_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "a").write_bytes(data)
    assert file_digest(tmp_path / "a") == hashlib.sha256(data).hexdigest()[:16]
