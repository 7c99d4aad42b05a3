"""The command line: quick help, one line an error, and what happens on Ctrl-C and a closed pipe."""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import onnxruntime
import pytest
import torch

from g2lstm import commands
from g2lstm.command_line import main, parser
from g2lstm.release import release
from g2lstm.saved_models import open_model
from sources import ROOT
from tiny_runs import finished


@pytest.fixture(scope="module")
def models(corpora, tmp_path_factory):
    """A released model of each task, from tiny runs."""
    folder = tmp_path_factory.mktemp("models")
    for task in ("language-model", "translation"):
        release(finished(task).directory, folder / task)
    return folder


@pytest.fixture
def typed(monkeypatch):
    """Give standard input."""

    def give(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))

    give(b"")
    return give


def sub_commands():
    (action,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


def test_help_is_quick_and_does_without_torch():
    code = "import sys, g2lstm.command_line as c; c.parser(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\n", done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "g2lstm", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0
    assert all(name in done.stdout for name in sub_commands())


def test_the_console_script_is_the_same_function():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"g2lstm": "g2lstm.command_line:main"}


@pytest.mark.parametrize("name", sub_commands())
def test_every_command_is_explained_by_examples_that_can_be_parsed(name):
    command = sub_commands()[name]
    examples = [line for line in command.format_help().splitlines() if line.startswith("  g2lstm")]
    examples += [line for line in command.epilog.splitlines() if line.startswith("  echo")]
    assert examples
    for example in examples:
        words = example[example.index("g2lstm ") :].split(" < ")[0].split()
        assert parser().parse_args(words[1:]).command == name
    for action in command._actions:
        assert action.help, f"{name} does not explain {action.dest}"
    assert callable(getattr(commands, name))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("runs --folder {}/nowhere", "nowhere is not a folder: name one that holds runs"),
        ("verify {}/nowhere", "nowhere is not a folder"),
        ("seal {}", "neither results nor a model"),
        ("translate {}", "holds no model, for there is no config.json in it"),
        ("translate {}/language-model", "is a language model: measure it with g2lstm perplexity"),
        ("perplexity {}/translation x", "is a translation model: use it with g2lstm translate"),
        ("perplexity {}/language-model {}/nowhere", "nowhere is missing: give a text file"),
        ("perplexity {}/language-model -", "standard input is empty"),
        ("compress {}/language-model -o {}/x", "nothing to do: give --rank, --round or --int8"),
        ("compress {}/language-model --rank 0 -o {}/x", "rank must be an integer >= 1, got 0"),
        (
            "compress {}/language-model --rank 99 -o {}/x",
            "rank=99 saves no weights: the largest rank that saves any is",
        ),
        (
            "compress {}/language-model --round 0.4 --clip 0.2 -o {}/x",
            "step=0.4 is larger than clip=0.2",
        ),
        ("compress {}/language-model --round 0 -o {}/x", "step must be a finite number > 0"),
        ("compress {}/language-model --rank 1 --round 1 -o {}/x", "give one"),
        ("compress {}/language-model --clip 1 -o {}/x", "--clip goes with --round"),
        ("compress {}/language-model --rank 1 -o {}/translation", "replace it with --force"),
        ("compress {}/language-model --int8 --all-gates -o {}/x", "--all-gates goes with --rank"),
        ("export {}/translation {}/x", "TranslationModel cannot be exported to ONNX"),
        ("export {}/nowhere {}/x", "holds no model"),
        ("export {}/language-model {}/language-model/config.json", "replace it with --force"),
        ("release {}/nowhere -o {}/x", "holds no finished run"),
        ("train --set epochs", "--set takes name=value, such as epochs=2, got 'epochs'"),
        ("train --set epoch=2", "unknown override 'epoch'; did you mean 'epochs'?"),
        ("train --gate sigmod", "got 'sigmod'"),
        ("train --corpus nowhere", "unknown corpus 'nowhere'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(models, typed, capsys, words, message):
    assert main([word.format(models) for word in words.split()]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("g2lstm: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert out == ""
    assert not (models / "x").exists()


def test_an_exported_model_predicts_as_the_model_does(models, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    tokens = torch.arange(3, 12)[:, None]
    saved = open_model(models / "language-model", device="cpu").model
    with torch.no_grad():
        expected = saved.log_probabilities(saved(tokens).hidden)
    for options, tolerance in (([], 1e-5), (["--int8", "--force"], 0.1)):
        assert main(["export", str(models / "language-model"), str(out), *options]) == 0
        assert f"{out.stat().st_size:,} bytes" in capsys.readouterr().out
        session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
        states = [part for part in session.get_inputs() if part.name != "tokens"]
        zeros = {part.name: np.zeros((1, 1, part.shape[2]), np.float32) for part in states}
        found = session.run(["log_probabilities"], zeros | {"tokens": tokens.numpy()})[0]
        torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=tolerance)


def test_a_fault_of_the_program_is_not_hidden(models, monkeypatch):
    def broken(folder):
        raise ZeroDivisionError

    monkeypatch.setattr(commands, "list_runs", broken)
    with pytest.raises(ZeroDivisionError):
        main(["runs"])


def test_translations_stay_in_step_with_the_lines(models, typed, capsys):
    typed("Der König schläft.\n\nŁ€\n".encode())
    assert main(["translate", str(models / "translation"), "--beam-size", "2"]) == 0
    out, err = capsys.readouterr()
    lines = out.split("\n")
    assert len(lines) == 4
    assert lines[1] == lines[3] == ""
    assert "2 characters were never seen in training" in err
    typed(b"\xff")
    assert main(["translate", str(models / "translation")]) == 2
    assert "standard input is not UTF-8" in capsys.readouterr().err


def test_an_unknown_word_is_named_with_its_line(models, typed, capsys):
    typed(b"the dog\na zebra sleeps\n")
    assert main(["perplexity", str(models / "language-model"), "-"]) == 2
    assert "line 2 of standard input holds 'zebra'" in capsys.readouterr().err


def test_unknown_words_are_counted_where_the_training_text_had_some(
    models, typed, capsys, monkeypatch
):
    opened = commands.open_model

    def with_unknown(path):
        saved = opened(path)
        return type(saved)(
            **vars(saved) | {"words": type(saved.words)(saved.words.vocabulary, True)}
        )

    monkeypatch.setattr(commands, "open_model", with_unknown)
    typed(b"the zebra sleeps .\n")
    assert main(["perplexity", str(models / "language-model"), "-"]) == 0
    assert "1 of 5 tokens are unknown words" in capsys.readouterr().out


def test_runs_as_json_has_all_digits(models, capsys):
    assert main(["runs", "--json"]) == 0
    found = {entry["run"]: entry for entry in json.loads(capsys.readouterr().out)}
    run = finished("language-model")
    entry = found["/".join(run.directory.parts[-5:])]
    assert entry["metrics"]["test_perplexity"] == run.summary["test_perplexity"]
    assert entry["weights"]
    assert main(["runs"]) == 0
    assert f"{run.summary['test_perplexity']:.2f}" in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(models, monkeypatch, capsys):
    def stopped(experiment, progress_bar):
        raise KeyboardInterrupt

    words = ["train", "--seed", "9", "--set", "epochs=1"]
    monkeypatch.setattr(sys, "argv", ["g2lstm", *words])
    monkeypatch.setattr(commands, "train_or_load", stopped)
    assert main(words) == 130
    err = capsys.readouterr().err
    assert "goes on after the last finished epoch: g2lstm train --seed 9 --set epochs=1" in err


def test_a_verification_that_fails_is_exit_code_1(models, capsys, tmp_path):
    assert main(["verify", str(models / "translation")]) == 0
    (models / "translation/extra.txt").write_text("x")
    assert main(["verify", str(models / "translation")]) == 1
    out = capsys.readouterr().out
    assert "extra.txt: is not listed in the manifest" in out
    assert "1 FAILED" in out
    (models / "translation/extra.txt").unlink()


def test_folders_are_verified_that_lost_what_they_are_known_by(
    models, capsys, tmp_path, monkeypatch
):
    shutil.copytree(models / "translation", tmp_path / "models/mine")
    (tmp_path / "models/mine/config.json").unlink()
    (tmp_path / "results/quick/tables").mkdir(parents=True)
    (tmp_path / "results/quick/claims.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("G2LSTM_RESULTS", raising=False)
    assert main(["verify"]) == 1
    out = capsys.readouterr().out
    assert "models/mine/config.json: is missing" in out
    assert "results/quick/runs: holds no runs" in out


def test_a_full_disk_behind_standard_output_is_one_line(models):
    command = [sys.executable, "-m", "g2lstm", "runs", "--json"]
    for folder in (models, ROOT / "results"):  # little output, and more than a buffer of it
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*command, "--folder", str(folder)], stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert done.stderr == "g2lstm: error: standard output: No space left on device\n"
        assert done.returncode == 2


def test_a_closed_pipe_is_quiet(models, monkeypatch, capfd):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["runs", "--json"]) == 1
        monkeypatch.undo()
    assert capfd.readouterr().err == ""
