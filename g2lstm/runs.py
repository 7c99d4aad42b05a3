"""Runs of an experiment: one model trained with one seed, and the directory that records it.

A run directory, under ``$G2LSTM_RUNS`` (default ``runs``)::

    language-model/<corpus>/<preset>/<gate and its settings>/seed-<n>/
        config.json          everything that determines the run, with its fingerprint
        metrics.jsonl        a line an epoch
        summary.json         what the finished run measured; its presence says the run is done
        model.safetensors    the weights that were best on the validation text
        state/               what is needed to go on after a kill
        provenance.json      commit, versions, hardware, command, time of the start, data

A run whose settings, code or data have changed since is started anew.
"""

import fcntl
import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from g2lstm.corpora import Corpus, load_corpus
from g2lstm.evaluation import batchify, evaluate, evaluate_with_cache, unigram_perplexity
from g2lstm.experiments import Configuration, build_model, command, run_directory
from g2lstm.files import write_json
from g2lstm.gates import TemperatureSchedule
from g2lstm.inspection import gate_histogram, record_gates, saturation
from g2lstm.language_model import LanguageModel
from g2lstm.provenance import code_checksum, provenance
from g2lstm.records import RECORDS, Run, RunError, read_run
from g2lstm.training import load_best, train

# Modules whose source decides the outcome of a run: a change of one starts a run anew.
TRAINING_MODULES = (
    "gates", "recurrence", "lstm", "inspection", "language_model", "corpora", "evaluation",
    "options", "training", "runs",
)  # fmt: skip
GATE_STRANDS = 20  # strands of text on which gates are recorded, 71 tokens of each


@dataclass(frozen=True)
class Experiment:
    """A run made ready: configuration, corpus, initialised model and run directory."""

    configuration: Configuration
    corpus: Corpus
    model: LanguageModel
    directory: Path
    fingerprint: str


