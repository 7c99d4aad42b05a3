"""Trials: runs that were trained up to their test, and judged on the validation text alone.

Their records are published in ``results/<preset>/tuning`` and ``exploration``,
``<task>/<corpus>/<preset>/<gate and its settings>/seed-<n>`` each, with a table a kind; `tuning`
makes them. In ``tuning`` the settings are those of the candidate, all of them: what the preset has
itself is chosen by these records.
"""

import fcntl
import functools
import operator
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from g2lstm.experiments import (
    Configuration,
    ParameterError,
    arguments_of,
    changed_settings,
    command,
    configure,
    corpus_label,
    model_defaults,
    results_directory,
    run_directory,
)
from g2lstm.files import write_json, write_text
from g2lstm.gates import GATES
from g2lstm.plots import GATE_LABELS, save_table
from g2lstm.presets import PRESETS
from g2lstm.records import CONFIG, METRICS, PROVENANCE, Run, RunError, read_record, read_run
from g2lstm.results import results_provenance, run_label

# Folders in the results of a preset; the names of their tables end so.
TUNING, EXPLORATION = "tuning", "exploration"


def trial_place(config: dict[str, Any], kind: str) -> Path:
    """Where the records of a trial belong, in ``results``/<kind>.

    Args:
        config: of the run.
        kind: `TUNING` or `EXPLORATION`.

    Raises:
        ParameterError: the settings are no candidate's, or no longer the preset's.
    """
    arguments = arguments_of(config)
    if kind == EXPLORATION:
        if changed := changed_settings(config):
            raise ParameterError(f"made with another preset: {', '.join(changed)}")
        return _place(configure(**arguments))
    for candidate in PRESETS[config["task"]][config["preset"]].candidates:
        if not changed_settings(config | {"overrides": candidate}):
            return _place(replace(configure(**arguments), overrides=candidate))
    raise ParameterError(f"the settings are of no candidate of the preset {config['preset']!r}")


def _place(configuration: Configuration) -> Path:
    return Path(*run_directory(configuration).absolute().parts[-5:])


def copy_trial(directory: Path, results: Path, kind: str) -> None:
    """Copy the records of a trained run to ``results``/<kind>; none is of a test.

    The provenance names the command that makes the trial, which tests nothing.

    Raises:
        ParameterError: see `trial_place`.
    """
    record, config = read_record(directory / PROVENANCE), read_record(directory / CONFIG)
    configuration = configure(**arguments_of(config))
    target = results / kind / trial_place(config, kind)
    record["command"] = (
        f"{trials_command(configuration, TUNING)} --gate {configuration.gate} "
        f"--seed {configuration.seed}"
        if kind == TUNING
        else command(configuration, untested=True)
    )
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
        # Of the table as a whole; each trial's own command stands beside it.
        record = results_provenance(trials, trials_command(example, kind))
        name = f"{example.task.replace('-', '_')}_{label}_{kind}"
        save_table(frame, results / "tables" / name, record)
    return frame


def trials_command(example: Configuration, kind: str) -> str:
    """The command that makes all trials of a kind, or, of explorations, one."""
    about = {"task": example.task, "preset": example.preset, "corpus": example.corpus}
    about |= {"languages": example.languages} if example.languages else {}
    options = [f"--{name} {shlex.quote(value)}" for name, value in about.items()]
    return " ".join(["g2lstm", "tune" if kind == TUNING else "train --untested", *options])


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
