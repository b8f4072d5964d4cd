"""Nothing is lost: what others made, what was made before, and what another process is making."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from abaw_expr.commands.main import main
from abaw_expr.data.store import prepare as prepare_module
from abaw_expr.data.store.store import MANIFEST, RECORDINGS, open_store
from abaw_expr.errors import StoreError, VideoError
from abaw_expr.faces.extract import TRACKS_TABLE
from abaw_expr.faces.folders import CROPS, FOUND, check_output_files
from abaw_expr.settings_file import load_settings, save_settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.run import RunFolder
from tests.helpers.clips import write_people
from tests.helpers.commands import command
from tests.helpers.faults import Machine
from tests.helpers.fitting import AUDIO, STEPS, assert_same_run, fit
from tests.helpers.tiny import add, add_validation, annotate, contents, run
from tests.test_files import hold


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


# Faces


def faces(out: Path, *videos: Path) -> int:
    return main(["faces", "--videos", *map(str, videos), "--out", str(out), "--every", "3", "--workers", "1"])


@pytest.fixture(scope="module")
def video_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("film") / "two.mp4", count=12)


@pytest.fixture(scope="module")
def found(video_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("found") / "out"
    assert faces(folder, video_file) == 0
    assert sorted(path.name for path in (folder / CROPS).iterdir()) == ["two_left", "two_right"]
    return folder


@pytest.fixture
def out(found: Path, tmp_path: Path) -> Path:
    """Two people's crops, made before."""
    return Path(shutil.copytree(found, tmp_path / "out"))


