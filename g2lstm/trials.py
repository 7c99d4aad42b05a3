"""Trials: runs that were trained up to their test, and judged on the validation text alone.

Their records are published in ``results/<preset>/tuning`` and ``exploration``,
``<task>/<corpus>/<preset>/<gate and its settings>/seed-<n>`` each, with a table a kind; `tuning`
makes them. In ``tuning`` the settings are those of the candidate, all of them: what the preset has
itself is chosen by these records. In ``exploration`` they are what departs from the preset of
today, whatever it was when the trial was made; the paper's compressions are measured too.
"""

import functools
import json
import math
import operator
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from g2lstm.analysis import curves_frame
from g2lstm.experiments import (
    Configuration,
    ParameterError,
    arguments_of,
    changed_settings,
    command,
    configure,
    corpus_label,
    results_directory,
    run_directory,
)
from g2lstm.files import locked, read_text, write_text
from g2lstm.gates import GATES
from g2lstm.identity import run_of, write_record
from g2lstm.plots import GATE_LABELS, save_table
from g2lstm.presets import PRESETS
from g2lstm.records import (
    CONFIG,
    MEASUREMENTS,
    METRICS,
    PROVENANCE,
    Run,
    RunError,
    read_run,
)
from g2lstm.results import results_provenance, run_label
from g2lstm.robustness import CURVES, PAPER_SETTINGS
from g2lstm.settings import model_defaults, training_defaults

# Folders in the results of a preset; the names of their tables end so.
TUNING, EXPLORATION = "tuning", "exploration"
# In the results: processes that tune at the same time share the records and the table.
LOCK = ".lock"
COMPRESSION = replace(CURVES, name="compression_on_validation")


def trial_place(config: dict[str, Any], kind: str) -> Path:
    """Where the records of a trial belong, in ``results``/<kind>.

    Args:
        config: of the run.
        kind: `TUNING` or `EXPLORATION`.

    Raises:
        ParameterError: the settings are no candidate's, or unknown today.
    """
    if kind == EXPLORATION:
        return _place(_as_of_today(config))
    for candidate in PRESETS[config["task"]][config["preset"]].candidates:
        if not changed_settings(config | {"overrides": candidate}):
            return _place(replace(configure(**arguments_of(config)), overrides=candidate))
    raise ParameterError(f"the settings are of no candidate of the preset {config['preset']!r}")


def compression_of(trial: Run) -> list[dict[str, Any]]:
    """`COMPRESSION` of a trial in the paper's four settings; as `robustness.measure_curves`.

    Raises:
        RunError, CorpusError, CheckpointError: see `Measurement.of`.
    """
    paper = PAPER_SETTINGS[trial.config["task"]]
    settings = _settings(trial.config)
    ranks = [settings[name] for name in ("svd_rank", "svd_plus_rank") if name in settings]
    low_rank = {"rank_shares": [paper["svd"], paper["svd+"]]}
    if ranks:
        low_rank = {"rank_shares": [], "ranks": ranks}
    analysis = PRESETS[trial.config["task"]][trial.config["preset"]].analysis
    return COMPRESSION.of(
        trial,
        steps=[paper["step"]],
        clips=[2 * paper["step"]],
        **low_rank,
        limit=analysis["limit"],
        sentences=analysis["sentences"],
    )


def _as_of_today(config: dict[str, Any]) -> Configuration:
    """The same settings; ``overrides`` are what departs from the preset as it is today."""
    overrides = config["overrides"] | _settings(config)
    return configure(**arguments_of(config) | {"overrides": overrides})


def _place(configuration: Configuration) -> Path:
    return Path(*run_directory(configuration).absolute().parts[-5:])


