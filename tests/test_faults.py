"""Nothing is lost to kills, damaged files, full disks, missing rights, or two at once.

After each of these a run goes on exactly, or an error names the file and the remedy; then whatever
was not hit is as it was, and the remedy leads to the same end as an undisturbed run.
"""

import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

import killed_runs
from g2lstm.checkpoint import CheckpointError, read_tensors
from g2lstm.files import WriteError, remove, write_json
from g2lstm.measurements import Measurement
from g2lstm.records import (
    RECORDS,
    RunError,
    copy_records,
    read_run,
)
from g2lstm.runs import prepare, train_or_load
from g2lstm.training import TIMING_COLUMNS
from needs import missing

TASKS = ("language-model", "translation")
CHECKPOINT = "state/checkpoint.safetensors"
NAMED_ERRORS = (RunError, CheckpointError, WriteError)


class Interrupted(BaseException):
    pass


def same_but_for_time(directory, other):
    """Assert that two finished runs are equal, bit for bit."""
    one, two = read_run(directory), read_run(other)
    for run in (one, two):
        run.summary.pop("sentences_per_second", None)
        for row in run.metrics:
            for column in TIMING_COLUMNS:
                row.pop(column)
    assert one.config == two.config
    assert one.metrics == two.metrics
    assert one.summary == two.summary
    for name in sorted(p.name for p in other.glob("*.json") if p.name not in RECORDS):
        assert (directory / name).read_bytes() == (other / name).read_bytes(), name
    weights = "model.safetensors"
    assert (directory / weights).read_bytes() == (other / weights).read_bytes()
    (last, _), (last_of_other, _) = (
        read_tensors(d / CHECKPOINT, "g2lstm") for d in (one.directory, two.directory)
    )
    assert last.keys() == last_of_other.keys()
    assert all(torch.equal(last[name], last_of_other[name]) for name in last)
    assert not list(directory.rglob("*.part"))


