"""Tuning tries every gate with the same settings, looks at the validation text only, goes on."""

import json
import math
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from g2lstm import runs, tuning
from g2lstm.command_line import main
from g2lstm.experiments import configure
from g2lstm.gates import GATES
from g2lstm.identity import read_rows, write_rows
from g2lstm.parameters import ParameterError
from g2lstm.plots import GATE_LABELS
from g2lstm.presets import PRESETS
from g2lstm.records import Run, RunError
from g2lstm.runs import prepare, train_or_load
from g2lstm.settings import training_defaults
from g2lstm.trials import (
    EXPLORATION,
    TUNING,
    copy_trial,
    read_trials,
    save_trials,
    tuning_table,
)
from g2lstm.tuning import explore, tune
from g2lstm.verification import verify
from sources import ROOT
from tiny_runs import TINY, few_sentences

TASKS = {"language-model": "grammar", "translation": "grammar-de-en"}
TABLES = {task: f"{task.replace('-', '_')}_{label}_tuning" for task, label in TASKS.items()}


@pytest.fixture
def tiny_presets(monkeypatch, tmp_path):
    """Presets of tiny models on few sentences, with two candidates; an empty folder of runs."""
    with few_sentences():
        monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
        monkeypatch.setenv("G2LSTM_RESULTS", str(tmp_path / "results"))
        for task in TASKS:
            candidates = tuple(TINY[task] | {"learning_rate": rate} for rate in (1e-2, 2e-2))
            preset = replace(PRESETS[task]["quick"], candidates=candidates)
            monkeypatch.setitem(PRESETS[task], "quick", preset)
        yield tmp_path


def trial(gate, losses, seed=1, **settings):
    rows = [
        {
            "epoch": epoch, "valid_loss": loss, "valid_perplexity": 10 * loss,
            "train_perplexity": 7.0 * loss,
        }
        for epoch, loss in enumerate(losses, start=1)
    ]  # fmt: skip
    config = {
        "task": "language-model", "gate": gate, "seed": seed, "training": settings,
        "model": {"layers": 2}, "data": {}, "evaluation": {},
    }  # fmt: skip
    return Run(None, config, {}, rows, {})


def test_the_best_epoch_of_each_trial_and_the_best_trial_of_each_gate():
    frame = tuning_table(
        [
            trial("sigmoid", (3.0, 2.0, 2.5), rate=0.1, epochs=3),
            trial("sigmoid", (4.0, 2.2, 2.1), rate=0.2, epochs=3, tie_weights=False),
            trial("gumbel", (9.0, 8.0, 7.0), rate=0.1, epochs=3),
            trial("gumbel", (5.0, 6.0, 7.0), rate=0.2, epochs=3, tie_weights=False),
        ]
    )
    expected = pd.DataFrame(
        {
            "model": ["LSTM", "LSTM", "G2-LSTM", "G2-LSTM"],
            "tie_weights": ["True", "False", "True", "False"],
            "rate": ["0.1", "0.2", "0.1", "0.2"],
            "seed": [1, 1, 1, 1],
            "validation perplexity": [20.0, 21.0, 70.0, 50.0],
            "training perplexity": [14.0, 14.7, 49.0, 35.0],
            "best epoch": [2, 3, 3, 1],
            "chosen": ["yes", "", "", "yes"],
        }
    )
    pd.testing.assert_frame_equal(frame, expected)


def test_trials_from_before_an_option_had_its_default():
    frame = tuning_table(
        [
            trial("sigmoid", (3.0,), rate=0.1),
            trial("sigmoid", (2.0,), rate=0.1, gate_learning_rate_factor=5.0),
        ]
    )
    assert frame["gate_learning_rate_factor"].tolist() == ["1.0", "5.0"]


def test_the_mean_over_seeds_decides():
    frame = tuning_table(
        [
            trial("gumbel", (losses,), seed, rate=rate)
            for rate, of_seeds in ((0.1, (1.0, 3.0)), (0.2, (1.5, 1.5)))
            for seed, losses in enumerate(of_seeds, start=1)
        ]
    )
    assert frame["seed"].tolist() == [1, 2, 1, 2]
    assert frame["chosen"].tolist() == ["", "", "yes", "yes"]