def copy_trial(directory: Path, results: Path, kind: str) -> None:
    """Copy the records of a trained run to ``results``/<kind>; none is of a test.

    The provenance names the command that makes the trial, which tests nothing.

    Raises:
        ParameterError: see `trial_place`.
        RunError, CorpusError, CheckpointError: see `compression_of`.
    """
    trial = read_run(directory, tested=False)
    record, config = trial.provenance, trial.config
    configuration = _as_of_today(config)
    target = results / kind / trial_place(config, kind)
    record["command"] = (
        f"{trials_command(configuration, TUNING)} --gate {configuration.gate} "
        f"--seed {configuration.seed}"
        if kind == TUNING
        else command(configuration, untested=True)
    )
    names = [METRICS]
    if kind == EXPLORATION:
        compression_of(trial)
        names.append(f"{MEASUREMENTS}/{COMPRESSION.name}.json")
    with locked(results / LOCK, wait=True):
        (target / CONFIG).unlink(missing_ok=True)  # a trial is there when its config is
        for name in names:
            write_text(target / name, read_text(directory / name))
        write_record(target / PROVENANCE, record, run_of(directory / CONFIG))
        write_text(target / CONFIG, read_text(directory / CONFIG))


def read_trials(results: Path, kind: str, task: str, corpus: str) -> list[Run]:
    """The published trials of a kind, task and corpus (its label), in order.

    Those of tuning by gate and settings; explorations in the same settings stand together, the
    preset's own first.

    Raises:
        RunError: a record is missing or damaged.
        ParameterError: see `trial_place`.
    """
    found = (results / kind / task / corpus).glob(f"*/*/*/{CONFIG}")
    trials = [read_trial(path.parent, kind) for path in sorted(found)]
    trials.sort(key=lambda trial: GATES.index(trial.config["gate"]))
    if kind == EXPLORATION:
        trials.sort(key=lambda trial: (len(trial.config["overrides"]), _departures(trial)))
    return trials


def read_trial(directory: Path, kind: str) -> Run:
    """The records of a trial; of an exploration with the overrides that make it today.

    Raises:
        RunError: a record is missing or damaged.
        ParameterError: settings that are unknown today.
    """
    trial = read_run(directory, tested=False)
    if kind == EXPLORATION:
        overrides = _as_of_today(trial.config).overrides
        trial = replace(trial, config=trial.config | {"overrides": overrides})
    return trial


def save_trials(example: Configuration, kind: str) -> pd.DataFrame:
    """Write the table of the published trials of the example's task and corpus; return it.

    Raises:
        RunError: there are none.
    """
    results, label = results_directory(example.preset), corpus_label(example)
    with locked(results / LOCK, wait=True):
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
    settings = [_settings(trial.config) for trial in trials]
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

    Further columns: by how much the perplexity is above that of the LSTM with the same seed and
    overrides; by how much the paper's four compressions raise it, as the mean of their losses on
    the first part of the validation text; shares of gate values near 0 or 1 there.
    """
    of_lstm = {
        (_departures(trial), trial.config["seed"]): _best(trial)["valid_loss"]
        for trial in trials
        if trial.config["gate"] == "sigmoid"
    }
    rows = []
    for trial in trials:
        best, row = _best(trial), {"model": run_label(trial), "seed": trial.config["seed"]}
        lstm = of_lstm.get((_departures(trial), trial.config["seed"]))
        compared = lstm is not None and trial.config["gate"] != "sigmoid"
        row["against the LSTM"] = _percent(best["valid_loss"] - lstm) if compared else ""
        row |= _measured(trial)
        curves = curves_frame([(trial, compression_of(trial))])
        cost = curves.loc[curves["kind"] != "none", "loss_change"].mean()
        row["change by compression"] = _percent(cost)
        for kind in ("input", "forget"):
            row[f"{kind} gate saturation"] = best[f"{kind}_gate_saturation"]
        rows.append(row)
    return pd.DataFrame(rows)


TABLES = {TUNING: tuning_table, EXPLORATION: exploration_table}


def _departures(trial: Run) -> str:
    return json.dumps(trial.config["overrides"], sort_keys=True)


def _percent(loss: float) -> str:
    """What a difference in nats does to the perplexity."""
    return f"{math.expm1(min(loss, 50)):+.1%}"


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


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """All settings of a run but the gate's own, by name."""
    parts = (config[part] for part in ("training", "model", "data", "evaluation"))
    # The records of a trial lack the options that came after it; they were at their defaults.
    now = asdict(configure(**arguments_of(config)))
    defaults = model_defaults(config["task"]) | training_defaults(config["task"])
    return functools.reduce(operator.or_, parts, defaults | now["data"] | now["evaluation"])
