"""What the list of runs says of finished, begun and damaged ones."""

import json
import shutil

import pytest

from g2lstm.listing import in_words, list_runs
from sources import ROOT

PUBLISHED = ROOT / "results/small/runs/language-model/ptb/small/sigmoid/seed-1"
RECORDS = ("config.json", "metrics.jsonl", "summary.json", "provenance.json")


@pytest.fixture
def folder(tmp_path):
    """A folder of runs with one finished run, without weights."""
    for name in RECORDS:
        target = tmp_path / "language-model/ptb/small/sigmoid/seed-1" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PUBLISHED / name, target)
    return tmp_path


def only(folder):
    (entry,) = list_runs(folder)
    return entry


def of(folder, name):
    return folder / "language-model/ptb/small/sigmoid/seed-1" / name


def test_a_finished_run(folder):
    summary = json.loads((PUBLISHED / "summary.json").read_text())
    entry = only(folder)
    assert entry["run"] == "language-model/ptb/small/sigmoid/seed-1"
    about = [entry[key] for key in ("task", "corpus", "preset", "settings", "seed", "state")]
    assert about == ["language-model", "ptb", "small", "sigmoid", 1, "finished"]
    names = ("valid_perplexity", "test_perplexity", "test_perplexity_with_cache")
    assert entry["metrics"] == {name: summary[name] for name in names}
    assert not entry["weights"]
    of(folder, "model.safetensors").touch()
    assert only(folder)["weights"]


def test_results_are_looked_into(folder, tmp_path):
    (tmp_path / "results").mkdir()
    shutil.copytree(folder / "language-model", tmp_path / "results/runs/language-model")
    assert only(tmp_path / "results") == only(folder)


def test_a_run_that_was_begun(folder):
    of(folder, "summary.json").unlink()
    lines = of(folder, "metrics.jsonl").read_text().splitlines(keepends=True)
    of(folder, "metrics.jsonl").write_text("".join(lines[:3]))
    assert only(folder)["state"] == "begun"
    assert in_words(only(folder)) == "begun, 3 of 10 epochs"
    of(folder, "metrics.jsonl").unlink()
    assert in_words(only(folder)) == "begun, no epoch finished"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", "{}", "training"),
        ("summary.json", "{", "holds no finished run"),
        ("summary.json", '{"epochs": 10}', "has no number for anything"),
        ("summary.json", '{"epochs": 10, "test_perplexity": NaN}', "no number for test_perplexity"),
        ("metrics.jsonl", '{"epoch": 1}\n', "summary.json says 10 epochs, metrics.jsonl has 1"),
        ("summary.json", f'{{"epochs": 10, "test_perplexity": {10**400}}}', "OverflowError"),
        ("config.json", "[" * 100_000, "config.json is damaged"),
        ("provenance.json", None, "holds no finished run"),
    ],
)
def test_a_damaged_run_says_why(folder, name, content, problem):
    of(folder, name).unlink() if content is None else of(folder, name).write_text(content)
    entry = only(folder)
    assert entry["state"] == "damaged"
    assert problem in entry["problem"]
    assert in_words(entry).startswith("damaged: ")


def test_a_folder_of_no_seed_is_damaged(folder):
    of(folder, "").rename(of(folder, "").with_name("seed-²"))
    assert (only(folder)["seed"], only(folder)["state"]) == (None, "finished")


def test_no_folder(tmp_path):
    assert list_runs(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="is not a folder: name one that holds runs"):
        list_runs(tmp_path / "nowhere")
