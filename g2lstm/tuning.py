"""Tuning: every gate with the same candidate settings, judged on the validation text alone.

A preset's ``candidates`` are the settings tried. Each is a run like any other that ends before its
test; a run in the preset's own settings is later tested where it lies. The records are published in
``results/<preset>/tuning``, ``<task>/<corpus>/<preset>/<gate and its settings>/seed-<n>`` each.
"""

from collections.abc import Iterable, Sequence
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
from g2lstm.results import results_provenance
from g2lstm.runs import prepare, train_untested

TUNING = "tuning"  # folder in the results of a preset
TABLE = "_tuning"  # what its table's name ends in


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
        copy_trials([read_run(experiment.directory, tested=False)], results)
    return save_tuning(example, results)


def copy_trials(trials: Iterable[Run], results: Path) -> None:
    """Copy the records of trained runs to ``results``/tuning; nothing of the test is among them."""
    for trial in trials:
        target = results / TUNING / Path(*trial.directory.absolute().parts[-5:])
        for name in (METRICS, PROVENANCE, CONFIG):  # the last makes it one that is read
            write_text(target / name, (trial.directory / name).read_text(encoding="utf-8"))


def read_trials(results: Path, task: str, corpus: str) -> list[Run]:
    """The published trials of a task and corpus (its label), by gate and settings.

    Raises:
        RunError: a record is missing or damaged.
    """
    found = (results / TUNING / task / corpus).glob(f"*/*/*/{CONFIG}")
    trials = [read_run(path.parent, tested=False) for path in sorted(found)]
    return sorted(trials, key=lambda trial: GATES.index(trial.config["gate"]))


def save_tuning(example: Configuration, results: Path) -> pd.DataFrame:
    """Write the table of the published trials of the example's task and corpus; return it."""
    trials = read_trials(results, example.task, corpus_label(example))
    frame = tuning_table(trials)
    name = f"{example.task.replace('-', '_')}_{corpus_label(example)}{TABLE}"
    languages = "" if example.languages is None else f" --languages {example.languages}"
    how = (
        f"g2lstm tune --task {example.task} --preset {example.preset} "
        f"--corpus {example.corpus}{languages}"
    )
    save_table(frame, results / "tables" / name, results_provenance(trials, how))
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
    rows = []
    for trial, values in zip(trials, settings, strict=True):
        best = min(trial.metrics, key=lambda row: row["valid_loss"])
        row = {"model": GATE_LABELS[trial.config["gate"]]}
        row |= {name: str(values[name]) for name in varied}
        row |= {
            "validation perplexity": best["valid_perplexity"],
            "training perplexity": best["train_perplexity"],
            "best epoch": best["epoch"],
        }
        if "valid_bleu_greedy" in best:
            row["validation BLEU, greedy"] = best["valid_bleu_greedy"]
        rows.append(row)
    frame = pd.DataFrame(rows)
    perplexity = frame["validation perplexity"]
    best = perplexity.groupby(frame["model"]).transform("min")
    frame["chosen"] = (perplexity == best).map({True: "yes", False: ""})
    return frame


def _settings(trial: Run) -> dict[str, Any]:
    """All of the preset's settings, by name."""
    return trial.config["training"] | trial.config["model"] | trial.config["data"]
