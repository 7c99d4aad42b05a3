"""Trials: runs that are judged on the validation text alone, and end before their test.

In tuning every gate is tried with the same settings, a preset's ``candidates``. Exploration asks
what another setting would change. A trial in the preset's own settings is the run that is later
tested where it lies. Records are published in ``results/<preset>/tuning`` and ``exploration``,
``<task>/<corpus>/<preset>/<gate and its settings>/seed-<n>`` each.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from g2lstm.experiments import Configuration, configure, corpus_label, results_directory
from g2lstm.files import write_text
from g2lstm.gates import GATES
from g2lstm.parameters import ParameterError
from g2lstm.plots import GATE_LABELS, save_table
from g2lstm.presets import PRESETS
from g2lstm.records import CONFIG, METRICS, PROVENANCE, Run, read_run
from g2lstm.results import results_provenance, run_label
from g2lstm.runs import prepare, train_untested

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
        ParameterError: the preset has no candidates, or see `configure`.
        RunError, TrainingDivergedError, CheckpointError: see `runs.train_untested`.
    """
    about = {"task": task, "preset": preset, "corpus": corpus, "languages": languages}
    example = configure(**about)
    candidates = PRESETS[task][preset].candidates
    if not candidates:
        known = [name for name, other in PRESETS[task].items() if other.candidates]
        raise ParameterError(
            f"preset {preset!r} has no candidates to tune with; {', '.join(known)} has"
        )
    wanted = [
        configure(**about, gate=gate, seed=seed, overrides=settings)
        for gate in gates
        for settings in candidates
    ]
    results = results_directory(preset)
    for number, configuration in enumerate(wanted, start=1):
        experiment = prepare(configuration)
        tqdm.write(f"{number} of {len(wanted)}: {experiment.directory}")
        train_untested(experiment, progress_bar)
        copy_trial(experiment.directory, results, TUNING)
    return save_trials(example, results, TUNING)


def explore(configuration: Configuration, progress_bar: bool = True) -> pd.DataFrame:
    """Train one run up to its test, and save its records and the table of all such runs.

    Returns:
        What `exploration_table` makes of all that there is.

    Raises:
        RunError, TrainingDivergedError, CheckpointError: see `runs.train_untested`.
    """
    experiment = prepare(configuration)
    train_untested(experiment, progress_bar)
    results = results_directory(configuration.preset)
    copy_trial(experiment.directory, results, EXPLORATION)
    return save_trials(configuration, results, EXPLORATION)


def copy_trial(directory: Path, results: Path, kind: str) -> None:
    """Copy the records of a trained run to ``results``/<kind>; none is of a test."""
    target = results / kind / Path(*directory.absolute().parts[-5:])
    for name in (METRICS, PROVENANCE, CONFIG):  # the last makes it one that is read
        write_text(target / name, (directory / name).read_text(encoding="utf-8"))


def read_trials(results: Path, kind: str, task: str, corpus: str) -> list[Run]:
    """The published trials of a kind, task and corpus (its label), by gate and settings.

    Raises:
        RunError: a record is missing or damaged.
    """
    found = (results / kind / task / corpus).glob(f"*/*/*/{CONFIG}")
    trials = [read_run(path.parent, tested=False) for path in sorted(found)]
    return sorted(trials, key=lambda trial: GATES.index(trial.config["gate"]))


def save_trials(example: Configuration, results: Path, kind: str) -> pd.DataFrame:
    """Write the table of the published trials of the example's task and corpus; return it."""
    trials = read_trials(results, kind, example.task, corpus_label(example))
    frame = TABLES[kind](trials)
    name = f"{example.task.replace('-', '_')}_{corpus_label(example)}_{kind}"
    languages = "" if example.languages is None else f" --languages {example.languages}"
    how = "tune" if kind == TUNING else "train --untested"
    how += f" --task {example.task} --preset {example.preset} --corpus {example.corpus}{languages}"
    save_table(frame, results / "tables" / name, results_provenance(trials, f"g2lstm {how}"))
    return frame


def tuning_table(trials: Sequence[Run]) -> pd.DataFrame:
    """A row a trial: the settings that differ, and how well it did on the validation text.

    Returns:
        Columns model, a column a setting, perplexity on the validation text at the best epoch and
        on the training text (dropout and noise included) at the same, that epoch, for translations
        the greedy BLEU of the validation text, and ``chosen``: "yes" at each gate's best
        perplexity.
    """
    settings = [_settings(trial) for trial in trials]
    varied = [
        name for name in settings[0] if any(other[name] != settings[0][name] for other in settings)
    ]
    frame = pd.DataFrame(
        {"model": GATE_LABELS[trial.config["gate"]]}
        | {name: str(values[name]) for name in varied}
        | _measured(trial)
        for trial, values in zip(trials, settings, strict=True)
    )
    perplexity = frame["validation perplexity"]
    best = perplexity.groupby(frame["model"]).transform("min")
    frame["chosen"] = (perplexity == best).map({True: "yes", False: ""})
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
    """All of the preset's settings, by name."""
    return trial.config["training"] | trial.config["model"] | trial.config["data"]
