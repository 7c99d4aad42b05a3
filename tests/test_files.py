"""What is read from a file of JSON, or why not, and locks; writing is tried in `test_faults`."""

import multiprocessing
import os
import signal

import pytest
from filelock import Timeout

from g2lstm.files import WriteError, locked, read_json, write_json


def test_what_was_written_is_read(tmp_path):
    value = {"a": [1, 2.5, None, "ä"], "b": {}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.json is no JSON \("),
        (b"\xff", r"a\.json is no JSON \("),
        (b"[" * 100_000, r"a\.json is no JSON \("),
        (b"[1]", r"a\.json is no JSON object, but of type list"),
        (b"null", r"a\.json is no JSON object, but of type NoneType"),
    ],
)
def test_anything_else_is_an_error_that_names_the_file(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "a.json")


def no_lock(path, kind):
    """Put something there that is no lock; return what must stay as it is."""
    other = path.with_name("thesis.txt")
    other.write_text("years of work")
    if kind == "link":
        path.symlink_to(other)
    elif kind == "link to an empty file":
        other.write_text("")
        path.symlink_to(other)
    elif kind == "broken link":
        path.symlink_to(path.with_name("nothing"))
    elif kind == "second name":
        os.link(other, path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    return other


@pytest.mark.parametrize(
    "kind", ["link", "link to an empty file", "broken link", "second name", "pipe", "folder"]
)
@pytest.mark.parametrize("wait", [True, False])
def test_a_lock_that_is_none_is_refused_and_left_as_it_is(tmp_path, kind, wait):
    path = tmp_path / "folder" / ".lock"
    path.parent.mkdir()
    other = no_lock(path, kind)
    before = (other.read_text(), path.lstat(), sorted(path.parent.iterdir()))
    with pytest.raises(WriteError, match=r"\.lock should be a lock"), locked(path, wait):
        raise AssertionError("it was taken")
    after = (other.read_text(), path.lstat(), sorted(path.parent.iterdir()))
    assert after[0] == before[0]
    assert (after[1].st_mode, after[1].st_ino) == (before[1].st_mode, before[1].st_ino)
    assert after[2] == before[2]


def hold(path, taken):
    with locked(path):
        taken.set()
        signal.pause()


def test_a_lock_is_held_by_one_and_given_back_by_a_kill(tmp_path):
    path = tmp_path / "new/folder/.lock"
    context = multiprocessing.get_context("spawn")
    taken = context.Event()
    process = context.Process(target=hold, args=(path, taken))
    process.start()
    assert taken.wait(60)
    with pytest.raises(Timeout), locked(path):
        pass
    process.kill()
    process.join()
    for wait in (False, True):
        with locked(path, wait), pytest.raises(Timeout), locked(path):
            pass
    assert path.read_bytes() == b""
