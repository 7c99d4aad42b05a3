import fcntl
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from g2lstm import runs as runs_module
from g2lstm.evaluation import evaluate, evaluate_with_cache
from g2lstm.experiments import ParameterError, configure, run_directory
from g2lstm.files import WriteError
from g2lstm.gates import GATES
from g2lstm.inspection import record_gates
from g2lstm.language_model_task import LanguageModelTask
from g2lstm.listing import list_runs
from g2lstm.measurements import load_trained
from g2lstm.presets import LANGUAGE_MODEL
from g2lstm.provenance import _essence
from g2lstm.records import RECORDS, RunError, copy_records, find_runs, read_run
from g2lstm.results import (
    PAPER_PTB_PERPLEXITY,
    mean_and_spread,
    mean_histograms,
    metrics_frame,
    perplexity_table,
    results_provenance,
    run_label,
    summary_frame,
)
from g2lstm.runs import prepare, train_or_load
from tiny_runs import without_headers

TINY = {
    "epochs": 2,
    "embedding_size": 6,
    "batch_size": 10,
    "learning_rate": 0.02,
}
WIKITEXT_2 = (3785, 0.6625523432485668, 0.12785920428335693)
WORDS = ("the", "cat", "dog", "sees", "hears", "a", "bird")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pets")
    generator = torch.Generator().manual_seed(0)
    for split, lines in (("train", 300), ("valid", 60), ("test", 350)):
        draws = torch.randint(len(WORDS), (lines, 5), generator=generator)
        text = "\n".join(" ".join(WORDS[i] for i in row) for row in draws.tolist())
        (folder / f"{split}.txt").write_text(text + "\n")
    return str(folder)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def finish(corpus, **settings):
    settings = {"overrides": TINY} | settings
    experiment = prepare(configure(corpus=corpus, **settings), device="cpu")
    return experiment, train_or_load(experiment, progress_bar=False)


def test_a_run_records_what_it_measured(root, corpus):
    experiment, run = finish(corpus)
    assert run.directory == run_directory(experiment.configuration)
    assert {path.name for path in run.directory.iterdir()} == {
        *RECORDS, "model.safetensors", "state", ".lock",
    }  # fmt: skip
    summary, text = run.summary, experiment.corpus
    assert summary["test_loss"] == evaluate(experiment.model, text.test).loss
    assert summary["test_perplexity"] == pytest.approx(math.exp(summary["test_loss"]))
    assert summary["entropy_floor"] is summary["floor_perplexity"] is None
    # Words are drawn evenly, one <eos> after five of them: the unigram entropy is known.
    words = -(5 / 6) * math.log(5 / 6 / 7) - (1 / 6) * math.log(1 / 6)
    assert summary["unigram_perplexity"] == pytest.approx(math.exp(words), rel=0.05)
    assert len(run.metrics) == summary["epochs"] == 2
    assert run.provenance["seed"] == 1
    assert run.provenance["data"] == {
        "source": "local files", "sha256": text.checksums,
        "unseen": {"train": 0, "valid": 0, "test": 0},
    }  # fmt: skip
    assert run.provenance["seconds"] > run.provenance["training_seconds"] > 0
    assert run.provenance["resumed"] is False
    assert run.provenance["versions"]["torch"] == torch.__version__.split("+")[0] or (
        run.provenance["versions"]["torch"] == torch.__version__
    )
    assert "papermill" in run.provenance["command"]


def test_recorded_gates_are_those_of_the_model(root, corpus):
    experiment, run = finish(corpus)
    strands = experiment.corpus.test[:1420].view(20, 71).T
    with record_gates(experiment.model.eval()) as records:
        experiment.model(strands)
    values = torch.cat([record.forget_gate.flatten() for record in records])
    recorded = run.summary["gates"]["evaluation"]["forget"]
    assert recorded["mean"] == pytest.approx(float(values.mean()), abs=1e-6)
    assert recorded["saturation"] == pytest.approx(
        float(((values < 0.1) | (values > 0.9)).double().mean()), abs=1e-6
    )
    assert sum(recorded["histogram"]) == pytest.approx(1)
    assert run.summary["gates"]["training"]["forget"] != recorded


def test_a_finished_run_is_loaded_not_trained(root, corpus, monkeypatch):
    first, run = finish(corpus)
    monkeypatch.setattr(runs_module, "train", None)
    second, same = finish(corpus)
    assert same == run
    text = first.corpus.test
    assert evaluate(second.model, text) == evaluate(first.model, text)


def test_published_records_without_weights_are_trained_again(root, corpus):
    _, run = finish(corpus)
    (run.directory / "model.safetensors").unlink()
    shutil.rmtree(run.directory / "state")
    _, again = finish(corpus)
    assert again.summary == run.summary
    assert again.provenance["resumed"] is False


