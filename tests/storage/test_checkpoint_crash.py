"""F2, F3, F9: a save or a purge that is cut off anywhere leaves a verified checkpoint, old or new."""

import contextlib
import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lambent.errors import CheckpointError, ConfigError, StorageError
from lambent.storage import checkpoint, files, manifest
from lambent.storage.checkpoint import newest, prune, save

CALLS = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir", "ftruncate")


def contents(step, mark=0):
    value = float(step * 100 + mark)
    tensors = {"model": {"w": torch.full((40,), value), "b": torch.full((3, 2), value)}, "ema": {"w": torch.ones(2)}}
    return tensors, {"step": step, "mark": mark, "best": -1.5}


def marks_of(found):
    """What a checkpoint holds, after checking that its parts belong together."""
    step, mark = found.state["step"], found.state["mark"]
    expected, _ = contents(step, mark)
    assert found.step == step
    for group, members in expected.items():
        assert all(torch.equal(found.tensors[group][name], t) for name, t in members.items())
    return step, mark


class Dead(BaseException):
    """The process is gone; nothing it would still have done is done."""


class Machine:
    """Runs code up to its n-th system call. A power cut also loses whatever wasn't synced.

    Only syncs make things durable: of a file its bytes, of a folder the entries made in it. A cut zeroes files whose
    bytes weren't synced, and (``undo``) takes back unsynced entries, last first.
    """

    def __init__(self, root, die_at, *, power_cut=False, undo=False):
        self.root, self.die_at, self.power_cut, self.undo = root, die_at, power_cut, undo
        self.count, self.real, self.unsynced, self.entries = 0, {}, set(), []

    def __enter__(self):
        for name in CALLS:
            self.real[name] = getattr(os, name)
            setattr(os, name, self.wrapped(name))
        return self

    def __exit__(self, kind, error, trace):
        for name, function in self.real.items():
            setattr(os, name, function)
        if self.power_cut:
            self.cut_power()
        return kind is Dead

    def wrapped(self, name):
        def call(*arguments, **options):
            reading = name == "open" and not arguments[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
            self.count += not reading
            if self.die_at and self.count >= self.die_at:
                if name == "write" and self.count == self.die_at:
                    self.real["write"](arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise Dead
            result = self.real[name](*arguments, **options)
            self.note(name, arguments, result)
            return result

        return call

    def note(self, name, arguments, result):
        if name == "open" and arguments[1] & os.O_CREAT:
            self.unsynced.add(os.fstat(result).st_ino)
            self.entered(name, arguments[0], None)
        elif name == "write":
            self.unsynced.add(os.fstat(arguments[0]).st_ino)
        elif name == "fsync":
            inode = os.fstat(arguments[0]).st_ino
            self.unsynced.discard(inode)
            self.entries = [entry for entry in self.entries if entry[1] != inode]
        elif name in ("mkdir", "rename", "replace"):
            self.entered(name, arguments[name != "mkdir"], Path(arguments[0]).name)

    def entered(self, kind, path, source):
        """Folders are known by their inodes, as they may be renamed before they are synced."""
        self.entries.append((kind, Path(path).parent.stat().st_ino, Path(path).name, source))

    def cut_power(self):
        for path in self.root.rglob("*"):
            if path.is_file() and path.stat().st_ino in self.unsynced:
                path.write_bytes(b"")
        for kind, inode, name, source in reversed(self.entries) if self.undo else ():
            folders = [p for p in (self.root, *self.root.rglob("*")) if p.is_dir() and p.stat().st_ino == inode]
            for folder in folders:
                self.take_back(kind, folder / name, folder / (source or ""))

    def take_back(self, kind, path, source):
        if kind == "open":
            path.unlink(missing_ok=True)
        elif kind == "mkdir":
            shutil.rmtree(path, ignore_errors=True)
        elif path.exists() and not source.exists():
            path.rename(source)


WORLDS = {"kill": {}, "power cut": {"power_cut": True}, "power cut, entries lost": {"power_cut": True, "undo": True}}


def crash_everywhere(write, folder, *, old, new, world):
    """Every moment at which ``write`` of ``new`` after ``old`` leaves neither whole; and how many moments there are."""
    complaints = []
    for moment in range(1, 400):
        run = folder / f"{moment}"
        save(run, old[0], *contents(*old))
        with Machine(run, moment, **WORLDS[world]) as machine:
            write(run, new[0], *contents(*new))
        finished = machine.count < moment
        try:
            found = marks_of(newest(run))
            assert found in ([new] if finished else [old, new])
            after_restart(run)
        except Exception as error:
            complaints.append(f"moment {moment}, finished {finished}: {type(error).__name__}: {error}")
        if finished:
            return complaints, moment
    raise AssertionError("the write never ended")


def after_restart(run):
    """The next start clears up and goes on."""
    before = marks_of(newest(run))
    assert checkpoint.clean(run) == ()
    assert marks_of(newest(run)) == before
    save(run, 9, *contents(9))
    assert marks_of(newest(run)) == (9, 0)
    assert [p.name for p in (run / "checkpoints").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("old", "new"), [((1, 0), (2, 0)), ((1, 0), (1, 7))], ids=["next step", "same step again"])
def test_a_save_cut_off_at_any_system_call_leaves_a_whole_checkpoint(tmp_path, old, new, world):
    complaints, moments = crash_everywhere(save, tmp_path, old=old, new=new, world=world)
    assert complaints == []
    assert moments > 15  # 4 files (open, write, fsync each), 2 folders, the rename


def in_place(folder, step, tensors, state):
    """Planted: writes into the final folder, file by file."""
    target = folder / "checkpoints" / manifest.step_name(step)
    shutil.rmtree(target, ignore_errors=True)
    files.make_folder(target)
    checkpoint._write_files(target, step, tensors, manifest.canonical(state))


def gap(folder, step, tensors, state):
    """Planted: removes the old one before the new one is there."""
    shutil.rmtree(folder / "checkpoints" / manifest.step_name(step), ignore_errors=True)
    save(folder, step, tensors, state)


@pytest.mark.parametrize("planted", [in_place, gap])
def test_the_same_check_catches_saves_that_are_not_atomic(tmp_path, planted):
    complaints, _ = crash_everywhere(planted, tmp_path, old=(1, 0), new=(1, 7), world="kill")
    assert complaints


FORGOTTEN = {
    "of a file": lambda path: path.is_file(),
    "of the new folder": lambda path: path.name.startswith(".tmp-"),
    "of the folder with the rename": lambda path: path.name == "checkpoints",
}


@pytest.mark.parametrize("forgotten", FORGOTTEN)
def test_the_same_check_catches_a_forgotten_sync(tmp_path, monkeypatch, forgotten):
    class Forgetful:
        def __getattr__(self, name):
            return fsync if name == "fsync" else getattr(os, name)

    def fsync(descriptor):
        if not FORGOTTEN[forgotten](Path(os.readlink(f"/proc/self/fd/{descriptor}"))):
            os.fsync(descriptor)

    monkeypatch.setattr(files, "os", Forgetful())
    complaints, _ = crash_everywhere(save, tmp_path, old=(1, 0), new=(2, 0), world="power cut, entries lost")
    assert complaints
    assert "finished True" in complaints[-1]


def purge_everywhere(purge, folder, *, damaged=()):
    """Every moment at which a purge of five checkpoints leaves fewer than two whole ones, or not the best (step 2)."""
    complaints = []
    for moment in range(1, 400):
        run = folder / f"{moment}"
        for step in range(1, 6):
            save(run, step, *contents(step))
        for step in damaged:
            (checkpoint.path_of(run, step) / "model.safetensors").write_bytes(b"")
        with Machine(run, moment) as machine:
            purge(run)
        checkpoint.clean(run)
        whole = [s for s in checkpoint.steps(run) if checkpoint._verifies(checkpoint.path_of(run, s))]
        expected = [s for s in (5, 4, 3, 2, 1) if s not in damaged][:2]
        if not {2, *expected} <= set(whole):
            complaints.append(f"moment {moment}: {whole}")
        if machine.count < moment:
            return complaints, checkpoint.steps(run)
    raise AssertionError("the purge never ended")


@pytest.mark.parametrize(("damaged", "left"), [((), [2, 4, 5]), ((5,), [2, 3, 4, 5]), ((5, 4), [2, 3, 4, 5])])
def test_a_purge_cut_off_anywhere_leaves_two_whole_checkpoints_and_the_best(tmp_path, damaged, left):
    best = 2
    complaints, steps = purge_everywhere(lambda run: prune(run, 2, {best}), tmp_path, damaged=damaged)
    assert complaints == []
    assert steps == left


def test_the_same_check_catches_a_purge_that_counts_damaged_checkpoints(tmp_path):
    def purge(run):
        for step in checkpoint.steps(run)[:-2]:
            if step != 2:
                shutil.rmtree(checkpoint.path_of(run, step))

    assert purge_everywhere(purge, tmp_path / "a") == ([], [2, 4, 5])
    assert purge_everywhere(purge, tmp_path / "b", damaged=(5, 4))[0]


def test_a_checkpoint_that_cannot_be_removed_is_reported_and_training_goes_on(tmp_path, monkeypatch):
    for step in range(4):
        save(tmp_path, step, *contents(step))

    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    for name in ("rename", "rmdir"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            problems = prune(tmp_path)
        assert len(problems) == 2
        assert all("not removed: Permission denied" in line for line in problems)
        assert marks_of(newest(tmp_path)) == (3, 0)
        for step in range(2):
            save(tmp_path, step, *contents(step))
    assert prune(tmp_path) == ()
    assert checkpoint.steps(tmp_path) == [2, 3]


def test_a_folder_that_cannot_be_listed_stops_a_loader_but_not_a_purge(tmp_path, monkeypatch):
    save(tmp_path, 1, *contents(1))

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert prune(tmp_path) == (f"{tmp_path}/checkpoints: can't be read: Permission denied; make it readable",)
    with pytest.raises(CheckpointError, match="can't be read: Permission denied"):
        newest(tmp_path)


def test_one_kept_checkpoint_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="keep=1 checkpoints: expected at least 2"):
        prune(tmp_path, keep=1)


# F3


@contextlib.contextmanager
def failing(number, first, only=("open", "write", "fsync", "mkdir", "rename")):
    """From the ``first`` of these calls on, all fail with this error number; removing still works."""
    real, count = {name: getattr(os, name) for name in only}, [0]

    def wrap(name):
        def call(*arguments, **options):
            reading = name == "open" and not arguments[1] & os.O_CREAT
            count[0] += not reading
            if not reading and count[0] >= first:
                raise OSError(number, os.strerror(number))
            return real[name](*arguments, **options)

        return call

    for name in only:
        setattr(os, name, wrap(name))
    try:
        yield count
    finally:
        for name, function in real.items():
            setattr(os, name, function)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
def test_storage_that_fails_at_any_call_says_so_and_leaves_the_old_checkpoint(tmp_path, number):
    save(tmp_path, 1, *contents(1))
    for first in range(1, 400):
        with failing(number, first) as count:
            try:
                save(tmp_path, 2, *contents(2))
            except StorageError as error:
                caught = error
            else:
                assert count[0] < first
                break
        assert (caught.exit_code, caught.errno) == (6, number)
        assert str(tmp_path / "checkpoints") in str(caught)
        assert "bytes needed" in str(caught)
        assert "\n" not in str(caught)
        assert marks_of(newest(tmp_path))[0] in (1, 2)
        assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.startswith(".tmp")] == []
        shutil.rmtree(tmp_path / "checkpoints" / "000002", ignore_errors=True)
    assert first > 15
    assert marks_of(newest(tmp_path)) == (2, 0)


def test_the_message_of_a_full_disk_has_path_bytes_needed_and_bytes_free(tmp_path):
    tensors, state = contents(1)
    with failing(errno.ENOSPC, 1, only=("write",)), pytest.raises(StorageError) as caught:
        save(tmp_path, 1, tensors, state)
    needed = checkpoint.size(tensors) + len(manifest.canonical(state))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/checkpoints/.tmp-000001/")
    assert f"the disk is full ({needed} bytes needed, " in text
    free = int(text.split("needed, ")[1].split(" free")[0])
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    assert text.endswith("free some space or choose another folder")


LIMITED = """
import resource, sys, torch
from pathlib import Path
from lambent.storage.checkpoint import newest, save
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save(Path(sys.argv[1]), 2, {"model": {"w": torch.zeros(10_000)}}, {})
except Exception as error:
    print(type(error).__name__, error.exit_code, newest(Path(sys.argv[1])).step)
"""


def test_a_real_limit_on_file_size_is_a_storage_error_and_harmless(tmp_path):
    save(tmp_path, 1, *contents(1))
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["StorageError", "6", "1"], done.stderr


@contextlib.contextmanager
def as_ordinary_user():
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only(tmp_path):
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    tmp_path.chmod(0o555)
    yield tmp_path
    tmp_path.chmod(0o755)


def test_a_real_read_only_folder_is_refused_by_probe_save_and_write(read_only):
    actions = {
        "probe": lambda: files.probe_writable(read_only / "run", 1000),
        "save": lambda: save(read_only, 1, *contents(1)),
        "write": lambda: files.atomic_write(read_only / "a.json", b"{}"),
    }
    for action in actions.values():
        with as_ordinary_user(), pytest.raises(StorageError, match="no permission to write") as caught:
            action()
        assert str(read_only) in str(caught.value)
        assert "bytes needed" in str(caught.value)


def test_the_probe_finds_too_little_space_before_step_1_and_leaves_nothing(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(StorageError, match="the disk is full") as caught:
        files.probe_writable(tmp_path / "run", free * 2)
    assert f"{free * 2} bytes needed" in str(caught.value)
    files.probe_writable(tmp_path / "run", 1_000_000)
    assert list((tmp_path / "run").iterdir()) == []


def test_the_probe_meets_a_limit_that_free_space_does_not_show(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageError, match="200000 bytes needed"):
            files.probe_writable(tmp_path, 200_000)
        files.probe_writable(tmp_path, 50_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)


def test_an_atomic_write_cut_off_anywhere_leaves_the_old_or_the_new_file(tmp_path):
    path = tmp_path / "evaluation.json"
    for moment in range(1, 50):
        path.write_bytes(b"old" * 100)
        with Machine(tmp_path, moment, power_cut=True) as machine:
            files.atomic_write(path, b"new" * 90)
        assert path.read_bytes() in (b"old" * 100, b"new" * 90)
        if machine.count < moment:
            break
    assert path.read_bytes() == b"new" * 90
    assert moment > 4


# a real kill


def keep_saving(folder, first):
    step = first
    while True:
        save(folder, step, *contents(step))
        prune(folder, 2, {0})
        step += 1


def test_a_process_killed_while_saving_always_leaves_a_checkpoint(tmp_path):
    save(tmp_path, 0, *contents(0))
    context, last, leftovers = multiprocessing.get_context("fork"), 0, 0
    delays = torch.rand(20, generator=torch.Generator().manual_seed(1)).mul(0.04).tolist()
    for delay in delays:
        child = context.Process(target=keep_saving, args=(tmp_path, last + 1))
        child.start()
        deadline = time.monotonic() + 20
        while checkpoint.steps(tmp_path)[-1] < last + 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        found = newest(tmp_path)
        assert marks_of(found)[0] > last
        assert found.skipped == ()
        assert {0} <= set(checkpoint.steps(tmp_path))
        last = found.step
        leftovers += any(p.name.startswith(".") for p in (tmp_path / "checkpoints").iterdir())
        checkpoint.clean(tmp_path)
    assert leftovers > 3  # the kills did hit saves and purges, not the time between
    assert json.loads((checkpoint.path_of(tmp_path, last) / "state.json").read_text())["step"] == last
