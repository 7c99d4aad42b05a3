"""Studies find the runs that a notebook is about, measure them and save what it shows."""

import json

import matplotlib.figure
import pandas as pd
import pytest

import g2lstm.studies
from g2lstm.experiments import ParameterError
from g2lstm.measurements import Measurement
from g2lstm.presets import PRESETS
from g2lstm.records import RunError
from g2lstm.report import open_studies
from g2lstm.studies import FIGURES, TABLES, open_study
from made_up_runs import made_up_run, write_run


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Runs of the three gates with two seeds, and one in another setting, on disk."""
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("G2LSTM_RESULTS", str(tmp_path / "results"))
    made = [
        made_up_run(gate, seed) for gate in ("gumbel", "sigmoid", "sharpened") for seed in (1, 2)
    ]
    made.append(made_up_run("gumbel", 2, noise_probability=1.0))
    for run in made:
        write_run(run)
    return tmp_path


def names(runs):
    return [(run.config["gate"], run.config["seed"]) for run in runs]


def test_default_runs_in_the_papers_order_and_variants_beside(runs):
    study = open_study("06_gate_values")
    every = [(gate, seed) for gate in ("sigmoid", "sharpened", "gumbel") for seed in (1, 2)]
    assert names(study.runs) == every
    assert sorted(names(study.variants)) == sorted([*every, ("gumbel", 2)])
    assert study.settings == PRESETS["language-model"]["quick"].analysis


def test_seeds_restrict_both(runs):
    study = open_study("06_gate_values", seeds=[1])
    assert {run.config["seed"] for run in study.variants} == {1}
    assert len(study.variants) == len(study.runs) == 3


def test_a_missing_seed_is_named(runs):
    with pytest.raises(RunError, match="with seed 7"):
        open_study("06_gate_values", seeds=[1, 7])


def test_no_run_at_all_says_how_to_make_one(runs):
    with pytest.raises(RunError, match="make one with: papermill notebooks/03_translation"):
        open_study("06_gate_values", task="translation")


def test_tables_figures_and_measurements_are_saved_on_demand_only(runs):
    measurement = Measurement("size", lambda trained: 1, ("gates",))
    for run in open_study("05_compression").runs:  # as if it had been measured before
        folder = run.directory / "measurements"
        folder.mkdir()
        about = {"settings": {}, "fingerprint": "made up", "code": "old", "result": 7}
        (folder / "size.json").write_text(json.dumps(about))
    frame = pd.DataFrame({"a": [1]})
    for save in (False, True):
        study = open_study("05_compression", seeds=[1], save=save)
        found = study.measure(measurement)
        assert [result for _, result in found] == [7, 7, 7], "published records are read"
        assert study.table(frame, "compression") is frame
        figure = matplotlib.figure.Figure()
        assert study.figure(figure, "compression_bits") is figure
        folder = runs / "results" / "quick"
        assert folder.exists() == save
    assert (folder / "tables/language_model_grammar_compression.csv").read_text() == "a\n1\n"
    record = folder / "figures/language_model_grammar_compression_bits.provenance.json"
    record = json.loads(record.read_text())
    assert record["command"].startswith("make reproduce PRESET=quick TASK=language-model")
    assert "(05_compression)" in record["command"]
    assert len(record["runs"]) == 3
    assert len(list(folder.glob("runs/**/measurements/size.json"))) == 3


def test_an_undeclared_name_is_refused(runs):
    study = open_study("05_compression", save=True)
    with pytest.raises(ValueError, match="05_compression does not name 'other' among its tables"):
        study.table(pd.DataFrame(), "other")


def test_every_study_saves_something():
    assert TABLES.keys() == FIGURES.keys()
    assert all(TABLES.values())
    assert all(FIGURES.values())
    assert all(not set(FIGURES[name]) & set(g2lstm.studies.SOMETIMES) for name in FIGURES)


@pytest.mark.parametrize("wrong", [{}, {"task": "translation", "seeds": [1]}, "translation"])
def test_an_experiment_of_a_report_is_checked(wrong):
    with pytest.raises(ParameterError, match="an experiment is a dict with task"):
        open_studies("quick", [wrong])


def test_runs_in_other_settings_alone_are_not_enough(tmp_path, monkeypatch):
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    write_run(made_up_run("gumbel", 1, noise_probability=1.0))
    with pytest.raises(RunError, match="all 1 finished runs have other settings"):
        open_study("05_compression")
