import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU

from g2lstm.beam_search import Hypothesis
from g2lstm.evaluation import evaluate_translation
from g2lstm.experiments import configure
from g2lstm.inspection import record_gates
from g2lstm.plots import GATE_LABELS
from g2lstm.presets import TRANSLATION
from g2lstm.records import (
    BLEU_STATISTICS,
    RECORDS,
    TRANSLATION_RECORDS,
    RunError,
    copy_records,
    find_runs,
    read_bleu_statistics,
    read_translations,
)
from g2lstm.results import PAPER_BLEU, bleu_table, bootstrap_table, summary_frame
from g2lstm.runs import prepare, train_or_load
from g2lstm.scoring import bleu_from_statistics
from g2lstm.subwords import Subwords
from g2lstm.translation_task import TranslationTask
from pets import write_pets

TINY = {"epochs": 2, "embedding_size": 12, "hidden_size": 12, "batch_tokens": 200, "merges": 30}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pets")
    write_pets(folder, "de")
    return str(folder)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def finish(corpus, **settings):
    settings = {"overrides": TINY} | settings
    experiment = prepare(configure(corpus=corpus, task="translation", **settings), device="cpu")
    return experiment, train_or_load(experiment, progress_bar=False)


def test_a_run_as_the_paper_trains(root, corpus):
    most = 4
    as_paper = {
        "optimizer": "adadelta", "learning_rate": 1.0, "learning_rate_schedule": "constant",
        "warmup": 0.0, "weight_decay": 0.0, "clip": 2.0, "batch_sentences": 8,
        "max_subwords": most,
    }  # fmt: skip
    experiment, run = finish(corpus, overrides=TINY | as_paper)
    task = experiment.task
    sources, targets = task.corpus.train
    encoded = zip(
        task.source_subwords.encode(sources), task.target_subwords.encode(targets), strict=True
    )
    kept = sum(max(map(len, pair)) <= most for pair in encoded)
    assert 0 < kept < len(sources)
    assert run.summary["train_pairs"] == kept
    assert max(len(step.batch) for step in task.objective.steps(0)) == 8
    assert run.metrics[-1]["train_loss"] < run.metrics[0]["train_loss"]
    table = bleu_table(summary_frame([run]))
    lowercased = f"{run.summary['test_bleu_lc']:.2f}"
    assert table["test BLEU, case-insensitive"].tolist() == [lowercased]


def test_a_run_records_what_it_measured(root, corpus):
    experiment, run = finish(corpus)
    task, summary = experiment.task, run.summary
    assert run.directory.relative_to(root).parts[:2] == (
        "translation",
        f"{Path(corpus).name}-de-en",
    )
    assert {path.name for path in run.directory.iterdir()} == {
        *RECORDS, *TRANSLATION_RECORDS, "model.safetensors", "state", ".lock",
    }  # fmt: skip
    for side in ("source", "target"):
        saved = Subwords.load(run.directory / f"{side}_subwords.json")
        assert saved.pieces == getattr(task, f"{side}_subwords").pieces
    texts = read_translations(run)
    assert texts == task.translate(task.pairs["test"].sources)[0]
    references = experiment.corpus.test[1]
    assert summary["test_bleu"] == BLEU().corpus_score(texts, [references]).score
    assert summary["test_bleu"] == pytest.approx(bleu_from_statistics(read_bleu_statistics(run)))
    assert summary["test_exact"] == np.mean(
        [a == b for a, b in zip(texts, references, strict=True)]
    )
    assert "tok:13a" in summary["test_bleu_signature"]
    assert summary["test_tokenised_bleu"] is None
    assert "clause_accuracy" not in summary
    expected = evaluate_translation(experiment.model, task.pairs["test"]).perplexity
    assert summary["test_perplexity"] == pytest.approx(expected)
    assert [row["epoch"] for row in run.metrics] == [1, 2]
    assert run.metrics[1]["valid_perplexity"] < run.metrics[0]["valid_perplexity"]
    assert {"valid_bleu_greedy", "forget_gate_saturation"} <= run.metrics[0].keys()
    assert run.provenance["data"]["sha256"].keys() == {
        f"{split}.{language}" for split in ("train", "valid", "test") for language in ("de", "en")
    }
    assert run.provenance["command"].startswith("papermill notebooks/03_translation.ipynb")


