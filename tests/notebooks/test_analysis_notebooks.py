"""The analysis notebooks on the published records of the embedded corpora, and what they refuse."""

import json
import shutil

import pytest

from execution import assert_refused, execute, pictures, shown
from g2lstm.paper import CLAIMS
from g2lstm.studies import FIGURES, TABLES
from sources import ROOT

PUBLISHED = ROOT / "results/quick"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the published records; without weights, so that nothing can be measured."""
    folder = tmp_path_factory.mktemp("analyses")
    shutil.copytree(PUBLISHED / "runs", folder / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("G2LSTM_RUNS", str(folder / "runs"))
        patch.setenv("G2LSTM_RESULTS", str(folder / "results"))
        yield folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", TABLES)
def test_an_analysis_of_translation_draws_again_what_is_published(folder, name):
    before = contents(folder / "runs")
    notebook = execute(name, folder, {"task": "translation", "save": True})
    assert contents(folder / "runs") == before, "run directories are only read"
    results = folder / "results/quick"
    for table in TABLES[name]:
        path = f"tables/translation_grammar-de-en_{table}.csv"
        assert (results / path).read_text() == (PUBLISHED / path).read_text()
    for figure in FIGURES[name]:
        for suffix in (".png", ".svg", ".provenance.json"):
            path = results / f"figures/translation_grammar-de-en_{figure}{suffix}"
            assert path.stat().st_size > 0
    assert pictures(notebook) == len(FIGURES[name])


def test_the_report_is_the_published_one(folder):
    notebook = execute("09_report", folder, {"save": True})
    assert pictures(notebook) == 1
    ours, published = (
        json.loads((place / "claims.json").read_text())
        for place in (folder / "results/quick", PUBLISHED)
    )
    assert ours["statistics"] == published["statistics"]
    assert {row["claim"] for row in ours["statistics"]} == set(CLAIMS)
    assert (folder / "results/quick/figures/forest.png").stat().st_size
    assert "claims.json and report.md written for 2 corpora" in shown(notebook)
    report = (folder / "results/quick/report.md").read_text().splitlines()
    assert [line for line in report if not line.startswith("Commit ")] == [
        line
        for line in (PUBLISHED / "report.md").read_text().splitlines()
        if not line.startswith("Commit ")
    ]


def test_any_sentence_needs_the_weights(folder):
    with pytest.raises(Exception, match="holds no weights"):
        execute("07_case_study", folder, {"sentence": "the dog laughs ."})


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("05_compression", {"tasks": "translation"}, "unknown parameter 'tasks'; did you mean"),
        ("06_gate_values", {"task": "speech"}, "task must be one of language-model, translation"),
        ("07_case_study", {"sentense": "a b"}, "unknown parameter 'sentense'; did you mean"),
        ("08_sensitivity", {"preset": "tiny"}, "got 'tiny'"),
        ("09_report", {"experiments": [{"corpus": "ptb"}]}, "an experiment is a dict with task"),
    ],
)
def test_a_wrong_parameter_stops_the_notebook_before_anything_runs(
    tmp_path, monkeypatch, name, parameters, message
):
    assert_refused(name, tmp_path, parameters, message, monkeypatch)
