"""What some tests need of the machine. Without it they are skipped, in CI they fail."""

import os
import shutil
import subprocess
from typing import NoReturn

import pytest


def missing(what: str, remedy: str) -> NoReturn:
    """Skip this test, or fail where G2LSTM_TEST_EVERYTHING=1 says that nothing may be missing."""
    message = f"{what} is missing: {remedy}"
    if os.environ.get("G2LSTM_TEST_EVERYTHING") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def slurm() -> None:
    """A Slurm that answers."""
    sinfo = shutil.which("sinfo")
    if sinfo is None or subprocess.run([sinfo], capture_output=True).returncode != 0:
        missing("a Slurm that answers `sinfo`", "as root on Debian, `.ci/slurm start` installs one")
