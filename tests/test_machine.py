"""What the machine refuses ends a command; it is never written down as a file's defect."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest

from abaw_expr.commands import console
from abaw_expr.commands.main import main
from abaw_expr.data.media.decode import read_audio, read_clock
from abaw_expr.data.store.store import open_store
from abaw_expr.tasks.task import EXPR
from tests.helpers.faults import Machine
from tests.helpers.tiny import contents, prepared_in


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release, and the store that an undisturbed machine makes of it."""
    return prepared_in(tmp_path_factory.mktemp("tiny"))


def prepare(release: Path, store: Path) -> list[str]:
    return ["prepare", "--release", str(release), "--store", str(store), "--workers", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("again", [False, True])
def test_a_passing_fault_does_not_become_data(
    number: int,
    again: bool,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every open of the release fails once: the command ends, or its store is what it would have been."""
    release, store, calls = tiny / "release", tmp_path / "store", ("open", "scandir")
    if again:
        shutil.copytree(tiny / "store", store)
    whole, arguments = contents(tiny / "store"), prepare(release, store)
    counting = Machine(release, 0, 0, calls)
    counting.run(monkeypatch, lambda: main(prepare(release, tmp_path / "counted")))
    statuses = []
    for at in range(1, counting.count + 1):
        status = Machine(release, at, number, calls).run(monkeypatch, lambda: main(arguments))
        text = " ".join(capsys.readouterr().err.split())
        assert "Traceback" not in text
        if status == 0:
            assert contents(store) == whole, at
        else:
            assert status == 2
            assert os.strerror(number) in text
            assert str(release) in text
        statuses.append(status)
    assert statuses.count(2) > len(statuses) / 2
    assert main(arguments) == 0
    assert contents(store) == whole


@pytest.mark.slow
@pytest.mark.parametrize("handles", [12, 20, 40])
def test_too_few_file_handles_end_the_command(handles: int, tiny: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (handles, handles))

    store = tmp_path / "store"
    arguments = [sys.executable, "-m", "abaw_expr", *prepare(tiny / "release", store)]
    ended = subprocess.run(arguments, preexec_fn=limit, capture_output=True, text=True, check=False)
    if ended.returncode == 0:
        assert open_store(store, EXPR).digest == open_store(tiny / "store", EXPR).digest
    else:
        assert not (store / "manifest.json").exists()
    assert "unreadable" not in ended.stdout


def test_bytes_that_the_machine_refuses_are_no_defect_of_a_film(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever read of them fails: FFmpeg would say of some that the file ended early."""
    (video_file,) = (tiny / "release").rglob("a.mp4")
    whole, read = read_audio(video_file), os.read
    assert whole is not None
    count = at = 0

    def refusing(descriptor: int, size: int) -> bytes:
        nonlocal count
        count += 1
        if count == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, size)

    monkeypatch.setattr("abaw_expr.data.media.containers.os.read", refusing)
    refused = 0
    for work in (read_clock, read_audio):
        count, at = 0, 0
        work(video_file)
        for number in range(1, count + 1):
            count, at = 0, number
            with pytest.raises(OSError, match="Input/output error") as raised:
                work(video_file)
            assert not isinstance(raised.value, av.FFmpegError)
            refused += 1
    assert refused >= 3
    at = 0
    again = read_audio(video_file)
    assert again is not None
    assert again.samples.tobytes() == whole.samples.tobytes()


def test_memory_that_is_lacking_ends_a_command_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(*_: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("abaw_expr.data.datasets.registry.read_dataset", lacking)
    assert main(prepare(tmp_path, tmp_path / "store")) == 2
    assert "out of memory. Nothing was left half-written." in " ".join(capsys.readouterr().err.split())


def test_names_are_shown_without_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[31mred\x1b]0;title\x07\x9b2J\r\udcff\u202e é 漢字"
    shown = r"a\x1b[31mred\x1b]0;title\x07\x9b2J\r\udcff\u202e é 漢字"
    console.note(name)
    console.error(name)
    console.table(name, (name,), [(name,)])
    captured = capsys.readouterr()
    assert captured.err.count(shown) == 2
    assert captured.out.count(shown) == 3
    assert not set("\x1b\x07\x9b\r") & set(captured.out + captured.err)