def prepare(configuration: Configuration, device: str | None = None) -> Experiment:
    """Load the corpus and initialise the model from the seed.

    Args:
        configuration: made by `configure`.
        device: "cpu" or "cuda"; default: the GPU if there is one.

    Raises:
        CorpusError: the corpus cannot be loaded.
        RunError: a split is too short to be measured.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(configuration.threads)
    # Vanishing probabilities and gradients would be denormal numbers, which are ten times slower.
    torch.set_flush_denormal(True)
    corpus = load_corpus(configuration.corpus)
    needed = 2 * max(GATE_STRANDS, configuration.training.eval_batch_size)
    for split in ("valid", "test"):
        if len(getattr(corpus, split)) < needed:
            raise RunError(
                f"the {split} text of {corpus.name} has {len(getattr(corpus, split))} tokens; "
                f"at least {needed} are needed: use a longer text"
            )
    torch.manual_seed(configuration.seed)
    model = build_model(configuration, len(corpus.vocabulary), device)
    determinants = {
        "configuration": asdict(configuration),
        "code": code_checksum(TRAINING_MODULES),
        "data": corpus.checksums,
        "entropy_floor": corpus.entropy_floor,
        "torch": torch.__version__,
        "device": device,
    }
    text = json.dumps(determinants, sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return Experiment(configuration, corpus, model, run_directory(configuration), fingerprint)


def train_or_load(experiment: Experiment, progress_bar: bool = True) -> Run:
    """Finish the run: load it if it is done, go on if it was begun, start it otherwise.

    ``experiment.model`` ends with the weights that were best on the validation text.

    Raises:
        RunError: another process is at work on this run.
        TrainingDivergedError, CheckpointError: see `training.train`.
    """
    configuration, directory = experiment.configuration, experiment.directory
    with _locked(directory):
        _make_ready(experiment)
        # The published records of a run come without weights; then it is trained again.
        if all((directory / name).exists() for name in ("summary.json", "model.safetensors")):
            print("this run is done: its weights and records are loaded")
            load_best(directory / "model.safetensors", experiment.model)
            return read_run(directory)
        started = time.perf_counter()
        resumed = (directory / "state").exists()
        if resumed:
            print("this run was begun before: it goes on after its last finished epoch")
        history = train(
            experiment.model,
            experiment.corpus.train,
            experiment.corpus.valid,
            configuration.training,
            directory,
            seed=configuration.seed,
            schedule=_schedule(configuration),
            probe=lambda model: _saturations(model, experiment.corpus.valid),
            progress_bar=progress_bar,
        )
        summary = _summarise(experiment, history)
        record = json.loads((directory / "provenance.json").read_text(encoding="utf-8"))
        record["training_seconds"] = sum(row["seconds"] for row in history)
        # Of the whole run, evaluations included; unknown for a run made in several sittings.
        record["seconds"] = None if resumed else time.perf_counter() - started
        record["resumed"] = resumed
        write_json(directory / "provenance.json", record)
        write_json(directory / "summary.json", summary)
    return read_run(directory)


def _make_ready(experiment: Experiment) -> None:
    """Clear the run directory of an outdated run and of half-written files; record the start."""
    configuration, directory = experiment.configuration, experiment.directory
    for part in directory.rglob("*.part"):  # left by a kill
        part.unlink()
    old = _config(directory)
    if old.get("corpus", configuration.corpus) != configuration.corpus:
        raise RunError(
            f"{directory} holds a run on the corpus {old['corpus']}, not on "
            f"{configuration.corpus}: rename one of the folders, or set G2LSTM_RUNS to another one"
        )
    if old.get("fingerprint") == experiment.fingerprint:
        if any((directory / name).exists() for name in ("state", "model.safetensors")):
            return
    elif old:
        print(f"{directory}: settings, code or data have changed; the run starts anew")
    for name in (*RECORDS, "model.safetensors"):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / "state", ignore_errors=True)
    local = not experiment.corpus.source.startswith("hub:")
    source = "local files" if local else experiment.corpus.source
    data = {"source": source, "sha256": experiment.corpus.checksums}
    record = provenance(command(configuration), seed=configuration.seed, data=data)
    write_json(directory / "provenance.json", record)
    config = asdict(configuration) | {"fingerprint": experiment.fingerprint}
    write_json(directory / "config.json", config)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"another process is at work on {directory}; wait for it") from error
        yield


def _config(directory: Path) -> dict[str, Any]:
    try:
        return json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _schedule(configuration: Configuration) -> TemperatureSchedule | None:
    if configuration.schedule == "constant":
        return None
    return TemperatureSchedule(
        configuration.schedule,
        configuration.temperature,
        configuration.temperature_end,
        steps=configuration.training.epochs,
    )


def _summarise(experiment: Experiment, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Measure the finished model on the test text; see the notebook for what each entry means."""
    model, corpus = experiment.model, experiment.corpus
    test = evaluate(model, corpus.test)
    valid = evaluate(model, corpus.valid)
    # As much training text as there is test text, without dropout or noise.
    seen = evaluate(model, corpus.train[: len(corpus.test)])
    best = min(history, key=lambda row: row["valid_loss"])
    summary = {
        "test_loss": test.loss,
        "test_perplexity": test.perplexity,
        "valid_perplexity": valid.perplexity,
        "train_perplexity": seen.perplexity,
        "unigram_perplexity": unigram_perplexity(corpus.train, corpus.test, len(corpus.vocabulary)),
        "entropy_floor": corpus.entropy_floor,
        "floor_perplexity": None
        if corpus.entropy_floor is None
        else math.exp(corpus.entropy_floor),
        "best_epoch": best["epoch"],
        "epochs": len(history),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "protocol": "one strand, state carried over the whole text, every token but the first",
        "gates": {
            mode: _gate_statistics(model, corpus.test, training=mode == "training")
            for mode in ("evaluation", "training")
        },
    }
    if experiment.configuration.cache_pointer:
        summary["test_perplexity_with_cache"] = evaluate_with_cache(model, corpus.test).perplexity
    return summary


@torch.no_grad()
def _recorded(model: LanguageModel, tokens: torch.Tensor, training: bool) -> dict[str, Any]:
    """Input and forget gates [all values] of every layer on the first 1,400 tokens, or so."""
    strands = batchify(tokens[: 71 * GATE_STRANDS], GATE_STRANDS).to(model.embedding.weight.device)
    mode = model.training
    model.train(training)
    with torch.random.fork_rng(), record_gates(model) as records:
        torch.manual_seed(0)
        model(strands)
    model.train(mode)
    return {
        kind: torch.cat([getattr(record, f"{kind}_gate").flatten() for record in records])
        for kind in ("input", "forget")
    }


def _gate_statistics(model: LanguageModel, tokens: torch.Tensor, training: bool) -> dict[str, Any]:
    return {
        kind: {
            "histogram": [float(share) for share in gate_histogram(values)],
            "saturation": float(saturation(values)),
            "mean": float(values.mean()),
        }
        for kind, values in _recorded(model, tokens, training).items()
    }


def _saturations(model: LanguageModel, tokens: torch.Tensor) -> dict[str, float]:
    gates = _recorded(model, tokens, training=False)
    return {f"{kind}_gate_saturation": float(saturation(v)) for kind, v in gates.items()}
