"""The translation notebooks run whole with small parameters, and their numbers agree."""

import json

import pandas as pd
import papermill
import pytest

from execution import assert_refused, execute, pictures, shown
from g2lstm.gates import GATES
from g2lstm.records import BLEU_STATISTICS, RECORDS, find_runs, read_run, read_translations
from g2lstm.results import FIGURES, TABLES
from pets import write_pets

SMALL = {"epochs": 2, "embedding_size": 16, "hidden_size": 16, "batch_tokens": 150, "merges": 30}


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Three runs on a folder of French and English sentences, and their comparison."""
    folder = tmp_path_factory.mktemp("translation")
    (folder / "pets").mkdir()
    write_pets(folder / "pets", "fr")
    about = {"corpus": str(folder / "pets"), "languages": "fr-en"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("G2LSTM_RUNS", str(folder / "runs"))
        patch.setenv("G2LSTM_RESULTS", str(folder / "results"))
        runs = {
            gate: execute(
                "03_translation",
                folder,
                about | {"gate": gate, "seed": 5, "overrides": SMALL, "examples": 2},
            )
            for gate in GATES
        }
        results = execute("04_translation_results", folder, about | {"save": True})
        found = find_runs("quick", about["corpus"], None, "translation", "fr-en")
    return folder, runs, results, found


def test_one_run_leaves_a_run_directory_and_shows_its_figures(executed):
    _, notebooks, _, runs = executed
    assert [run.config["gate"] for run in runs] == list(GATES)
    for run in runs:
        assert run.config["overrides"] == SMALL
        assert (run.directory / "model.safetensors").exists()
        notebook = notebooks[run.config["gate"]]
        assert pictures(notebook) == 4
        text = shown(notebook)
        assert text.count("reference  ") == 2
        assert run.summary["test_bleu_signature"] in text
        for translation in read_translations(run)[:1]:
            assert f"translation {translation}" in text


def test_an_epoch_of_a_tiny_model_learns(executed):
    for run in executed[3]:
        first, last = run.metrics
        assert last["valid_perplexity"] < first["valid_perplexity"] < 40
        assert 0 <= run.summary["test_bleu"] < 100


def test_the_results_hold_the_numbers_of_the_runs(executed):
    folder, _, notebook, runs = executed
    results = folder / "results/quick"
    table = pd.read_csv(results / "tables/translation_pets-fr-en.csv", dtype=str)
    assert len(table) == 3
    for run, (_, row) in zip(runs, table.iterrows(), strict=True):
        assert row["test BLEU"] == f"{run.summary['test_bleu']:.2f}"
        assert row["test chrF"] == f"{run.summary['test_chrf']:.2f}"
        assert row["seeds"] == "1"
    for record in (results / "runs/translation/pets-fr-en/quick").glob("*/seed-5"):
        assert {file.name for file in record.iterdir()} == {*RECORDS, BLEU_STATISTICS}
        assert read_run(record).summary in [run.summary for run in runs]
    assert pictures(notebook) == len(FIGURES["translation"])
    for figure in FIGURES["translation"]:
        for suffix in (".png", ".svg", ".provenance.json"):
            path = results / f"figures/translation_pets-fr-en_{figure}{suffix}"
            assert path.stat().st_size > 0
    for name in TABLES["translation"]:
        path = results / f"tables/translation_pets-fr-en{name}.provenance.json"
        assert [source["seed"] for source in json.loads(path.read_text())["runs"]] == [5, 5, 5]


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("03_translation", {"language": "de-en"}, "unknown parameter 'language'; did you mean"),
        ("03_translation", {"languages": "de-de"}, "such as 'de-en', got 'de-de'"),
        ("03_translation", {"corpus": "multi30"}, "Did you mean 'multi30k'"),
        ("03_translation", {"overrides": {"merge": 1}}, "unknown override 'merge'; did you mean"),
        ("04_translation_results", {"preset": "tiny"}, "got 'tiny'"),
    ],
)
def test_a_wrong_parameter_stops_the_notebook_before_anything_runs(
    tmp_path, monkeypatch, name, parameters, message
):
    assert_refused(name, tmp_path, parameters, message, monkeypatch)


def test_results_without_runs_say_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    with pytest.raises(papermill.PapermillExecutionError, match=r"03_translation\.ipynb"):
        execute("04_translation_results", tmp_path, {})
