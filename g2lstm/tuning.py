"""Trials: runs that are judged on the validation text alone, and end before their test.

In tuning every gate is tried with the same settings, a preset's ``candidates``. Exploration asks
what another setting would change. A trial in the preset's own settings is the run that is later
tested where it lies. Records are published in ``results/<preset>/tuning`` and ``exploration``,
``<task>/<corpus>/<preset>/<gate and its settings>/seed-<n>`` each.
"""

import fcntl
import functools
import operator
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from g2lstm.experiments import (
    Configuration,
    arguments_of,
    command,
    configure,
    corpus_label,
    model_defaults,
    results_directory,
    run_directory,
)
from g2lstm.files import write_json, write_text
from g2lstm.gates import GATES
from g2lstm.parameters import ParameterError
from g2lstm.plots import GATE_LABELS, save_table
from g2lstm.presets import PRESETS
from g2lstm.records import (
    CONFIG,
    METRICS,
    PROVENANCE,
    SUMMARY,
    Run,
    RunError,
    read_record,
    read_run,
)
from g2lstm.results import results_provenance, run_label
from g2lstm.runs import prepare, train_untested
from g2lstm.training import TrainingDivergedError

# Folders in the results of a preset; the names of their tables end so.
TUNING, EXPLORATION = "tuning", "exploration"


def tune(
    task: str = "language-model",
    preset: str = "small",
    corpus: str | None = None,
    languages: str | None = None,
    gates: Sequence[str] = GATES,
    seed: int = 1,
    progress_bar: bool = True,
) -> pd.DataFrame:
    """Train each gate with each candidate of the preset, and save records and table.

    Started again it goes on where it was stopped.

    Args:
        task, preset, corpus, languages: see `configure`.
        gates: those to train; the table shows the others too as far as they are there.
        seed: of every run.
        progress_bar: show one for each run.

    Returns:
        What `tuning_table` makes of all that there is.

    Raises:
        ParameterError: the preset has no candidates, no gates, or see `configure`.
        CorpusError: the corpus cannot be loaded.
        RunError, CheckpointError: see `runs.train_untested`.
    """
    about = {"task": task, "preset": preset, "corpus": corpus, "languages": languages}
    example = configure(**about)
    candidates = PRESETS[task][preset].candidates
    if not candidates:
        known = [name for name, other in PRESETS[task].items() if other.candidates]
        raise ParameterError(
            f"preset {preset!r} has no candidates to tune with; those that do: {', '.join(known)}"
        )
    if not gates:
        raise ParameterError(f"gates must name one at least of {', '.join(GATES)}, got {gates!r}")
    wanted = [
        configure(**about, gate=gate, seed=seed, overrides=settings)
        for gate in gates
        for settings in candidates
    ]
    for number, configuration in enumerate(wanted, start=1):
        tqdm.write(f"{number} of {len(wanted)}: {run_directory(configuration)}")
        try:
            _train(configuration, TUNING, progress_bar)
        except TrainingDivergedError as error:
            tqdm.write(f"it is not in the table, for it diverged: {error}")
    return save_trials(example, TUNING)


def explore(configuration: Configuration, progress_bar: bool = True) -> pd.DataFrame:
    """Train one run up to its test, and save its records and the table of all such runs.

    Returns:
        What `exploration_table` makes of all that there is.

    Raises:
        ParameterError: the run is one of several processes.
        CorpusError: the corpus cannot be loaded.
        RunError, TrainingDivergedError, CheckpointError: see `runs.train_untested`.
    """
    return _train(configuration, EXPLORATION, progress_bar)


def _train(configuration: Configuration, kind: str, progress_bar: bool) -> pd.DataFrame:
    if configuration.processes > 1:
        raise ParameterError(
            f"processes={configuration.processes}: a trial is trained by one process; "
            "set processes to 1"
        )
    experiment = prepare(configuration)
    directory = experiment.directory
    if not (directory / SUMMARY).exists():
        train_untested(experiment, progress_bar)
    elif read_run(directory).config["fingerprint"] != experiment.fingerprint:
        # Training would clear away what was tested.
        raise RunError(
            f"{directory} holds a finished run of other code, data or settings: move it away, or "
            "set G2LSTM_RUNS to another folder"
        )
    copy_trial(directory, results_directory(configuration.preset), kind)
    return save_trials(configuration, kind)