def test_a_finished_run_is_loaded_and_an_interrupted_one_goes_on(root, corpus, monkeypatch):
    first, run = finish(corpus)
    second, same = finish(corpus)
    assert same == run
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    shutil.rmtree(run.directory)
    probe, calls = TranslationTask.probe, []

    def interrupt(task):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return probe(task)

    monkeypatch.setattr(TranslationTask, "probe", interrupt)
    with pytest.raises(KeyboardInterrupt):
        finish(corpus)
    monkeypatch.setattr(TranslationTask, "probe", probe)
    resumed, again = finish(corpus)
    assert timeless(again.summary) == timeless(run.summary)
    for a, b in zip(resumed.model.parameters(), first.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert again.provenance["resumed"] is True


def timeless(summary):
    return {name: value for name, value in summary.items() if name != "sentences_per_second"}


def test_recorded_gates_are_those_of_the_model_without_padding(root, corpus):
    experiment, run = finish(corpus, gate="sigmoid")
    task, model = experiment.task, experiment.model.eval()
    values = []
    for source, target in zip(task.pairs["test"].sources, task.pairs["test"].targets, strict=True):
        with record_gates(model) as records:
            tokens = torch.tensor([2, *target])[:, None]
            model(torch.tensor(source)[:, None], torch.tensor([len(source)]), tokens)
        values += [record.forget_gate.flatten() for record in records]
    recorded = run.summary["gates"]["evaluation"]["forget"]
    assert recorded["mean"] == pytest.approx(float(torch.cat(values).mean()), abs=1e-5)
    assert sum(recorded["histogram"]) == pytest.approx(1)


def test_attention_is_that_of_the_translation(root, corpus):
    experiment, _ = finish(corpus)
    source = experiment.task.pairs["test"].sources[0]
    weights, source_pieces, target_pieces = experiment.task.attention(source)
    assert weights.shape == (len(target_pieces), len(source_pieces))
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert source_pieces[-1] == target_pieces[-1] == "</s>"
    text = "".join(target_pieces[:-1]).replace("▁", " ").strip()
    assert text == experiment.task.translate([source])[0][0]


def test_the_embedded_corpus_reports_its_reordered_clauses(root, tmp_path, monkeypatch):
    experiment = prepare(configure(task="translation", overrides=TINY), device="cpu")
    task = experiment.task
    source_of = dict(zip(map(tuple, task.pairs["test"].sources), task.corpus.test[1], strict=True))

    def cheat(task, sources, beam_size=None, progress_bar=False):
        found = [Hypothesis([], 0.0, 0.0, True)] * len(sources)
        return [source_of.get(tuple(source), "") for source in sources], found

    monkeypatch.setattr(TranslationTask, "translate", cheat)
    summary = task.summarise(tmp_path)
    assert summary["test_bleu"] == pytest.approx(100)
    assert summary["reordered_clauses"] > 100
    assert summary["clause_accuracy"] == summary["test_exact"] == 1
    assert summary["exact_with_clauses"] == summary["exact_without_clauses"] == 1
    assert summary["valid_bleu"] == summary["train_bleu"] == 0
    # Into German nothing is known of the clauses.
    other = prepare(configure(task="translation", languages="en-de", overrides=TINY), device="cpu")
    assert other.corpus.clauses is None
    assert other.corpus.source_language == "en"


def test_seen_text_is_spread_over_a_training_text_of_any_size(root, tmp_path):
    for split, lines in (("train", 7), ("valid", 3), ("test", 12)):
        for language in ("de", "en"):
            text = "".join(f"{'abcdefghijkl'[i]} x\n" for i in range(lines))
            (tmp_path / f"{split}.{language}").write_text(text)
    experiment = prepare(
        configure(corpus=str(tmp_path), task="translation", overrides=TINY), device="cpu"
    )
    seen = []
    translated = experiment.task.translate

    def watch(sources, beam_size=None):
        seen.append(sources)
        return translated(sources, beam_size)

    experiment.task.translate = watch
    experiment.task.summarise(tmp_path)
    assert seen[-1] == experiment.task.pairs["train"].sources, "each of the seven once"


def test_languages_and_their_order_are_different_runs(root, corpus):
    one, other = (
        prepare(configure(corpus=corpus, task="translation", languages=languages), device="cpu")
        for languages in ("de-en", "en-de")
    )
    assert one.directory != other.directory
    assert one.fingerprint != other.fingerprint
    assert one.corpus.train == other.corpus.train[::-1]


def test_tables_over_runs(root, corpus, tmp_path):
    for gate in ("sigmoid", "gumbel"):
        for seed in (1, 2):
            finish(corpus, gate=gate, seed=seed, overrides={**TINY, "epochs": 1 + seed})
    found = find_runs("quick", corpus, task="translation")
    assert [run.config["gate"] for run in found] == ["sigmoid"] * 2 + ["gumbel"] * 2
    frame = summary_frame(found)
    table = bleu_table(frame)
    assert table["test BLEU"][0] == f"{frame['test_bleu'][0]:.2f}"
    assert not any("multi-bleu" in name for name in table), "no tokenised text here"
    assert {f"paper ({corpus})" for corpus in PAPER_BLEU} <= set(table.columns)
    # Overrides give other labels, so there is no LSTM in default settings to compare with.
    assert bootstrap_table(found).empty
    copy_records(found, tmp_path / "results")
    copies = sorted((tmp_path / "results/runs").glob("translation/*/quick/*/seed-*"))
    assert {path.name for path in copies[0].iterdir()} == {*RECORDS, BLEU_STATISTICS}
    (copies[0] / BLEU_STATISTICS).unlink()
    with pytest.raises(RunError, match=r"bleu_statistics\.json is missing"):
        read_bleu_statistics(replace(found[0], directory=copies[0]))


def test_the_bootstrap_compares_with_the_lstm_of_the_same_seed(root, corpus, monkeypatch):
    training = replace(TRANSLATION["quick"].training, epochs=1, batch_tokens=200)
    model = {"embedding_size": 8, "hidden_size": 8, "encoder_layers": 1, "decoder_layers": 1}
    preset = replace(TRANSLATION["quick"], model=model, training=training)
    monkeypatch.setitem(TRANSLATION, "quick", preset)
    for gate in ("sigmoid", "gumbel"):
        finish(corpus, gate=gate, overrides={})
    finish(corpus, gate="gumbel", seed=2, overrides={})
    found = find_runs("quick", corpus, task="translation")
    table = bootstrap_table(found, samples=50)
    assert table["model"].tolist() == [GATE_LABELS["sigmoid"], GATE_LABELS["gumbel"]]
    assert table["seed"].tolist() == [1, 1], "seed 2 has no LSTM"
    frame = summary_frame(found)
    assert table["bleu"].tolist() == pytest.approx(frame["test_bleu"][:2].tolist())
    papers = bleu_table(frame)["paper (IWSLT'14 de-en)"]
    assert papers.tolist() == ["31.00", "31.95"]
