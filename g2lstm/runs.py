"""Runs of an experiment: one model trained with one seed, and the directory that records it.

A run directory, under ``$G2LSTM_RUNS`` (default ``runs``)::

    language-model/<corpus>/<preset>/<gate and its settings>/seed-<n>/
        config.json          everything that determines the run, with its fingerprint
        metrics.jsonl        a line an epoch
        summary.json         what the finished run measured; its presence says the run is done
        model.safetensors    the weights that were best on the validation text
        state/               what is needed to go on after a kill
        provenance.json      commit, versions, hardware, command, time, data

A run whose settings, code or data have changed since is started anew.
"""

import fcntl
import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from g2lstm.checkpoint import load_checkpoint
from g2lstm.corpora import Corpus, load_corpus
from g2lstm.evaluation import batchify, evaluate, evaluate_with_cache, unigram_perplexity
from g2lstm.experiments import Configuration, build_model, command, configure, run_directory
from g2lstm.files import write_json, write_text
from g2lstm.gates import GATES, TemperatureSchedule
from g2lstm.inspection import gate_histogram, record_gates, saturation
from g2lstm.language_model import LanguageModel
from g2lstm.provenance import code_checksum, provenance
from g2lstm.training import train

# Modules whose source decides the outcome of a run: a change of one starts a run anew.
TRAINING_MODULES = (
    "gates", "recurrence", "lstm", "language_model", "corpora", "training", "evaluation",
)  # fmt: skip
RECORDS = ("config.json", "metrics.jsonl", "summary.json", "provenance.json")


class RunError(RuntimeError):
    """A run is missing, damaged, or already under way."""


@dataclass(frozen=True)
class Experiment:
    """A run made ready: configuration, corpus, initialised model and run directory."""

    configuration: Configuration
    corpus: Corpus
    model: LanguageModel
    directory: Path
    fingerprint: str


@dataclass(frozen=True)
class Run:
    """A finished run as its directory records it."""

    directory: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]
    provenance: dict[str, Any]


def prepare(configuration: Configuration, device: str | None = None) -> Experiment:
    """Load the corpus and initialise the model from the seed.

    Args:
        configuration: made by `configure`.
        device: "cpu" or "cuda"; default: the GPU if there is one.

    Raises:
        CorpusError: the corpus cannot be loaded.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(configuration.threads)
    # Vanishing probabilities and gradients would be denormal numbers, which are ten times slower.
    torch.set_flush_denormal(True)
    corpus = load_corpus(configuration.corpus)
    torch.manual_seed(configuration.seed)
    model = build_model(configuration, len(corpus.vocabulary), device)
    determinants = {
        "configuration": asdict(configuration),
        "code": code_checksum(TRAINING_MODULES),
        "data": corpus.checksums,
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
        if _fingerprint(directory) != experiment.fingerprint:
            if (directory / "config.json").exists():
                print(f"{directory}: settings, code or data have changed; the run starts anew")
            for name in (*RECORDS, "model.safetensors"):
                (directory / name).unlink(missing_ok=True)
            shutil.rmtree(directory / "state", ignore_errors=True)
            config = asdict(configuration) | {"fingerprint": experiment.fingerprint}
            write_json(directory / "config.json", config)
        if not (directory / "summary.json").exists():
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
            details = {
                "seed": configuration.seed,
                "data": {"source": experiment.corpus.source, **experiment.corpus.checksums},
                "training_seconds": sum(row["seconds"] for row in history),
            }
            record = provenance(command(configuration), **details)
            write_json(directory / "provenance.json", record)
            write_json(directory / "summary.json", summary)
        else:
            load_checkpoint(directory / "model.safetensors", experiment.model)
    return read_run(directory)


def read_run(directory: Path | str) -> Run:
    """Read the records of a finished run.

    Raises:
        RunError: the run is not finished, or a record is missing or damaged.
    """
    directory = Path(directory)
    try:
        config, summary, record = (
            json.loads((directory / name).read_text(encoding="utf-8"))
            for name in ("config.json", "summary.json", "provenance.json")
        )
        lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return Run(directory, config, summary, [json.loads(line) for line in lines], record)
    except (OSError, ValueError) as error:
        raise RunError(f"{directory} holds no finished run: {error}") from error


def find_runs(
    preset: str, corpus: str | None = None, seeds: Iterable[int] | None = None
) -> list[Run]:
    """All finished runs of a preset and corpus, by gate (in the paper's order), settings and seed.

    Args:
        preset: see `configure`.
        corpus: default: the preset's.
        seeds: default: all there are.

    Raises:
        RunError: there is none, or a seed asked for is missing for a gate; says how to make it.
    """
    example = configure(preset=preset, corpus=corpus)
    folder = run_directory(example).parents[1]
    runs = [read_run(path.parent) for path in folder.glob("*/seed-*/summary.json")]
    if seeds is not None:
        wanted = set(seeds)
        runs = [run for run in runs if run.config["seed"] in wanted]
        for gate in GATES:
            there = {run.config["seed"] for run in runs if run.config["gate"] == gate}
            for seed in sorted(wanted - there):
                missing = configure(preset=preset, corpus=corpus, gate=gate, seed=seed)
                raise RunError(
                    f"no finished run of gate {gate!r} with seed {seed} in {folder}; "
                    f"make it with: {command(missing)}"
                )
    if not runs:
        raise RunError(f"no finished run in {folder}; make one with: {command(example)}")
    return sorted(
        runs,
        key=lambda run: (
            GATES.index(run.config["gate"]), run.directory.parent.name, run.config["seed"]
        ),
    )  # fmt: skip


def copy_records(runs: Iterable[Run], results: Path) -> None:
    """Copy the records of ``runs`` (not the weights) to ``results``/runs, for publication."""
    for run in runs:
        target = results / "runs" / Path(*run.directory.resolve().parts[-5:])
        for name in RECORDS:
            write_text(target / name, (run.directory / name).read_text(encoding="utf-8"))


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"another process is at work on {directory}; wait for it") from error
        yield


def _fingerprint(directory: Path) -> str | None:
    try:
        return json.loads((directory / "config.json").read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError):
        return None


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
    strands = batchify(tokens[:1420], 20).to(model.embedding.weight.device)
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
