"""Runs of an experiment: one model trained with one seed, and the directory that records it.

A run directory, under ``$G2LSTM_RUNS`` (default ``runs``)::

    <task>/<corpus>/<preset>/<gate and its settings>/seed-<n>/
        config.json           everything that determines the run, with its fingerprint
        metrics.jsonl         a line an epoch
        summary.json          what the finished run measured; its presence says the run is done
        model.safetensors     the weights that were best on the validation text
        state/                what is needed to go on after a kill
        provenance.json       commit, versions, hardware, command, time of the start, data
        bleu_statistics.json  of a translation: what BLEU needs to know of each test sentence
        translations.json     of a translation: the translated test sentences
        *_subwords.json       of a translation: the vocabularies that its weights belong to

Each file says which run it belongs to, see `identity`. A run whose settings, code or data have
changed since is started anew; what it was is kept beside it, as ``seed-<n>.replaced-<date>-<n>``.
"""

import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import Timeout
from torch import nn

from g2lstm.checkpoint import read_progress
from g2lstm.data_parallel import computed_by_first, rank, world_size
from g2lstm.experiments import Configuration, command, run_directory
from g2lstm.files import WriteError, locked, remove
from g2lstm.gates import TemperatureSchedule
from g2lstm.identity import write_record
from g2lstm.language_model_task import LanguageModelTask
from g2lstm.memory import ResourceError, check_memory, parameter_bytes
from g2lstm.provenance import code_checksum, provenance
from g2lstm.records import (
    CONFIG,
    LOCK,
    METRICS,
    PROVENANCE,
    RECORDS,
    SUMMARY,
    TRANSLATION_RECORDS,
    WEIGHTS,
    Run,
    RunError,
    keep_aside,
    read_record,
    read_run,
)
from g2lstm.training import CHECKPOINT, Objective, load_best, train
from g2lstm.translation_task import TranslationTask


class Task(Protocol):
    """One of the experiments, made ready for a configuration.

    Attributes:
        corpus: the data.
        source: where it came from: a folder, or "hub: ..." and a repository.
        checksums: of its files.
        unseen: how many tokens of each split the training text lacks.
        determinants: what else decides the outcome of a run (JSON values).
        modules: those of the package whose source decides the outcome.
        model: initialised from the configuration's seed.
        objective: what it is trained for.
    """

    corpus: Any
    source: str
    checksums: dict[str, str]
    unseen: dict[str, int]
    determinants: dict[str, Any]
    modules: tuple[str, ...]
    model: nn.Module
    objective: Objective

    def probe(self) -> dict[str, float]:
        """Measurements of the model that join the metrics after each epoch."""

    def summarise(self, directory: Path) -> dict[str, Any]:
        """Final measurements of the model; further records may be written to ``directory``."""


TASKS = {"language-model": LanguageModelTask, "translation": TranslationTask}
THREADS_A_PROCESSOR = 8  # at most; more only take time from each other


@dataclass(frozen=True)
class Experiment:
    """A run made ready: configuration, task with data and model, run directory."""

    configuration: Configuration
    task: Task
    directory: Path
    fingerprint: str

    @property
    def corpus(self) -> Any:
        """The task's corpus."""
        return self.task.corpus

    @property
    def model(self) -> nn.Module:
        """The task's model."""
        return self.task.model