@pytest.mark.parametrize("task", TASKS)
def test_no_trial_reads_the_test_text(tiny_presets, monkeypatch, task):
    monkeypatch.setattr(runs.TASKS[task], "summarise", None)
    frame = tune(task, "quick", gates=("sigmoid", "gumbel"), progress_bar=False)
    assert list(frame["model"]) == ["LSTM"] * 2 + ["G2-LSTM"] * 2
    assert set(frame["learning_rate"]) == {"0.01", "0.02"}
    assert list(frame["chosen"]).count("yes") == 2
    assert not [*tiny_presets.rglob("summary.json")]
    published = tiny_presets / "results/quick"
    stored = pd.read_csv(published / f"tables/{TABLES[task]}.csv", keep_default_na=False)
    assert list(stored["validation perplexity"]) == list(frame["validation perplexity"])
    trials = read_trials(published, TUNING, task, TASKS[task])
    record = json.loads((published / f"tables/{TABLES[task]}.provenance.json").read_text())
    assert len(record["runs"]) == len(trials) == 4
    assert record["command"].startswith(f"g2lstm tune --task {task} --preset quick")


def test_a_stopped_tuning_goes_on_and_adds_to_the_table(tiny_presets, monkeypatch, capsys):
    train = tuning.train_untested
    left = [None]

    def stopped(experiment, progress_bar):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return train(experiment, progress_bar)

    arguments = ["tune", "--preset", "quick", "--gate", "sigmoid", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "train_untested", stopped)
        assert main(arguments) == 130
    assert "The same command goes on" in capsys.readouterr().err
    (first,) = (tiny_presets / "runs").rglob("metrics.jsonl")
    before = first.read_text()
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "LSTM" in shown
    assert "yes" in shown
    assert first.read_text() == before, "what was done is not trained again"
    assert main(["tune", "--preset", "quick", "--gate", "sharpened", "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("yes") == 2
    assert "sharpened" in shown


def test_a_trial_in_the_presets_own_settings_is_the_run_of_the_grid(tiny_presets, monkeypatch):
    quick = PRESETS["language-model"]["quick"]
    own = {"learning_rate": quick.training.learning_rate, "embedding_size": 128}
    monkeypatch.setitem(
        PRESETS["language-model"],
        "quick",
        replace(quick, candidates=(own,), training=replace(quick.training, epochs=1)),
    )
    tune(preset="quick", gates=("sigmoid",), progress_bar=False)
    experiment = prepare(configure(gate="sigmoid"), device="cpu")
    before = (experiment.directory / "metrics.jsonl").read_text()
    run = train_or_load(experiment, progress_bar=False)
    assert (run.directory / "metrics.jsonl").read_text() == before
    assert run.summary["test_perplexity"] > 1


def test_an_exploration_is_apart_and_reads_no_test(tiny_presets, monkeypatch, capsys):
    monkeypatch.setattr(runs.TASKS["language-model"], "summarise", None)
    tune(preset="quick", gates=("sigmoid",), progress_bar=False)
    settings = [f"--set={name}={value}" for name, value in TINY["language-model"].items()]
    arguments = ["train", "--untested", "--quiet", *settings]
    assert main([*arguments, "--temperature", "0.5"]) == 0
    assert main([*arguments, "--gate", "sigmoid", "--set=alpha=1.0"]) == 0
    assert main([*arguments, "--gate", "sigmoid"]) == 0
    assert "tau=0.5" in " ".join(capsys.readouterr().out.split())
    published = tiny_presets / "results/quick"
    name = TABLES["language-model"].replace("tuning", "exploration")
    table = pd.read_csv(published / f"tables/{name}.csv", keep_default_na=False)
    models = table["model"].tolist()
    assert [model.startswith("LSTM (") for model in models] == [True, False, True]
    assert ["alpha" in model for model in models] == [False, False, True]
    assert ((table["input gate saturation"] >= 0) & (table["input gate saturation"] <= 1)).all()
    # Against the LSTM in the same settings, and what compression does, as the records have it.
    perplexity = table["validation perplexity"]
    expected = ["", f"{perplexity[1] / perplexity[0] - 1:+.1%}", ""]
    assert table["against the LSTM"].tolist() == expected
    for trial, shown in zip(
        read_trials(published, EXPLORATION, "language-model", "grammar"),
        table["change by compression"],
        strict=True,
    ):
        record = json.loads(
            (trial.directory / "measurements/compression_on_validation.json").read_text()
        )
        assert [(row["kind"], row["setting"]) for row in record["result"]] == [
            ("none", 0), ("step", 0.2), ("clip", 0.4), ("rank", 1), ("rank", 1),
        ]  # fmt: skip
        start, *costs = (row["loss"] for row in record["result"])
        assert shown == f"{math.exp(sum(costs) / 4 - start) - 1:+.1%}"
    assert len(pd.read_csv(published / f"tables/{TABLES['language-model']}.csv")) == 2
    assert not explorations_failing(published)
    assert not [*tiny_presets.rglob("summary.json")]
    record["fingerprint"] = "0" * 64
    path = trial.directory / "measurements/compression_on_validation.json"
    path.write_text(json.dumps(record))
    assert any("it was changed" in p for p in explorations_failing(published).values())


def test_an_exploration_stays_what_it_was_when_the_preset_changes(tiny_presets, monkeypatch):
    quick = PRESETS["language-model"]["quick"]
    rate = quick.training.learning_rate
    explore(configure(gate="sigmoid", overrides=TINY["language-model"]), progress_bar=False)
    published = tiny_presets / "results/quick"
    (before,) = read_trials(published, EXPLORATION, "language-model", "grammar")
    assert "learning_rate" not in before.config["overrides"]
    chosen = replace(quick, training=replace(quick.training, learning_rate=2 * rate))
    monkeypatch.setitem(PRESETS["language-model"], "quick", chosen)
    (after,) = read_trials(published, EXPLORATION, "language-model", "grammar")
    assert after.config["overrides"] == before.config["overrides"] | {"learning_rate": rate}
    assert after.config["training"] == before.config["training"]
    assert any("belongs into" in problem for problem in explorations_failing(published).values())
    (published / "exploration").rename(tiny_presets / "old")
    old = tiny_presets / "old" / before.directory.relative_to(published / "exploration")
    copy_trial(old, published, EXPLORATION)
    save_trials(configure(), EXPLORATION)
    assert not explorations_failing(published)
    (moved,) = read_trials(published, EXPLORATION, "language-model", "grammar")
    assert moved.metrics == before.metrics
    assert f"--set learning_rate={rate}" in moved.provenance["command"]


def explorations_failing(published):
    failures = {f.file: f.problem for check in verify(published) for f in check.failures}
    place = str(published)
    return {f: p for f, p in failures.items() if "exploration" in f.removeprefix(place)}


def test_one_that_diverges_does_not_end_the_tuning(tiny_presets, monkeypatch, capsys):
    quick = PRESETS["language-model"]["quick"]
    wild = TINY["language-model"] | {"learning_rate": 1e6, "clip": 1e9}
    preset = replace(quick, candidates=(wild, *quick.candidates))
    monkeypatch.setitem(PRESETS["language-model"], "quick", preset)
    frame = tune(preset="quick", gates=("sigmoid",), progress_bar=False)
    assert len(frame) == 2
    assert "diverged" in capsys.readouterr().out
    monkeypatch.setitem(PRESETS["language-model"], "quick", replace(quick, candidates=(wild,)))
    monkeypatch.setenv("G2LSTM_RESULTS", str(tiny_presets / "none"))
    with pytest.raises(RunError, match="no trial of language-model on grammar has ended"):
        tune(preset="quick", gates=("sigmoid",), progress_bar=False)


def test_a_tested_run_is_never_trained_over(tiny_presets, monkeypatch):
    own = configure(gate="sigmoid", overrides=TINY["language-model"])
    run = train_or_load(prepare(own, device="cpu"), progress_bar=False)
    shutil.rmtree(run.directory / "state")
    before = (run.directory / "metrics.jsonl").read_text()
    assert len(explore(own, progress_bar=False)) == 1
    assert (run.directory / "metrics.jsonl").read_text() == before
    monkeypatch.setattr(runs, "code_checksum", lambda modules: "another")
    with pytest.raises(RunError, match="holds a finished run of other code"):
        explore(own, progress_bar=False)
    assert (run.directory / "summary.json").exists()


def test_what_no_trial_can_be_is_refused():
    with pytest.raises(ParameterError, match=r"'quick' has no candidates.*those that do: small"):
        tune(preset="quick")
    with pytest.raises(ParameterError, match="gates must name one"):
        tune(gates=())
    with pytest.raises(ParameterError, match="relu"):
        tune(gates=("relu",))
    with pytest.raises(ParameterError, match=r"processes=2.*set processes to 1"):
        explore(configure(overrides={"processes": 2}))


def test_published_trials_verify_and_tampering_is_found(tiny_presets, monkeypatch):
    tune(preset="quick", gates=("sigmoid", "gumbel"), progress_bar=False)
    published = tiny_presets / "results/quick"
    name = TABLES["language-model"]

    def problems():
        found = {f.file: f.problem for check in verify(published) for f in check.failures}
        wanted = ("tuning/", name)
        return {
            file: problem for file, problem in found.items() if any(part in file for part in wanted)
        }

    assert problems() == {}
    quick = PRESETS["language-model"]["quick"]
    with monkeypatch.context() as patch:
        # The preset takes over what was best: the records stay as they are, and fit.
        rate = quick.candidates[0]["learning_rate"]
        chosen = replace(quick, training=replace(quick.training, learning_rate=rate))
        patch.setitem(PRESETS["language-model"], "quick", chosen)
        assert problems() == {}
        other = replace(quick, candidates=quick.candidates[:1])
        patch.setitem(PRESETS["language-model"], "quick", other)
        found = problems()
        assert len(found) == 2, "one of each gate"
        assert all("are of no candidate of the preset" in problem for problem in found.values())
    table = published / f"tables/{name}.csv"
    content = table.read_text()
    table.write_text(content.replace("LSTM,0.01,", "LSTM,0.01,1", 1))
    (problem,) = problems().values()
    assert "the records give" in problem
    table.write_text(content)
    metrics = sorted((published / "tuning").rglob("metrics.jsonl"))[0]
    (row,) = read_rows(metrics)
    write_rows(metrics, [row | {"valid_perplexity": row["valid_perplexity"] / 2}])
    found = problems()
    assert len(found) == 2
    assert any("is not exp(loss)" in problem for problem in found.values())


def test_every_gate_had_the_same_budget_and_the_preset_has_what_was_best():
    for folder in sorted(ROOT.glob("results/*/tuning/*/*")):
        check_budget(*folder.parts[-4::2], folder.name)


def check_budget(preset, task, corpus):
    trials = read_trials(ROOT / "results" / preset, TUNING, task, corpus)
    about = {"task": task, "preset": preset}
    tried = {gate: [] for gate in GATES}
    for one in trials:
        tried[one.config["gate"]].append(one)
        training, model = one.config["training"], one.config["model"]
        training = training_defaults(task) | training  # options that came later
        assert len(one.metrics) == training["epochs"], "to the end"
        assert "summary.json" not in [path.name for path in one.directory.iterdir()]
        assert (training, model) in [
            (settings.training.__dict__, settings.model)
            for settings in (
                configure(**about, gate=one.config["gate"], overrides=candidate)
                for candidate in PRESETS[task][preset].candidates
            )
        ]
    for gate, of_gate in tried.items():
        assert len(of_gate) == len(PRESETS[task][preset].candidates), gate
        best = min(of_gate, key=lambda run: min(row["valid_loss"] for row in run.metrics))
        now = configure(**about, gate=gate)
        training = training_defaults(task) | best.config["training"]
        assert training == now.training.__dict__, GATE_LABELS[gate]
        assert best.config["model"] == now.model, GATE_LABELS[gate]