def copy_trial(directory: Path, results: Path, kind: str) -> None:
    """Copy the records of a trained run to ``results``/<kind>; none is of a test.

    The provenance names the command that makes the trial, which tests nothing.
    """
    target = results / kind / Path(*directory.absolute().parts[-5:])
    record, config = read_record(directory / PROVENANCE), read_record(directory / CONFIG)
    record["command"] = command(configure(**arguments_of(config)), untested=True)
    with _alone(results):
        (target / CONFIG).unlink(missing_ok=True)  # a trial is there when its config is
        write_text(target / METRICS, (directory / METRICS).read_text(encoding="utf-8"))
        write_json(target / PROVENANCE, record)
        write_text(target / CONFIG, (directory / CONFIG).read_text(encoding="utf-8"))


@contextmanager
def _alone(results: Path) -> Iterator[None]:
    """Other processes that tune at the same time wait: they share the records and the table."""
    results.mkdir(parents=True, exist_ok=True)
    folder = os.open(results, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def read_trials(results: Path, kind: str, task: str, corpus: str) -> list[Run]:
    """The published trials of a kind, task and corpus (its label), by gate and settings.

    Raises:
        RunError: a record is missing or damaged.
    """
    found = (results / kind / task / corpus).glob(f"*/*/*/{CONFIG}")
    trials = [read_run(path.parent, tested=False) for path in sorted(found)]
    return sorted(trials, key=lambda trial: GATES.index(trial.config["gate"]))


def save_trials(example: Configuration, kind: str) -> pd.DataFrame:
    """Write the table of the published trials of the example's task and corpus; return it.

    Raises:
        RunError: there are none.
    """
    results, label = results_directory(example.preset), corpus_label(example)
    with _alone(results):
        trials = read_trials(results, kind, example.task, label)
        if not trials:
            raise RunError(f"no trial of {example.task} on {label} has ended: see above")
        frame = TABLES[kind](trials)
        about = {"task": example.task, "preset": example.preset, "corpus": example.corpus}
        about |= {"languages": example.languages} if example.languages else {}
        options = [f"--{name} {shlex.quote(value)}" for name, value in about.items()]
        what = "tune" if kind == TUNING else "train --untested"
        # Of the table as a whole; each trial's own command stands beside it.
        record = results_provenance(trials, " ".join(["g2lstm", what, *options]))
        name = f"{example.task.replace('-', '_')}_{label}_{kind}"
        save_table(frame, results / "tables" / name, record)
    return frame


def tuning_table(trials: Sequence[Run]) -> pd.DataFrame:
    """A row a trial: the settings that differ, and how well it did on the validation text.

    Returns:
        Columns model, a column a setting, seed, perplexity on the validation text at the best epoch
        and on the training text (dropout and noise included) at the same, that epoch, for
        translations the greedy BLEU of the validation text, and ``chosen``: "yes" at the settings
        of each gate with the best perplexity, mean over seeds.
    """
    settings = [_settings(trial) for trial in trials]
    names = dict.fromkeys(name for values in settings for name in values)
    varied = [name for name in names if len({str(values[name]) for values in settings}) > 1]
    frame = pd.DataFrame(
        {"model": GATE_LABELS[trial.config["gate"]]}
        | {name: str(values[name]) for name in varied}
        | {"seed": trial.config["seed"]}
        | _measured(trial)
        for trial, values in zip(trials, settings, strict=True)
    )
    over_seeds = frame.groupby(["model", *varied])["validation perplexity"].transform("mean")
    best = over_seeds.groupby(frame["model"]).transform("min")
    frame["chosen"] = (over_seeds == best).map({True: "yes", False: ""})
    return frame


def exploration_table(trials: Sequence[Run]) -> pd.DataFrame:
    """A row a trial: the model, with what departs from the preset, and how well it did.

    Further columns: the shares of gate values near 0 or 1 on the validation text.
    """
    return pd.DataFrame(
        {"model": run_label(trial), "seed": trial.config["seed"]}
        | _measured(trial)
        | {
            f"{kind} gate saturation": _best(trial)[f"{kind}_gate_saturation"]
            for kind in ("input", "forget")
        }
        for trial in trials
    )


TABLES = {TUNING: tuning_table, EXPLORATION: exploration_table}


def _best(trial: Run) -> dict[str, Any]:
    return min(trial.metrics, key=lambda row: row["valid_loss"])


def _measured(trial: Run) -> dict[str, Any]:
    best = _best(trial)
    found = {
        "validation perplexity": best["valid_perplexity"],
        "training perplexity": best["train_perplexity"],
        "best epoch": best["epoch"],
    }
    if "valid_bleu_greedy" in best:
        found["validation BLEU, greedy"] = best["valid_bleu_greedy"]
    return found


def _settings(trial: Run) -> dict[str, Any]:
    """All settings of the run but the gate's own, by name."""
    parts = (trial.config[part] for part in ("training", "model", "data", "evaluation"))
    return functools.reduce(operator.or_, parts, model_defaults(trial.config["task"]))