def test_an_interrupted_run_goes_on(root, corpus, monkeypatch):
    _, whole = finish(corpus)
    shutil.rmtree(whole.directory)
    probe = LanguageModelTask.probe

    def interrupt(task):
        if (whole.directory / "metrics.jsonl").exists():
            raise KeyboardInterrupt
        return probe(task)

    monkeypatch.setattr(LanguageModelTask, "probe", interrupt)
    with pytest.raises(KeyboardInterrupt):
        finish(corpus)
    monkeypatch.setattr(LanguageModelTask, "probe", probe)
    (whole.directory / "state/.checkpoint.safetensors.x.part").write_text("half")
    _, run = finish(corpus)
    assert run.summary == whole.summary
    assert run.provenance["resumed"] is True
    assert run.provenance["seconds"] is None
    assert not list(run.directory.rglob("*.part"))


def test_two_corpora_of_one_name_do_not_share_a_run(root, corpus, tmp_path):
    finish(corpus)
    other = tmp_path / "other" / Path(corpus).name
    shutil.copytree(corpus, other)
    with pytest.raises(RunError, match="holds a run on the corpus"):
        finish(str(other))


def test_a_text_too_short_to_measure_is_named(root, tmp_path):
    for split, lines in (("train", 100), ("valid", 2), ("test", 100)):
        (tmp_path / f"{split}.txt").write_text("a b c d e\n" * lines)
    with pytest.raises(RunError, match=r"the valid text of .* has 12 tokens; at least 40"):
        prepare(configure(corpus=str(tmp_path)), device="cpu")


def test_comments_and_docstrings_do_not_make_another_code():
    source = 'def f(x):\n    """What."""\n    return x + 1  # why\n'
    same = "def f(x):\n    'Other.'\n\n    return (x + 1)\n"
    assert _essence(source) == _essence(same)
    assert _essence(source) != _essence(source.replace("1", "2"))


