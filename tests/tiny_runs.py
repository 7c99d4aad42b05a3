"""Runs of tiny models on few sentences of the embedded corpora, and models that never trained."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from g2lstm import grammar, parallel_grammar
from g2lstm.checkpoint import read_tensors, write_tensors
from g2lstm.experiments import configure
from g2lstm.identity import read_record, read_rows, write_record, write_rows
from g2lstm.measurements import Trained, load_trained
from g2lstm.records import Run
from g2lstm.runs import prepare, train_or_load

SENTENCES = {"train": 300, "valid": 60, "test": 120}
PAIRS = {"train": 100, "valid": 12, "test": 24}
LANGUAGE_MODEL = {
    "epochs": 1, "embedding_size": 8, "hidden_size": 10, "num_layers": 2, "batch_size": 10,
}  # fmt: skip
TRANSLATION = {
    "epochs": 1, "embedding_size": 8, "hidden_size": 10, "decoder_layers": 3, "merges": 60,
    "batch_tokens": 500,
}  # fmt: skip
TINY = {"language-model": LANGUAGE_MODEL, "translation": TRANSLATION}


@contextmanager
def few_sentences() -> Iterator[None]:
    """Small embedded corpora and finished runs on them, in folders kept for the session."""
    root = Path(os.environ["G2LSTM_CACHE"]) / "few-sentences"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("G2LSTM_CACHE", str(root / "cache"))
        patch.setenv("G2LSTM_RUNS", str(root / "runs"))
        for corpus, sizes in ((grammar, SENTENCES), (parallel_grammar, PAIRS)):
            for split, size in sizes.items():
                patch.setitem(corpus.SENTENCES, split, size)
        yield


def tiny(task: str = "language-model", **settings):
    """Configuration of a tiny model; ``overrides`` go on top of those of `TINY`."""
    overrides = TINY[task] | settings.pop("overrides", {})
    return configure(task=task, overrides=overrides, **settings)


def finished(task: str = "language-model", **settings) -> Run:
    """A finished run, trained on the first call."""
    return train_or_load(prepare(tiny(task, **settings), device="cpu"), progress_bar=False)


def trained(task: str = "language-model", **settings) -> Trained:
    """A finished run with its weights."""
    return load_trained(finished(task, **settings), device="cpu")


def untrained(task: str = "language-model", **settings) -> Trained:
    """A model with random weights, large enough for gates that differ; there is no run."""
    experiment = prepare(tiny(task, **settings), device="cpu")
    torch.manual_seed(0)
    for parameter in experiment.model.parameters():
        nn.init.normal_(parameter, std=0.7)
    experiment.model.eval()
    return Trained(None, experiment.configuration, experiment.task)


def without_headers(folder: Path) -> Path:
    """Make a run, or a model made from one, one of the first format, whose files name no run."""
    records = {p: read_record(p) for p in folder.rglob("*.json") if p.name != "manifest.json"}
    metrics = {path: read_rows(path) for path in folder.glob("metrics.jsonl")}
    kind = "g2lstm_packed" if (folder / "compression.json").exists() else "g2lstm"
    tensors = {path: read_tensors(path, kind) for path in folder.rglob("*.safetensors")}
    (folder / "config.json").unlink()
    for path, record in records.items():
        write_record(path, record)
    for path, rows in metrics.items():
        write_rows(path, rows)
    for path, content in tensors.items():
        write_tensors(path, content[0], kind, content[1])
    return folder


def text_corpus(folder: Path, sentences: list[str]) -> str:
    """A corpus of a language model whose splits are all the same sentences; its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("".join(f"{s}\n" for s in sentences))
    return str(folder)