def files_of(directory):
    return {
        str(p.relative_to(directory)): p.read_bytes()
        for p in directory.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


class Made:
    """A run made ready once, to be finished from many states of its directory.

    Attributes:
        whole: directory of the finished run.
        begun: the same after its first epoch.
    """

    def __init__(self, folder, task):
        self.experiment = prepare(killed_runs.configuration(folder, task), device="cpu")
        self.initial = {k: v.clone() for k, v in self.experiment.model.state_dict().items()}
        self.temperature = self.experiment.model.temperature
        self.directory = self.experiment.directory
        self.begun, self.whole = folder / "begun", folder / "whole"
        with self.interrupted(), pytest.raises(Interrupted):
            self.finish()
        shutil.copytree(self.directory, self.begun)
        self.finish()
        shutil.copytree(self.directory, self.whole)

    def finish(self):
        """As a new process does it."""
        self.experiment.model.load_state_dict(self.initial)
        self.experiment.model.temperature = self.temperature
        return train_or_load(self.experiment, progress_bar=False)

    @contextmanager
    def interrupted(self, deed=None):
        """Do a deed (default: an interrupt) after the training of the second epoch."""
        probe, calls = self.experiment.task.probe, []

        def disturbed():
            calls.append(1)
            if len(calls) == 2:
                if deed is None:
                    raise Interrupted
                deed()
            return probe()

        self.experiment.task.probe = disturbed
        try:
            yield
        finally:
            del self.experiment.task.probe

    def start_from(self, state):
        remove(self.directory)
        shutil.copytree(state, self.directory)


@pytest.fixture(scope="module")
def makes(tmp_path_factory):
    """A `Made` of each task."""
    with pytest.MonkeyPatch.context() as patch:
        made = {}
        for task in TASKS:
            folder = tmp_path_factory.mktemp(task)
            patch.setenv("G2LSTM_RUNS", str(folder / "made"))
            killed_runs.write_corpora(folder)
            made[task] = Made(folder, task)
        yield made


@pytest.fixture
def made(makes):
    return makes["language-model"]


# Kills


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Where `killed_runs` was at work, without a home folder and in a locale of ASCII."""
    folder = tmp_path_factory.mktemp("killed")
    killed_runs.write_corpora(folder)
    environment = os.environ | {
        "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    del environment["HOME"]
    done = subprocess.run(
        [sys.executable, killed_runs.__file__, folder], env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_a_run_killed_at_any_moment_goes_on_exactly(killed, task):
    report = json.loads((killed / f"{task}.json").read_text())["kills"]
    assert len(report) == killed_runs.KILLS
    (whole,) = (killed / f"{task}-whole").glob("*/*/*/*/seed-1")
    for number, kill in enumerate(report):
        log = (killed / f"{task}-killed-{number}.log").read_text()
        assert (kill["killed"], kill["again"]) == (-9, 0), log
        (directory,) = (killed / f"{task}-killed-{number}").glob("*/*/*/*/seed-1")
        same_but_for_time(directory, whole)
    # Some of them hit a run under way.
    under_way = [kill for kill in report if "metrics.jsonl" in kill["left"]]
    assert any("summary.json" not in kill["left"] for kill in under_way)


def test_a_run_in_a_hostile_environment_is_the_same(killed, monkeypatch, tmp_path):
    killed_runs.finish(killed, "language-model", tmp_path)
    (here,) = tmp_path.glob("*/*/*/*/seed-1")
    (there,) = (killed / "language-model-whole").glob("*/*/*/*/seed-1")
    same_but_for_time(here, there)


@pytest.mark.parametrize("task", TASKS)
def test_of_two_processes_on_one_run_the_second_is_refused(killed, task):
    twins = json.loads((killed / f"{task}.json").read_text())["twins"]
    assert twins == {"first": 0, "second": 1}
    log = (killed / f"{task}-twins.log").read_text()
    assert log.count("RunError: another process is at work on") == 1
    (directory,) = (killed / f"{task}-twins").glob("*/*/*/*/seed-1")
    (whole,) = (killed / f"{task}-whole").glob("*/*/*/*/seed-1")
    same_but_for_time(directory, whole)


# Damaged files


def damage(path, kind, chance):
    size = path.stat().st_size
    if kind == "cut":
        os.truncate(path, chance.randrange(1, size - 1))
    elif kind == "empty":
        os.truncate(path, 0)
    elif kind == "zeros":
        path.write_bytes(bytes(size))
    elif kind == "noise":
        path.write_bytes(chance.randbytes(size))
    elif kind == "one bit":
        data = bytearray(path.read_bytes())
        data[chance.randrange(size)] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
            (path / "something").write_text("in it")
        elif kind == "link to itself":
            path.symlink_to(path)


KINDS = ("cut", "cut again", "empty", "zeros", "noise", "folder", "missing", "link to itself")


def exactly_or_by_name(made, hit):
    """Finish; where that is refused, check the error, do as it says and finish."""
    before = files_of(made.directory)
    try:
        made.finish()
    except NAMED_ERRORS as error:
        message = str(error)
    else:
        return False
    path = made.directory / hit
    assert str(path.parent) in message
    assert path.name in message
    assert "delete it" in message or "move it away" in message
    assert files_of(made.directory) == before
    remove(path)
    made.finish()
    return True


@pytest.mark.parametrize(
    ("task", "state", "kind"),
    [
        *(("language-model", state, kind) for state in ("begun", "whole") for kind in KINDS),
        *(("translation", "whole", kind) for kind in ("cut", "zeros", "folder", "missing")),
    ],
)
def test_a_damaged_file_costs_nothing_or_is_named(makes, task, state, kind):
    made = makes[task]
    chance = random.Random(f"{state} {kind}")
    start = getattr(made, state)
    refused = []
    for name in sorted(files_of(start)):
        made.start_from(start)
        damage(made.directory / name, kind.removesuffix(" again"), chance)
        if exactly_or_by_name(made, name):
            refused.append(name)
        if state == "begun" or name != CHECKPOINT:
            same_but_for_time(made.directory, made.whole)
    if kind not in ("missing", "link to itself"):
        needed = {"config.json", "model.safetensors", "provenance.json"}
        assert (needed if state == "begun" else {*files_of(start)} - {CHECKPOINT}) <= {*refused}


@pytest.mark.parametrize("name", ["model.safetensors", CHECKPOINT])
def test_a_flipped_bit_in_weights_is_noticed(made, name):
    chance = random.Random(name)
    for _ in range(5):
        made.start_from(made.begun)
        damage(made.directory / name, "one bit", chance)
        assert exactly_or_by_name(made, name)
        same_but_for_time(made.directory, made.whole)


@pytest.mark.parametrize(
    ("name", "other"), [("model.safetensors", CHECKPOINT), (CHECKPOINT, "model.safetensors")]
)
def test_weights_and_checkpoint_are_not_taken_for_each_other(made, name, other):
    made.start_from(made.begun)
    shutil.copy(made.directory / other, made.directory / name)
    assert exactly_or_by_name(made, name)
    same_but_for_time(made.directory, made.whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_measurement_is_made_again(made, kind):
    made.start_from(made.whole)
    run = read_run(made.directory)
    measurement = Measurement("sum", lambda trained: {"sum": 1.5, "more": [1, 2, 3]}, ("files",))
    first = measurement.of(run)
    path = made.directory / "measurements/sum.json"
    damage(path, kind.removesuffix(" again"), random.Random(kind))
    if kind == "folder":
        with pytest.raises(WriteError, match=r"sum\.json.*move it away"):
            measurement.of(run)
        remove(path)
    assert measurement.of(run) == first
    assert json.loads(path.read_text())["result"] == first


# Disks that are full, folders that cannot be written


@contextmanager
def small_disk(folder):
    """A file system of a quarter of a megabyte in the folder; yields what fills it up."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        missing("the right to mount a file system", "run the tests as root")

    def fill():
        with open(folder / "filler", "wb", buffering=0) as stream, suppress(OSError):
            while True:
                stream.write(bytes(4096))

    try:
        yield fill, lambda: (folder / "filler").unlink()
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def limited_files(folder):
    """Yields what makes the system refuse every file of more than some bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    def lift():
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    try:
        yield limit, lift
    finally:
        lift()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("disk", [small_disk, limited_files])
def test_a_full_disk_leaves_the_last_checkpoint(makes, task, disk):
    made = makes[task]
    remove(made.directory)
    made.directory.mkdir()
    with disk(made.directory) as (fill, make_room):
        kept = {}

        def disturb():
            kept.update(files_of(made.directory))
            fill()

        with made.interrupted(disturb), pytest.raises(WriteError) as caught:
            made.finish()
        make_room()
        assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
        assert str(made.directory) in str(caught.value)
        assert "MB are needed" in str(caught.value)
        assert "MB are free: make room" in str(caught.value)
        assert {CHECKPOINT, "model.safetensors", "metrics.jsonl"} <= kept.keys()
        assert files_of(made.directory) == kept  # and no *.part
        made.finish()
        same_but_for_time(made.directory, made.whole)


@contextmanager
def ordinary_user(folder):
    """Not root, who may read and write everything; the folder is the user's."""
    if os.geteuid():
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def elsewhere(made, monkeypatch):
    """A copy of the finished run in a folder that any user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    directory = folder / "runs" / Path(*made.directory.parts[-5:])
    shutil.copytree(made.whole, directory)
    own = made.experiment.directory
    object.__setattr__(made.experiment, "directory", directory)
    yield folder
    object.__setattr__(made.experiment, "directory", own)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", [*RECORDS, "model.safetensors"])
def test_a_file_that_may_not_be_read_is_named(made, elsewhere, name):
    path = made.experiment.directory / name
    path.chmod(0)
    with ordinary_user(elsewhere), pytest.raises(NAMED_ERRORS, match="make it readable") as caught:
        made.finish()
    assert str(path.parent) in str(caught.value)
    assert name in str(caught.value)
    path.chmod(0o644)
    made.finish()


def test_a_folder_that_may_not_be_written_is_named(made, elsewhere):
    directory = made.experiment.directory
    (directory / ".lock").unlink(missing_ok=True)
    directory.chmod(0o555)
    with ordinary_user(elsewhere):
        with pytest.raises(RunError, match=r"cannot write to .*seed-1.*set G2LSTM_RUNS"):
            made.finish()
        with pytest.raises(WriteError, match=r"cannot write .*x\.json.*Make its folder writable"):
            write_json(directory / "x.json", 1)
        with pytest.raises(WriteError, match=r"cannot delete .*summary\.json"):
            remove(directory / "summary.json")
    directory.chmod(0o755)
    assert files_of(directory) == files_of(made.whole)


def test_a_run_folder_may_be_a_link(made, elsewhere, tmp_path):
    directory = made.experiment.directory
    shutil.move(directory, tmp_path / "moved")
    directory.symlink_to(tmp_path / "moved")
    run = made.finish()
    copy_records([run], tmp_path / "results")
    (copy,) = (tmp_path / "results/runs").glob("*/*/*/*/seed-1")
    assert copy.parts[-5:] == directory.parts[-5:]
    (tmp_path / "moved").rename(tmp_path / "moved again")
    with pytest.raises(RunError, match="cannot write to"):
        made.finish()