def prepare(configuration: Configuration, device: str | None = None) -> Experiment:
    """Load the corpus and initialise the model from the seed.

    Args:
        configuration: made by `configure`.
        device: "cpu" or "cuda"; default: the GPU if there is one.

    Raises:
        CorpusError: the corpus cannot be loaded.
        RunError: a split is too short for a batch, or to be measured.
        ResourceError: the model does not fit into memory, or there are far more threads than
            processors.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    processors = os.cpu_count() or 1
    if configuration.threads > THREADS_A_PROCESSOR * processors:
        raise ResourceError(
            f"threads={configuration.threads} on a machine of {processors} processors: set threads "
            f"to at most {THREADS_A_PROCESSOR * processors}, {THREADS_A_PROCESSOR} a processor"
        )
    torch.set_num_threads(configuration.threads)
    # Vanishing probabilities and gradients would be denormal numbers, which are ten times slower.
    torch.set_flush_denormal(True)
    try:
        task = TASKS[configuration.task](configuration, device)
    except ValueError as error:
        raise RunError(f"the corpus {configuration.corpus} cannot be used: {error}") from error
    determinants = {
        "configuration": asdict(configuration),
        "code": code_checksum((*task.modules, "runs")),
        "data": task.checksums,
        "torch": torch.__version__,
        "device": device,
        **task.determinants,
    }
    text = json.dumps(determinants, sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return Experiment(configuration, task, run_directory(configuration), fingerprint)


def train_or_load(experiment: Experiment, progress_bar: bool = True) -> Run:
    """Finish the run: load it if it is done, go on if it was begun, start it otherwise.

    ``experiment.model`` ends with the weights that were best on the validation text.

    Raises:
        RunError: another process is at work on this run, or it is to be trained by another number
            of processes.
        TrainingDivergedError, CheckpointError: see `training.train`.
    """
    configuration, directory = experiment.configuration, experiment.directory
    if rank() > 0:
        raise RunError("only the first of several processes records a run; this one may `follow`")
    with _locked(directory):
        # The published records of a run come without weights; then it is trained again.
        done = _config(directory).get("fingerprint") == experiment.fingerprint and all(
            (directory / name).exists() for name in _files(configuration)
        )
        if not done and world_size() != configuration.processes:
            raise RunError(
                f"this run is trained by {configuration.processes} processes, here is "
                f"{world_size()}: start {command(configuration)} first, or set "
                f"overrides={{'processes': {world_size()}}}"
            )
        _make_ready(experiment)
        computed_by_first(lambda: float(done), experiment.model)  # `follow` waits for it
        if done:
            print("this run is done: its weights and records are loaded")
            run = read_run(directory)
            load_best(directory / WEIGHTS, experiment.model)
            return run
        remove(directory / SUMMARY)  # it would say that the others are what they were
        started = time.perf_counter()
        resumed = (directory / CHECKPOINT).exists()
        if resumed:
            print("this run was begun before: it goes on after its last finished epoch")
        history = _train(experiment, directory, progress_bar, experiment.task.probe)
        summary = experiment.task.summarise(directory) | _about(experiment, history)
        record = read_record(directory / PROVENANCE)
        record["training_seconds"] = sum(row["seconds"] for row in history)
        # Of the whole run, evaluations included; unknown for a run made in several sittings.
        record["seconds"] = None if resumed else time.perf_counter() - started
        record["resumed"] = resumed
        write_record(directory / PROVENANCE, record)
        others = [directory / name for name in _files(configuration) if name != SUMMARY]
        write_record(directory / SUMMARY, summary, files=others)
    return read_run(directory)


def follow(experiment: Experiment) -> None:
    """Train along with the first of several processes, which is in `train_or_load`.

    Keeps its own copies of the checkpoint in a temporary folder; records nothing.
    """
    if computed_by_first(lambda: 0.0, experiment.model):
        return  # the run is done
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        (Path(folder) / "state").mkdir()
        # Absent at the start of a run. The first process cannot go on from it by itself.
        with suppress(FileNotFoundError):
            for name in (CONFIG, CHECKPOINT, WEIGHTS):
                shutil.copy(experiment.directory / name, Path(folder) / name)
        _train(experiment, Path(folder), progress_bar=False)


def train_untested(experiment: Experiment, progress_bar: bool = True) -> list[dict[str, Any]]:
    """Train as `train_or_load` does, and go on likewise, but measure nothing on the test text.

    Returns:
        The metrics of each epoch.

    Raises:
        RunError, TrainingDivergedError, CheckpointError: see `train_or_load`.
    """
    with _locked(experiment.directory):
        _make_ready(experiment)
        return _train(experiment, experiment.directory, progress_bar, experiment.task.probe)


def _train(
    experiment: Experiment,
    directory: Path,
    progress_bar: bool,
    probe: Callable[[], dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    configuration, objective = experiment.configuration, experiment.task.objective
    options = configuration.training
    # Weights are there; gradients, the optimiser's state and the last layer's output come.
    states = 0 if options.optimizer == "sgd" else 2
    tokens = min(objective.epoch_tokens, options.step_tokens) // configuration.processes
    words = getattr(experiment.model, "cutoff", 0) or round(math.exp(objective.guessing))
    device = next(experiment.model.parameters()).device
    needed = (1 + states) * parameter_bytes(experiment.model) + 4 * tokens * words
    check_memory(needed, f"training, with steps of {tokens:,} tokens,", device)
    return train(
        experiment.model,
        objective,
        options,
        directory,
        seed=configuration.seed,
        schedule=_schedule(configuration),
        probe=probe and (lambda model: probe()),
        progress_bar=progress_bar,
    )


def _make_ready(experiment: Experiment) -> None:
    """Clear the run directory of an outdated run and of half-written files; record the start."""
    configuration, directory = experiment.configuration, experiment.directory
    # Left by a kill; those of measurements may be another process's, at work now.
    for part in (*directory.glob("*.part"), *directory.glob("state/*.part")):
        part.unlink()
    old = _config(directory)
    if old.get("corpus", configuration.corpus) != configuration.corpus:
        raise RunError(
            f"{directory} holds a run on the corpus {old['corpus']}, not on "
            f"{configuration.corpus}: rename one of the folders, or set G2LSTM_RUNS to another one"
        )
    same = old.get("fingerprint") == experiment.fingerprint
    weights = directory / WEIGHTS
    # After the first epoch there are weights: without them the state is of no use.
    kept = weights.exists() or (
        (directory / "state").exists() and not (directory / METRICS).exists()
    )
    if same and kept:
        # What is damaged is found out now, not after the training.
        if weights.exists():
            read_progress(weights, "temperature")
        if (directory / PROVENANCE).exists():
            read_record(directory / PROVENANCE)
            return
    else:
        why = "its config.json or weights are missing"
        if old and not same:
            why = "settings, code or data have changed"
        if not same and (weights.exists() or (directory / SUMMARY).exists()):
            kept = keep_aside(directory)
            print(f"{directory}: {why}; the run starts anew, and {kept} holds what it was")
        elif (old and not same) or (directory / "state").exists():
            print(f"{directory}: {why}; the run starts anew")
        for name in (*RECORDS, *TRANSLATION_RECORDS, WEIGHTS, "state"):
            remove(directory / name)
    source = experiment.task.source
    source = source if source.startswith("hub:") else "local files"
    data = {
        "source": source,
        "sha256": experiment.task.checksums,
        "unseen": experiment.task.unseen,
    }
    record = provenance(command(configuration), seed=configuration.seed, data=data)
    place = "/".join(run_directory(configuration).absolute().parts[-5:])
    run = {"run": place, "fingerprint": experiment.fingerprint}
    write_record(directory / PROVENANCE, record, run)
    config = asdict(configuration) | {"fingerprint": experiment.fingerprint}
    write_record(directory / CONFIG, config, run)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(directory / LOCK))
        except Timeout as error:
            raise RunError(f"another process is at work on {directory}; wait for it") from error
        except WriteError:
            raise
        except OSError as error:
            raise RunError(
                f"cannot write to {directory}: {error.strerror}; make it writable, or set "
                "G2LSTM_RUNS to a folder that is"
            ) from error
        yield


def _files(configuration: Configuration) -> tuple[str, ...]:
    """What a finished run leaves, weights included."""
    further = TRANSLATION_RECORDS if configuration.task == "translation" else ()
    return (*RECORDS, *further, WEIGHTS)


def _config(directory: Path) -> dict[str, Any]:
    # Damaged it is no reason to delete a run that may be whole.
    path = directory / CONFIG
    return read_record(path) if path.exists() else {}


def _schedule(configuration: Configuration) -> TemperatureSchedule | None:
    if configuration.schedule == "constant":
        return None
    return TemperatureSchedule(
        configuration.schedule,
        configuration.temperature,
        configuration.temperature_end,
        steps=configuration.training.epochs,
    )


def _about(experiment: Experiment, history: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "best_epoch": min(history, key=lambda row: row["valid_loss"])["epoch"],
        "epochs": len(history),
        "parameters": sum(parameter.numel() for parameter in experiment.model.parameters()),
    }
