"""README's commands, each run as typed: here, or in .ci/run.

Here `make` really runs them, with a Python that plans what Snakemake would do and lists the rest.
"""

import re
import subprocess
import sys

import pytest

from g2lstm.gates import GATES
from sources import ROOT, copy_project, users_environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for kind, block in BLOCKS if not kind for line in block.splitlines() if line]
GRID = [line for line in COMMANDS if "make reproduce" in line] + [
    line for line in re.findall(r"`([^`]+)`", README) if line.startswith("make reproduce ")
]
# In the place of Python: Snakemake plans, everything else is named.
PYTHON = """#!/usr/bin/env bash
if [ "$2" = snakemake ] && [[ "$*" != *--report* ]]; then exec {python} "$@" --dry-run; fi
echo "python $*"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with that Python in its .venv, and the folders that README names."""
    folder = tmp_path_factory.mktemp("readme")
    copy_project(folder, "Makefile", "Snakefile", "pyproject.toml", "constraints.txt")
    copy_project(folder, "g2lstm", "notebooks", "profiles", "report")
    for path in ("data/ptb/train.txt", "folder/train.fr", "folder/train.en"):
        (folder / "path/to" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "path/to" / path).write_text("a b c\n")
    (folder / ".venv/bin").mkdir(parents=True)
    python = folder / ".venv/bin/python"
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    (folder / ".venv/.installed").touch()
    return folder


def run(project, line):
    return subprocess.run(
        ["bash", "-c", line], cwd=project, env=users_environment(), capture_output=True, text=True
    )


@pytest.mark.parametrize("line", sorted({*GRID}))
def test_the_grid_is_planned_as_asked(project, line):
    done = run(project, line)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = set(re.findall(r"^Job \d+: (.*)$", done.stdout, re.MULTILINE))
    settings = dict(word.split("=") for word in line.split() if word.isupper() or "=" in word)
    preset = settings.get("PRESET", "quick")
    trained = [entry for entry in plan if ", seed " in entry]
    assert {entry.split(":")[1].split(",")[0].strip() for entry in trained} == {preset}
    assert {entry[:2] for entry in trained} == (
        {"03"} if settings.get("TASK") == "translation" else
        {"01"} if "CORPUS" in settings else {"01", "03"}
    )  # fmt: skip
    others = [entry for entry in trained if entry.split(", ")[2] not in GATES]
    language_models = settings.get("TASK") != "translation"
    assert bool(others) == (language_models and settings.get("ABLATIONS") != "no")
    assert {int(entry.split()[-1]) for entry in trained} == (
        {1} if settings.get("SEEDS") else {1, 2, 3}
    )


@pytest.mark.parametrize(
    ("line", "called"),
    [
        ("make help", "make reproduce  run the experiment grid"),
        ("make report", "--report results/quick/report.html"),
        ("make bench", "python benchmarks/layer.py"),
        ("make nightly", "python -m pytest tests/test_fuzz.py --hypothesis-profile=nightly"),
        ('make lab LAB="--allow-root --no-browser"', "python -m jupyterlab"),
    ],
)
def test_other_targets_call_what_they_name(project, line, called):
    assert f"`{line}`" in README
    done = run(project, line)
    assert done.returncode == 0, done.stderr
    assert called in done.stdout


def test_every_command_is_run_by_a_test_or_in_ci():
    in_ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for line in COMMANDS:
        assert line in GRID or re.search(f"^{re.escape(line)}( 2>&1.*)?$", in_ci, re.MULTILINE), (
            line
        )


def test_every_target_is_named():
    targets = set(re.findall(r"^([a-z]+):.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets - {"clean"} <= set(re.findall(r"make ([a-z]+)", README))
