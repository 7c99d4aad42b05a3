"""The container recipe, read: pinned base, ordinary user, no open address; what Binder needs."""

import re
import shlex
from pathlib import PurePosixPath

import pytest
import yaml

from sources import ROOT

RECIPE = (ROOT / "container/Dockerfile").read_text(encoding="utf-8")
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()


def instructions(recipe):
    """(name, arguments) of the instructions of a Dockerfile, continued lines joined."""
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", recipe)).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def faults(recipe, root=ROOT):
    """What is wrong with a recipe, as far as can be seen by reading it."""
    steps = instructions(recipe)
    names = [name for name, _ in steps]
    found = [f"{name} is no instruction" for name in names if not name.isupper()]
    if names[0] != "FROM":
        found.append("does not begin with FROM")
    user = "root"
    for name, arguments in steps:
        if name == "FROM" and not re.fullmatch(r"\S+:(?!latest)\S*\d\S*", arguments):
            found.append(f"FROM {arguments} names no version")
        if name == "USER":
            user = arguments
        if name in ("ADD", "EXPOSE"):
            found.append(f"{name} {arguments}")
        if name in ("CMD", "ENTRYPOINT") and not arguments.startswith("["):
            found.append(f"{name} runs in a shell")
        if name == "RUN" and "apt-get install" in arguments:
            for needed in ("--yes", "--no-install-recommends", "rm -rf /var/lib/apt/lists"):
                found += [] if needed in arguments else [f"apt-get without {needed}"]
        if name == "COPY":
            *sources, _ = (w for w in shlex.split(arguments) if not w.startswith("--"))
            found += [f"{s} is not there" for s in sources if not (root / s).exists()]
    if user.split(":")[0] in ("root", "0"):
        found.append("runs as root")
    if re.search(r"0\.0\.0\.0|--ip|allow-root|password|--token", recipe):
        found.append("opens JupyterLab to others")
    if names.count("CMD") != 1:
        found.append("not exactly one CMD")
    return found


def test_the_recipe_has_no_fault():
    assert faults(RECIPE) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("python:3.11-slim-bookworm", "python", "names no version"),
        ("python:3.11-slim-bookworm", "python:latest", "names no version"),
        ("USER reader\n", "", "runs as root"),
        ("COPY --chown=reader:reader . .", "COPY nothing .", "nothing is not there"),
        ("--no-install-recommends ", "", "apt-get without"),
        ('CMD ["make", "reproduce"]', "CMD make lab", "runs in a shell"),
        ('["make", "reproduce"]', '["jupyter", "lab", "--ip=0.0.0.0"]', "opens JupyterLab"),
        ("CMD", "EXPOSE 8888\nCMD", "EXPOSE"),
    ],
)
def test_a_fault_would_be_seen(old, new, fault):
    assert old in RECIPE
    assert any(fault in found for found in faults(RECIPE.replace(old, new)))


def test_the_command_is_a_target_of_make_and_reproduces():
    (command,) = (arguments for name, arguments in instructions(RECIPE) if name == "CMD")
    assert yaml.safe_load(command) == ["make", "reproduce"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", RECIPE + command.replace('", "', " ")):
        assert re.search(rf"(?m)^{target}:", makefile), target


def test_what_the_container_leaves_out_is_what_git_leaves_out():
    git = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    plain = {PurePosixPath(pattern.strip("/")).name for pattern in git}
    assert {PurePosixPath(pattern).name for pattern in IGNORED} <= plain
    assert {".venv", ".venv-site", "site", "runs", "logs"} <= set(IGNORED)
    assert ".git" not in IGNORED, "provenance needs the commit"


def test_binder_finds_an_environment_that_installs_the_package():
    # These would hide environment.yml from repo2docker.
    for name in ("binder", ".binder", "Dockerfile"):
        assert not (ROOT / name).exists()
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == "g2lstm"
    assert environment["channels"][0] == "conda-forge"
    names = [line.split()[0] for line in environment["dependencies"] if isinstance(line, str)]
    assert {"python", "pip", "jupyterlab", "ipykernel"} <= set(names)
    (pip,) = (part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    # A path that it takes for the project itself, which makes it copy all files before this step.
    assert pip == ["--editable ."]
    post_build = ROOT / "postBuild"
    assert not post_build.exists() or post_build.stat().st_mode & 0o111