@pytest.mark.parametrize("change", ["data", "code"])
def test_a_run_starts_anew_when_data_or_code_changed(root, tmp_path, monkeypatch, capsys, change):
    folder = tmp_path / "text"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("a b c d e\n" * 100)
    _, run = finish(str(folder))
    if change == "data":
        (folder / "train.txt").write_text("a b c e d\n" * 100)
    else:
        monkeypatch.setattr(runs_module, "code_checksum", lambda modules: "another")
    files = {
        path.relative_to(run.directory): path.read_bytes()
        for path in run.directory.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    _, again = finish(str(folder))
    said = capsys.readouterr().out
    assert "the run starts anew" in said
    # What it was is kept, and counts for nothing but itself.
    (kept,) = (path for path in run.directory.parent.iterdir() if path != run.directory)
    assert str(kept) in said
    assert {
        path.relative_to(kept): path.read_bytes() for path in kept.rglob("*") if path.is_file()
    } == files
    assert read_run(kept).summary == run.summary
    assert [entry["run"] for entry in list_runs(root)] == ["/".join(run.directory.parts[-5:])]
    assert [found.directory for found in find_runs("quick", str(folder))] == [run.directory]
    assert again.config["fingerprint"] != run.config["fingerprint"]
    assert (again.metrics == run.metrics) is False


def test_each_run_that_was_replaced_is_kept(root, corpus, monkeypatch):
    _, first = finish(corpus)
    for number in range(2):
        monkeypatch.setattr(runs_module, "code_checksum", lambda modules, n=number: f"other {n}")
        finish(corpus)
    kept = [path for path in first.directory.parent.iterdir() if path != first.directory]
    assert len({read_run(path).config["fingerprint"] for path in kept}) == 2


@pytest.mark.parametrize("moved", range(6))
def test_a_kill_while_a_run_is_put_aside_loses_nothing(root, corpus, monkeypatch, moved):
    _, first = finish(corpus)
    names = {path.name for path in first.directory.iterdir()} - {".lock"}
    monkeypatch.setattr(runs_module, "code_checksum", lambda modules: "another")
    rename, done = Path.rename, []

    def interrupted(path, target):
        if len(done) == moved:
            raise KeyboardInterrupt
        done.append(path.name)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finish(corpus)
    finish(corpus)
    kept = [path for path in first.directory.parent.iterdir() if path != first.directory]
    assert {path.name for folder in kept for path in folder.iterdir()} == names
    assert sum(len(list(folder.iterdir())) for folder in kept) == len(names)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_run_whose_lock_is_none_is_refused(root, corpus, tmp_path, kind):
    experiment = prepare(configure(corpus=corpus, overrides=TINY), device="cpu")
    experiment.directory.mkdir(parents=True)
    (tmp_path / "thesis.txt").write_text("years of work")
    lock = experiment.directory / ".lock"
    lock.symlink_to(tmp_path / "thesis.txt") if kind == "link" else os.mkfifo(lock)
    with pytest.raises(WriteError, match=r"\.lock should be a lock"):
        train_or_load(experiment)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_second_process_on_the_same_run_is_refused(root, corpus):
    experiment = prepare(configure(corpus=corpus, overrides=TINY), device="cpu")
    experiment.directory.mkdir(parents=True)
    with open(experiment.directory / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process is at work"):
            train_or_load(experiment)


def test_find_runs_sorts_by_gate_and_seed_and_names_what_is_missing(root, corpus):
    for gate, seed in (("gumbel", 2), ("gumbel", 1), ("sigmoid", 1)):
        finish(corpus, gate=gate, seed=seed)
    found = find_runs("quick", corpus)
    assert [(run.config["gate"], run.config["seed"]) for run in found] == [
        ("sigmoid", 1),
        ("gumbel", 1),
        ("gumbel", 2),
    ]
    # These have overrides: they are not what is asked for by seed.
    with pytest.raises(RunError, match="no finished run of gate 'sigmoid' with seed 1") as caught:
        find_runs("quick", corpus, seeds=[1, 2])
    assert "papermill" in str(caught.value)
    for seeds in (1, "1", []):
        with pytest.raises(ParameterError, match="seeds must be a list of integers"):
            find_runs("quick", corpus, seeds=seeds)
    with pytest.raises(RunError, match="no finished run in"):
        find_runs("small", corpus)


def test_a_damaged_record_is_named(root, corpus):
    _, run = finish(corpus)
    (run.directory / "summary.json").write_text("{")
    with pytest.raises(RunError, match="seed-1 holds no finished run"):
        read_run(run.directory)


def test_tables_over_runs(root, corpus, tmp_path):
    for gate in ("sigmoid", "gumbel"):
        for seed in (1, 2):
            finish(corpus, gate=gate, seed=seed)
    found = find_runs("quick", corpus)
    frame = summary_frame(found)
    assert frame["seed"].tolist() == [1, 2, 1, 2]
    assert frame["test_perplexity"].tolist() == [run.summary["test_perplexity"] for run in found]
    table = perplexity_table(frame)
    values = frame["test_perplexity"][:2]
    assert table["test"][0] == f"{values.mean():.2f} ± {values.std():.2f}"
    assert table["seeds"].tolist() == [2, 2]
    assert len(metrics_frame(found)) == 8
    histograms = mean_histograms(found)
    assert list(histograms) == table["model"].tolist() == frame["gate"].unique().tolist()
    assert all(sum(part["input"]) == pytest.approx(1) for part in histograms.values())
    record = results_provenance(found, "some command")
    assert [source["seed"] for source in record["runs"]] == [1, 2, 1, 2]
    json.dumps(record)

    copy_records(found, tmp_path / "results")
    copies = sorted((tmp_path / "results/runs").glob("language-model/*/quick/*/seed-*"))
    assert len(copies) == 4
    assert {path.name for path in copies[0].iterdir()} == set(RECORDS)
    assert read_run(copies[0]).summary == found[2].summary


def test_runs_of_another_preset_are_not_compared(root, corpus, monkeypatch):
    _, run = finish(corpus)
    quick = LANGUAGE_MODEL["quick"]
    changed = replace(quick, training=replace(quick.training, weight_decay=0.5))
    monkeypatch.setitem(LANGUAGE_MODEL, "quick", changed)
    with pytest.raises(RunError, match=r"another preset 'quick' \(weight_decay 0.01, now 0.5\)"):
        find_runs("quick", corpus)
    assert read_run(run.directory).summary == run.summary


def test_a_run_in_default_settings_goes_by_its_gate(root, corpus, monkeypatch):
    small = replace(LANGUAGE_MODEL["quick"].training, epochs=1)
    preset = replace(
        LANGUAGE_MODEL["quick"], model={"embedding_size": 6, "num_layers": 1}, training=small
    )
    monkeypatch.setitem(LANGUAGE_MODEL, "quick", preset)
    for gate in GATES:
        finish(corpus, gate=gate, overrides={})
    finish(corpus, gate="gumbel", temperature=0.5, overrides={})
    frame = summary_frame(find_runs("quick", corpus))
    assert frame["gate"].tolist() == [*GATES[:2], "G2-LSTM (tau=0.5)", "gumbel"]
    table = perplexity_table(frame)
    assert table["paper (PTB, cache pointer)"].tolist() == ["52.8", "53.2", "", "52.1"]
    assert len(find_runs("quick", corpus, seeds=[1])) == 3


def test_labels_name_settings_that_are_not_default(root, corpus):
    _, plain = finish(corpus, overrides={"epochs": 1, "dropout": 0.1, "embedding_size": 6})
    assert run_label(plain) == "G2-LSTM (dropout=0.1, embedding_size=6, epochs=1)"
    _, other = finish(corpus, temperature=0.5, noise_probability=1.0)
    assert run_label(other).endswith("tau=0.5, p=1)")
    _, annealed = finish(corpus, schedule="cosine", temperature_end=0.5)
    assert run_label(annealed).endswith("cosine to 0.5)")
    temperatures = [row["temperature"] for row in annealed.metrics]
    assert temperatures[0] > temperatures[1] > 0.5


def test_mean_and_spread():
    assert mean_and_spread([1.0, 2.0, 3.0]) == "2.00 ± 1.00"
    assert mean_and_spread([1.25]) == "1.25"
    assert PAPER_PTB_PERPLEXITY["gumbel"] < PAPER_PTB_PERPLEXITY["sigmoid"]


def test_a_run_of_several_processes_says_how_to_start_them(root, corpus):
    experiment = prepare(configure(corpus=corpus, overrides=TINY | {"processes": 2}), device="cpu")
    with pytest.raises(RunError, match="is trained by 2 processes, here is 1: start torchrun"):
        train_or_load(experiment, progress_bar=False)
    assert not (experiment.directory / "model.safetensors").exists()
    assert not (experiment.directory / "state").exists()


def test_the_cache_pointer_has_the_settings_that_are_asked_for(root, corpus):
    ours = {"cache_pointer": True}
    found = {}
    for recipe in ("penn-treebank", "wikitext-2"):
        experiment, run = finish(corpus, overrides=TINY | ours | {"cache_recipe": recipe})
        window = {"penn-treebank": (500, 1.0, 0.1), "wikitext-2": WIKITEXT_2}[recipe]
        expected = evaluate_with_cache(experiment.model, experiment.task.corpus.test, *window)
        found[recipe] = run.summary["test_perplexity_with_cache"]
        assert found[recipe] == pytest.approx(expected.perplexity, rel=1e-9)
        assert run.summary["cache_recipe"] == recipe
    assert found["penn-treebank"] != found["wikitext-2"]
    table = perplexity_table(summary_frame(find_runs("quick", corpus)))
    assert {f"test, cache pointer ({recipe})" for recipe in found} <= set(table.columns)


def older(run):
    """Rewrite the records of a run as they were when the settings of the cache had no name."""
    without_headers(run.directory)
    config = json.loads((run.directory / "config.json").read_text())
    del config["evaluation"]["cache_recipe"]
    (run.directory / "config.json").write_text(json.dumps(config))


def test_older_records_have_the_cache_of_wikitext_2_and_are_not_compared_with_newer(root, corpus):
    ours = {"overrides": TINY | {"cache_pointer": True}}
    _, run = finish(corpus, **ours)
    older(run)
    (found,) = find_runs("quick", corpus)
    (heading,) = (c for c in perplexity_table(summary_frame([found])) if "test, cache" in c)
    assert heading == "test, cache pointer (wikitext-2)"
    trained = load_trained(found, device="cpu")
    assert trained.configuration.evaluation["cache_recipe"] == "wikitext-2"
    _, other = finish(corpus, gate="sigmoid", **ours)
    message = r"cannot be compared.*cache_recipe=penn-treebank.*cache_recipe=wikitext-2"
    with pytest.raises(RunError, match=message):
        find_runs("quick", corpus)
    older(other)
    assert len(find_runs("quick", corpus)) == 2


def test_runs_from_before_a_correction_are_read_and_not_compared_with_newer(
    root, corpus, monkeypatch
):
    then = {"batch_size": 10, "dropout": 0.25}
    corrected = replace(LANGUAGE_MODEL["quick"], published=then)
    wrong = replace(
        corrected,
        model=corrected.model | {"dropout": 0.25, "embedding_size": 6, "hidden_size": 6},
        training=replace(corrected.training, batch_size=10, epochs=2),
    )
    right = replace(
        wrong,
        model=wrong.model | {"dropout": 0.0},
        training=replace(wrong.training, batch_size=20),
    )
    monkeypatch.setitem(LANGUAGE_MODEL, "quick", wrong)
    finish(corpus, overrides={})
    monkeypatch.setitem(LANGUAGE_MODEL, "quick", right)
    (run,) = find_runs("quick", corpus)
    assert perplexity_table(summary_frame([run]))["made with"].tolist() == [
        "batch_size=10, dropout=0.25"
    ]
    trained = load_trained(run, device="cpu")
    assert trained.model.dropout == 0.25
    assert trained.configuration.training.batch_size == 10
    finish(corpus, gate="sigmoid", overrides={})
    with pytest.raises(RunError, match="cannot be compared"):
        find_runs("quick", corpus)
    monkeypatch.setitem(LANGUAGE_MODEL, "quick", replace(right, published={}))
    with pytest.raises(RunError, match="made with another preset"):
        find_runs("quick", corpus)
