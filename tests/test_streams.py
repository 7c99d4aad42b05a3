"""Standard streams that are closed, full, or take only some characters: no traceback, no loss."""

import os
import subprocess
import sys

import pytest

from g2lstm.release import release
from sources import ROOT
from tiny_runs import finished

CLOSED = {"stdin": 0, "stdout": 1, "stderr": 2}


@pytest.fixture(scope="module")
def model(corpora, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "schön"
    release(finished("translation").directory, folder)
    return folder


def run(*words, closed=(), text=b"", environment=None, **streams):
    """Run the command with some standard streams closed."""

    def close():
        for name in closed:
            os.close(CLOSED[name])

    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(
        [sys.executable, "-m", "g2lstm", *map(os.fspath, words)],
        input=text, cwd=ROOT, preexec_fn=close, timeout=120,
        env=os.environ | (environment or {}), **given,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("closed", "code", "message"),
    [
        (("stdin",), 2, b"standard input is closed"),
        (("stdout",), 0, b"standard output is closed: what would be printed there is lost"),
        (("stderr",), 0, b""),
        (("stdin", "stdout", "stderr"), 2, b""),
    ],
)
def test_closed_streams(model, closed, code, message):
    done = run("translate", model, closed=closed, text="Der König schläft.\n".encode())
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert b"Traceback" not in done.stderr
    if closed == ("stderr",):
        assert done.stdout.count(b"\n") == 1
        assert b"g2lstm:" not in done.stdout


def test_an_error_that_cannot_be_told_is_still_an_exit_code():
    with open("/dev/full", "w") as full:
        done = run("runs", "--folder", "nowhere", stderr=full)
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_stream_of_few_characters_loses_none(model, tmp_path):
    environment = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    out = tmp_path / "Modell 🙂"
    done = run("release", finished("translation").directory, "-o", out, environment=environment)
    assert done.returncode == 0, done.stderr
    assert b" holds the model" in done.stdout
    text = "Der\tKönig \u00a0schläft.\r\nDer König schläft.\n".encode()
    done = run("translate", out, text=text, environment=environment)
    one, two = done.stdout.decode().splitlines()
    assert one == two
    assert done.returncode == 0


def test_a_name_that_is_no_text_is_shown(tmp_path):
    done = run("runs", "--folder", os.fsencode(tmp_path) + b"/\xff\xfe")
    assert done.returncode == 2
    assert rb"\udcff\udcfe is not a folder" in done.stderr


def test_input_that_cannot_be_read_is_named(model, tmp_path):
    with open(tmp_path / "written", "wb") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "g2lstm", "translate", model],
            stdin=stream, capture_output=True, cwd=ROOT,
        )  # fmt: skip
    assert done.returncode == 2
    assert b"cannot read standard input" in done.stderr