@pytest.mark.parametrize("order", [("S_left", "S"), ("S", "S_left"), ("S", "S_right"), ("s_LEFT", "S")])
def test_films_whose_crops_may_share_a_folder_are_refused(
    order: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video_files = [tmp_path / f"{name}.mp4" for name in order]
    assert faces(tmp_path / "out", *video_files) == 2  # before the work: there are no such films
    assert f"the faces of {order[0]} and of {order[1]} may have the same folder of crops" in said(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second", "people"), [("two", "two_left", 2), ("two_left", "two", 1)])
def test_a_film_added_later_does_not_take_the_crops_of_another(
    first: str, second: str, people: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video_files = [write_people(tmp_path / f"{name}.mp4", 6, people) for name in (first, second)]
    assert faces(tmp_path / "out", video_files[0]) == 0
    before = contents(tmp_path / "out")
    assert faces(tmp_path / "out", video_files[1]) == 2
    assert "may have the same folder of crops" in said(capsys)
    assert contents(tmp_path / "out") == before


def test_a_film_that_is_called_as_a_folder_is_refused(
    video_file: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "notes.txt").write_text("mine")
    before = contents(out)
    for name in ("...mp4", "..mp4", ".hidden.mp4", "a\nb.mp4", "a\\b.mp4"):
        other = out.parent / name
        other.write_bytes(video_file.read_bytes())
        assert faces(out, other) == 2
        assert "cannot be the name of a file or folder" in said(capsys)
        assert contents(out) == before


def choose_one(out: Path) -> None:
    """Says that of the two people the right one alone is kept."""
    table = out / FOUND / TRACKS_TABLE
    table.write_text(table.read_text().replace(",left\n", ",ignore\n"))


@pytest.mark.parametrize("name", ["two_left/notes.txt", "two_right/00099.jpg", "two/00001.jpg"])
def test_what_faces_did_not_make_is_not_replaced(
    name: str,
    video_file: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (out / CROPS / name).parent.mkdir(exist_ok=True)
    (out / CROPS / name).write_text("mine")
    table = out / FOUND / TRACKS_TABLE
    table.write_text(table.read_text().replace(",left\n", ",main\n"))
    before = contents(out / CROPS)
    assert faces(out, video_file) == 2
    folder, text = out / CROPS / name.split("/")[0], said(capsys)
    assert f"{folder}: would be replaced, but holds files that this command did not make" in text
    assert name.split("/")[1] in text
    assert contents(out / CROPS) == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE])
def test_a_machine_that_refuses_leaves_the_crops_of_before(
    number: int,
    video_file: Path,
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wherever it fails, each folder of crops is the whole old one or the whole new one, and the next run mends all."""
    choose_one(out)
    whole = tmp_path / "whole"
    shutil.copytree(out, whole)
    machine = Machine(whole, 0, 0)
    assert machine.run(monkeypatch, lambda: faces(whole, video_file)) == 0
    before, after = contents(out / CROPS), contents(whole / CROPS)
    assert len(after) < len(before)
    failures = 0
    for at in range(1, machine.count + 1, max(1, machine.count // 14)):
        broken = tmp_path / f"broken{at}"
        shutil.copytree(out, broken)
        status = Machine(broken, at, number).run(monkeypatch, lambda broken=broken: faces(broken, video_file))  # type: ignore[misc]
        text = said(capsys)
        assert "Traceback" not in text
        now = contents(broken / CROPS)
        if status:
            failures += 1
            assert status == 2
            assert os.strerror(number) in text
        for person in ("two_left", "two_right"):
            old, new = ({n: d for n, d in files.items() if n.startswith(person)} for files in (before, after))
            assert {n: d for n, d in now.items() if n.startswith(person)} in (old, new), (at, text)
        assert faces(broken, video_file) == 0
        assert contents(broken / CROPS) == after
        shutil.rmtree(broken)
    assert failures > 5


def test_answers_are_not_written_over_what_is_not_theirs(tmp_path: Path) -> None:
    """The photo that is asked about, a table of that name beside it, the answers for another film's left person."""
    photo, endings = tmp_path / "me.png", (".csv", ".png")
    photo.touch()
    with pytest.raises(VideoError, match=r"me\.png: would be overwritten"):
        check_output_files(tmp_path, photo, endings)
    out = tmp_path / "out"
    check_output_files(out, photo, endings)
    (out / FOUND).mkdir(parents=True)
    (out / "me_left.csv").write_text("mine")
    with pytest.raises(VideoError, match=r"me_left\.csv: would be overwritten"):
        check_output_files(out, photo, endings)
    (out / FOUND / "me.json").write_text("{}")  # asked before
    check_output_files(out, photo, endings)


def test_two_processes_do_not_look_for_faces_into_one_folder(
    video_file: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, holder = contents(out), hold(out / FOUND)
    assert faces(out, video_file) == 2
    assert f"{FOUND}: is being written by another process; found 'process {holder.pid} on" in said(capsys)
    holder.kill()
    holder.wait()
    assert faces(out, video_file) == 0
    assert contents(out) == before


# Stores


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    add(tmp_path / "release", "a")
    add(tmp_path / "release", "b")
    add_validation(tmp_path / "release")
    return tmp_path / "release"


def prepare(release: Path, store: Path) -> int:
    return main(["prepare", "--release", str(release), "--store", str(store), "--workers", "1"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["..", ".", "../../release", "a/b", "a\x1b[2J", "x" * 250, ".a", "a\\b"])
def test_a_test_list_cannot_lead_out_of_the_store(
    name: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert prepare(tiny, store) == 0
    before = contents(tmp_path)
    path = tiny / "lists/Expression_Classification_Challenge_test_set_release.txt"
    path.parent.mkdir()
    path.write_text(f"a1\n{name}\n")
    assert prepare(tiny, store) == 2
    assert f"{path}:2: " in said(capsys)
    path.unlink()
    assert contents(tmp_path) == before


def test_a_stray_film_that_cannot_be_named_is_told_once(tiny: Path, tmp_path: Path) -> None:
    run(tiny, tmp_path / "whole")
    for name in ("a\x1b[2J.mp4", "...mp4"):  # the second is hidden, as what systems leave behind is
        shutil.copy(tiny / "batch1/a.mp4", tiny / "batch1" / name)
    prepared = run(tiny, tmp_path / "store")
    assert [(problem.kind, problem.video) for problem in prepared.problems] == [
        ("impossible name", "batch1/a\x1b[2J.mp4")
    ]
    assert open_store(tmp_path / "store", EXPR).digest == open_store(tmp_path / "whole", EXPR).digest


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_second_prepare_that_is_ended_leaves_the_store_usable(
    number: signal.Signals, tiny: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    run(tiny, store)
    before = contents(store)
    status = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    ended = []
    for seconds in (0.0, 0.005, 0.01, 0.02):
        process = begin(tiny, store)
        until(lambda: (store / ".lock").exists() or process.poll() is not None)  # noqa: B023
        time.sleep(seconds)
        process.send_signal(number)
        text = process.communicate()[1]
        ended.append(process.returncode)
        # The two last are of a command that had just ended: Python is interrupted while it goes.
        assert process.returncode in {0, status, -int(number), *([1] if number == signal.SIGINT else [])}, text
        assert open_store(store, EXPR).digest
        assert {name: data for name, data in contents(store).items() if name != ".lock"} == before
    assert status in ended
    run(tiny, store)
    assert contents(store) == before


def begin(release: Path, store: Path) -> subprocess.Popen[str]:
    arguments = ["prepare", "--release", str(release), "--store", str(store), "--workers", "1"]
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "import sys; from abaw_expr.commands.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)


def until(holds: object) -> None:
    assert callable(holds)
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_store_whose_recordings_were_replaced_is_not_read_by_its_old_manifest(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    old = run(tiny, store) and open_store(store, EXPR).digest
    annotate(tiny, "b", [1] * 10)
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_finish", lambda *_: pytest.fail("ended here"))
        with pytest.raises(pytest.fail.Exception):
            run(tiny, store)
    assert (store / MANIFEST).exists()
    with pytest.raises(StoreError, match=r"b/recording\.json: was changed since .*Run `prepare` to its end"):
        open_store(store, EXPR)
    run(tiny, store)
    assert open_store(store, EXPR).digest != old


@pytest.mark.slow
def test_two_prepares_into_one_store(tiny: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    both = [begin(tiny, store) for _ in range(2)]
    texts = [process.communicate()[1] for process in both]
    statuses = sorted(process.returncode for process in both)
    assert statuses in ([0, 2], [0, 0])  # one after the other, if one was done before the other began
    assert statuses == [0, 0] or "is being written by another process" in " ".join(" ".join(texts).split())
    assert main(["prepare", "--store", str(store), "--verify", "--workers", "1"]) == 0
    assert sorted(path.name for path in store.iterdir()) == [MANIFEST, RECORDINGS, "report.json"]
    holder = hold(store)
    assert prepare(tiny, store) == 2
    holder.kill()
    holder.wait()
    assert prepare(tiny, store) == 0


@pytest.mark.parametrize("name", ["a/notes.txt", "c/c.tar"])
def test_a_folder_of_recordings_that_prepare_did_not_make_is_kept(
    name: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    run(tiny, store)
    (store / RECORDINGS / name).parent.mkdir(exist_ok=True)
    (store / RECORDINGS / name).write_text("mine")
    (store / RECORDINGS / ".x.part").mkdir()
    (store / RECORDINGS / ".x.part/notes.txt").write_text("mine")
    annotate(tiny, "a", [1] * 10)
    add(tiny, "c")
    before = contents(store / RECORDINGS / name.split("/")[0])
    assert prepare(tiny, store) == 2
    text = said(capsys)
    assert (
        f"{store / RECORDINGS / name.split('/')[0]}: would be replaced, but holds files that prepare did not make"
        in text
    )
    assert contents(store / RECORDINGS / name.split("/")[0]) == before
    assert (store / RECORDINGS / ".x.part/notes.txt").read_text() == "mine"


# Runs


@pytest.mark.slow
def test_two_trainings_into_one_folder(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other, folder = tmp_path / "one.yaml", tmp_path / "other.yaml", tmp_path / "run"
    save_settings(STEPS, one)
    arguments = ["train", "--store", str(store), "--run", str(folder), "--compute.save-every", "0"]
    process = command([*arguments, "--settings", one], tmp_path / "printed.txt")
    until(lambda: RunFolder(folder).settings.exists() or process.poll() is not None)
    save_settings(AUDIO, other)
    for resume in ([], ["--resume"]):
        assert main([*arguments, "--settings", str(other), *resume]) == 2
        assert f"run: is being written by another process; found 'process {process.pid} on" in said(capsys)
    assert process.wait() == 0
    assert load_settings(RunFolder(folder).settings).optimiser == STEPS.optimiser
    assert RunFolder(folder).complete
    assert not (folder / ".lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_run_without_its_last_checkpoint_is_left_as_it_is(
    resume: bool, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = replace(AUDIO, optimiser=replace(AUDIO.optimiser, epochs=2))
    finished = fit(open_store(store, EXPR), tmp_path / "run", two)
    finished.last.unlink()
    before = contents(finished.root)
    other = tmp_path / "other.yaml"
    save_settings(STEPS, other)
    arguments = ["train", "--store", str(store), "--run", str(finished.root), "--settings", str(other)]
    for gone in (finished.manifest, finished.metrics):
        assert main([*arguments, *["--resume"] * resume]) == 2
        assert "run: holds a run without its last.pt" in said(capsys)
        assert contents(finished.root) == before
        del before[str(gone.relative_to(finished.root))]
        gone.unlink()


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_epoch_was_written_down_begins_again(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After best.pt and metrics.csv, before last.pt."""
    whole, killed = (fit(open_store(store, EXPR), tmp_path / name, AUDIO) for name in ("whole", "killed"))
    for later in (killed.last, killed.curves, killed.manifest):
        later.unlink()
    arguments = ["train", "--store", str(store), "--run", str(killed.root), "--settings", str(whole.settings)]
    assert main(arguments) == 2
    assert "holds a run without its last.pt" in (text := said(capsys))
    assert "Start it again with --resume" in text
    assert main([*arguments, "--resume"]) == 0
    assert_same_run(whole, killed)


def test_a_folder_with_settings_and_other_papers_is_no_run(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "settings.yaml").write_text("seed: 7\n")
    (folder / "thesis.tex").write_text("mine")
    before = contents(folder)
    assert main(["train", "--store", str(store), "--run", str(folder)]) == 2
    assert contents(folder) == before
