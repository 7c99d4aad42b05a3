"""The language-model notebooks run whole with small parameters, and their numbers agree."""

import json
import math

import pandas as pd
import papermill
import pytest

from execution import assert_refused, execute, pictures
from g2lstm.gates import GATES
from g2lstm.records import RECORDS, read_run
from g2lstm.results import FIGURES as ALL_FIGURES

FIGURES = ALL_FIGURES["language_model"]
SMALL = {"epochs": 1, "embedding_size": 24, "learning_rate": 0.02}
# Test perplexity after that epoch; other processors round otherwise, hence the width in the test.
MEASURED = {"sigmoid": 22.58, "sharpened": 21.80, "gumbel": 23.49}


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language_model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("G2LSTM_RUNS", str(folder / "runs"))
        patch.setenv("G2LSTM_RESULTS", str(folder / "results"))
        runs = {
            gate: execute(
                "01_language_model", folder, {"gate": gate, "seed": 5, "overrides": SMALL}
            )
            for gate in GATES
        }
        results = execute("02_language_model_results", folder, {"save": True})
    return folder, runs, results


def test_one_run_leaves_a_run_directory_and_shows_its_figures(executed):
    folder, notebooks, _ = executed
    directories = sorted((folder / "runs/language-model/grammar/quick").glob("*/seed-5"))
    assert len(directories) == 3
    for directory in directories:
        run = read_run(directory)
        assert run.config["overrides"] == SMALL
        assert (directory / "model.safetensors").exists()
        assert pictures(notebooks[run.config["gate"]]) == 2


def test_an_epoch_of_a_tiny_model_learns_and_repeats(executed):
    folder, _, _ = executed
    for path in (folder / "runs").glob("language-model/*/*/*/*/summary.json"):
        summary = json.loads(path.read_text())
        gate = path.parts[-3].partition("_")[0]
        assert summary["unigram_perplexity"] == pytest.approx(118.47, abs=0.01)
        assert summary["floor_perplexity"] == pytest.approx(10.564, abs=0.001)
        assert summary["test_perplexity"] == pytest.approx(MEASURED[gate], rel=0.05)
        assert summary["test_perplexity"] == pytest.approx(math.exp(summary["test_loss"]))


def test_the_results_hold_the_numbers_of_the_runs(executed):
    folder, _, notebook = executed
    results = folder / "results/quick"
    table = pd.read_csv(results / "tables/language_model_grammar.csv", dtype=str)
    assert len(table) == 3
    records = sorted((results / "runs/language-model/grammar/quick").glob("*/seed-5"))
    assert [record.name for record in records] == ["seed-5"] * 3
    for record in records:
        assert {file.name for file in record.iterdir()} == set(RECORDS)
        run = read_run(record)
        label = {"sigmoid": "LSTM", "sharpened": "sharpened", "gumbel": "G2-LSTM"}
        (row,) = (
            row for _, row in table.iterrows() if row["model"].startswith(label[run.config["gate"]])
        )
        assert float(row["test"]) == round(run.summary["test_perplexity"], 2)
        assert row["seeds"] == "1"
    assert pictures(notebook) == len(FIGURES)
    for figure in FIGURES:
        for suffix in (".png", ".svg", ".provenance.json"):
            path = results / f"figures/language_model_grammar_{figure}{suffix}"
            assert path.stat().st_size > 0
    provenance = json.loads((results / "tables/language_model_grammar.provenance.json").read_text())
    assert [source["seed"] for source in provenance["runs"]] == [5, 5, 5]
    assert provenance["versions"]["torch"]
    assert provenance["hardware"]["processor"]


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("01_language_model", {"gat": "gumbel"}, "unknown parameter 'gat'; did you mean 'gate'"),
        ("01_language_model", {"gate": "gumbl"}, "got 'gumbl'"),
        ("01_language_model", {"overrides": {"epoch": 1}}, "unknown override 'epoch'"),
        ("02_language_model_results", {"seed": [1]}, "unknown parameter 'seed'"),
        ("02_language_model_results", {"preset": "tiny"}, "got 'tiny'"),
    ],
)
def test_a_wrong_parameter_stops_the_notebook_before_anything_runs(
    tmp_path, monkeypatch, name, parameters, message
):
    assert_refused(name, tmp_path, parameters, message, monkeypatch)


def test_results_without_runs_say_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    with pytest.raises(papermill.PapermillExecutionError, match="make one with: papermill"):
        execute("02_language_model_results", tmp_path, {})
