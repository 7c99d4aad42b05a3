"""Every command in docs/command_line.md runs as typed and prints what the guide shows."""

import doctest
import io
import re
import shlex
import shutil
import sys

import pytest

from g2lstm.command_line import main
from sources import ROOT

GUIDE = ROOT / "docs/command_line.md"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(text):
    """(command, expected output) of all console blocks."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL):
        for part in block.split("$ ")[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def run(command, monkeypatch):
    """What the command prints; knows `echo "..." |`, `<` and `>`, as the guide uses them."""
    words = shlex.split(command)
    text = ""
    if words[0] == "echo":
        text, words = f"{words[1]}\n", words[2:]
        if words[0] == "|":
            words = words[1:]
    out = io.StringIO()
    target = words.pop(words.index(">") + 1) if ">" in words else None
    source = words.pop(words.index("<") + 1) if "<" in words else None
    words = [word for word in words if word not in "<>"]
    if source is not None:
        with open(source, encoding="utf-8") as file:
            text = file.read()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8"))
    monkeypatch.setattr(sys, "stdout", out)
    if words:
        assert words.pop(0) == "g2lstm", command
        assert main(words) == 0, command
    else:
        out.write(text)
    if target is None:
        return out.getvalue()
    with open(target, "w", encoding="utf-8") as file:
        file.write(out.getvalue())
    return ""


@pytest.mark.usefixtures("corpora")
def test_every_command_of_the_guide_runs_as_typed(tmp_path, monkeypatch):
    for folder in ("results", "models"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    for name in ("RUNS", "RESULTS"):
        monkeypatch.delenv(f"G2LSTM_{name}")
    found = examples(GUIDE.read_text(encoding="utf-8"))
    commands = {
        command.split("g2lstm ")[1].split()[0] for command, _ in found if "g2lstm" in command
    }
    assert commands == {
        "runs", "verify", "seal", "train", "perplexity", "translate", "compress", "release",
        "export",
    }  # fmt: skip
    check = doctest.OutputChecker().check_output
    for command, expected in found:
        shown = run(command, monkeypatch)
        assert check(expected, shown, FLAGS), f"$ {command}\n{shown}"


def test_an_output_that_differs_would_be_seen(monkeypatch, tmp_path):
    (tmp_path / "text").write_text("a\n")
    assert run(f"echo hello > {tmp_path}/text", monkeypatch) == ""
    assert (tmp_path / "text").read_text() == "hello\n"
    check = doctest.OutputChecker().check_output
    assert not check("perplexity ... over 8 tokens\n", "perplexity 9 over 7 tokens\n", FLAGS)
