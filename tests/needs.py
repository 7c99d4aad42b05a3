"""What some tests need of the machine. Without it they are skipped, in CI they fail."""

import os
import re
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
    """The Slurm of `.ci/slurm`: its node is this machine, which sees a test's folder."""
    scontrol = shutil.which("scontrol")
    if scontrol is not None:
        done = subprocess.run([scontrol, "show", "config"], capture_output=True, text=True)
        if re.search(r"^ClusterName\s*=\s*g2lstm$", done.stdout, re.MULTILINE):
            return
    missing("the tests' own Slurm", "as root on Debian, `.ci/slurm start` installs and starts it")
