"""The report: verdicts, statistics and results of a preset, as JSON and as Markdown."""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from g2lstm.analysis import compression_table
from g2lstm.case_study import ALIGNMENT
from g2lstm.claims import Evidence, Observed, collect_evidence, statistics_of
from g2lstm.experiments import TASKS, ParameterError, corpus_label, results_directory
from g2lstm.files import write_json, write_text
from g2lstm.forest import plot_forest
from g2lstm.gate_profile import GATE_PROFILE
from g2lstm.plots import save_figure
from g2lstm.provenance import provenance
from g2lstm.results import comparison_table, results_provenance, run_label
from g2lstm.robustness import COMPRESSION, PAPER_SETTINGS
from g2lstm.studies import Study, open_study
from g2lstm.trials import EXPLORATION, TABLES, TUNING, read_trials, trials_command
from g2lstm.verdict_rule import RULE
from g2lstm.verdict_tables import (
    UNITS_NOTE,
    corpus_sentence,
    primary,
    statistics_table,
    verdict_table,
)
from g2lstm.verdicts import judge

FOREST = "forest"
MEASURED = (COMPRESSION, GATE_PROFILE, ALIGNMENT)  # in the order of `claims.Observed`


def open_studies(
    preset: str,
    experiments: list[dict[str, Any]] | None = None,
    seeds: list[int] | None = None,
    save: bool = False,
) -> list[Study]:
    """The studies that a report is about.

    Args:
        preset: of the runs.
        experiments: a dict each with ``task`` and, on demand, ``corpus`` and ``languages``;
            default: both tasks on the preset's corpora.
        seeds, save: see `studies.open_study`.

    Raises:
        ParameterError, RunError: see `studies.open_study`; or an unknown entry.
    """
    if experiments is None:
        experiments = [{"task": task} for task in TASKS]
    known = {"task", "corpus", "languages"}
    for experiment in experiments:
        if not isinstance(experiment, dict) or not {"task"} <= experiment.keys() <= known:
            raise ParameterError(
                f"an experiment is a dict with task, corpus, languages: {experiment!r}"
            )
    return [
        open_study("09_report", preset=preset, seeds=seeds, save=save, **experiment)
        for experiment in experiments
    ]


def models_table(study: Study) -> pd.DataFrame:
    """All models of one corpus, other settings of G2-LSTM too, with the command of their runs."""
    table = comparison_table(study.example.task, study.variants)
    commands = {
        run_label(run): re.sub(r"(-p seed|--seed) \d+", r"\1 N", run.provenance["command"])
        for run in study.variants
    }
    return table.assign(**{"command, N: the seed": [f"`{commands[m]}`" for m in table["model"]]})


def gather_evidence(studies: Iterable[Study], folder: Path | None = None) -> list[Evidence]:
    """What the claims are judged by, one a study.

    Runs in default settings are measured where they are not; of others what is on record counts.

    Args:
        studies: one a corpus.
        folder: of the preset's results, whose tuning says which seeds chose the settings; default:
            `experiments.results_directory`.

    Raises:
        RunError, CorpusError, CheckpointError: see `Measurement.of`.
    """
    found = []
    for study in studies:
        example, label = study.example, corpus_label(study.example)
        for measurement in MEASURED:
            study.measure(measurement)
        observed = [
            Observed(run, *(measurement.recorded(run) for measurement in MEASURED))
            for run in study.variants
        ]
        place = results_directory(example.preset) if folder is None else folder
        trials = read_trials(place, TUNING, example.task, label)
        tuned = frozenset(trial.config["seed"] for trial in trials)
        found.append(collect_evidence(example.task, label, observed, tuned))
    return found


def judge_all(evidence: Iterable[Evidence]) -> list[dict[str, Any]]:
    """All statistics of all corpora with their verdicts, as `verdicts.judge` returns them."""
    return [row for one in evidence for row in judge(statistics_of(one), one.tuning_seeds)]


def results_table(study: Study) -> pd.DataFrame:
    """The paper's table for one corpus, the paper's own numbers beside it."""
    return compression_table(study.measure(COMPRESSION))


def save_forest(
    rows: Sequence[dict[str, Any]], preset: str, studies: Sequence[Study], save: bool = True
) -> Figure:
    """The forest plot of the primary statistics; saved to the folder of results if asked to."""
    figure = plot_forest(primary(rows), preset)
    if save:
        runs = [run for study in studies for run in study.variants]
        record = results_provenance(runs, f"make reproduce PRESET={preset} (09_report)")
        save_figure(figure, results_directory(preset) / "figures" / FOREST, record)
    return figure


def write_report(preset: str, studies: Sequence[Study], evidence: Sequence[Evidence]) -> None:
    """Write ``claims.json`` and ``report.md`` to the folder of results.

    Args:
        preset: of the runs.
        studies: one a corpus.
        evidence: as `gather_evidence` returns it.
    """
    runs = [
        {
            "run": "/".join(run.directory.parts[-5:]),
            "commit": run.provenance["commit"],
            "command": run.provenance["command"],
        }
        for study in studies
        for run in study.variants
    ]
    record = provenance(f"make reproduce PRESET={preset} (09_report)", runs=runs)
    folder = results_directory(preset)
    claims, text = make_report(preset, studies, evidence, record, folder)
    write_json(folder / "claims.json", claims)
    write_text(folder / "report.md", text)


def make_report(
    preset: str,
    studies: Sequence[Study],
    evidence: Sequence[Evidence],
    record: dict[str, Any],
    folder: Path,
) -> tuple[dict[str, Any], str]:
    """What ``claims.json`` holds, and the text of ``report.md``.

    Args:
        preset, studies, evidence: see `write_report`.
        record: provenance of the report.
        folder: of the preset's results, for the trials published there.

    Raises:
        RunError: a trial's record is missing or damaged.
    """
    rows = judge_all(evidence)
    claims: dict[str, Any] = {
        "rule": RULE,
        "statistics": rows,
        "collapsed": [place for one in evidence for place in one.collapsed],
        "tuning_seeds": {one.corpus: sorted(one.tuning_seeds) for one in evidence},
        "provenance": record,
    }
    parts = [
        f"# Report on the preset `{preset}`",
        f"Commit {record['commit']}{' with changes' if record['modified'] else ''}, "
        f"{record['time']}, `make reproduce PRESET={preset}`, on "
        f"{record['hardware']['processor']}. Written by "
        "`notebooks/09_report.ipynb`; the numbers with all digits are in `claims.json`, the runs' "
        "own records (seed, commit, versions, command) in `runs/`.",
        "## Is it the paper's effect?",
        "\n".join(f"- {corpus_sentence(one, rows)}" for one in evidence),
        UNITS_NOTE,
        _markdown(verdict_table(rows)),
        f"![Our effects divided by the paper's](figures/{FOREST}.png)",
        "## Results",
    ]
    for study in studies:
        settings = PAPER_SETTINGS[study.example.task]
        metric = (
            "BLEU, higher is better"
            if study.example.task == "translation"
            else "Perplexity, lower is better"
        )
        example = study.example
        about = {"preset": preset, "task": example.task, "corpus": example.corpus}
        about |= {"languages": example.languages} if example.languages else {}
        compressed = " ".join(f"-p {name} {shlex.quote(value)}" for name, value in about.items())
        parts += [
            f"### {study.example.task.replace('-', ' ')}, {corpus_label(study.example)}",
            f"Mean ± standard deviation over seeds. `make reproduce PRESET={preset}` runs the "
            "grid; the commands (in `.venv/bin`) make single runs. The commit of each is in its "
            "record.",
            _markdown(models_table(study)),
            f"Compressed, after these runs: `papermill notebooks/05_compression.ipynb out.ipynb "
            f"{compressed} -p save True`.",
            f"{metric}; mean ± standard deviation over seeds, change in brackets. Round: step "
            f"{settings['step']:g}; clip: {2 * settings['step']:g}; SVD and SVD+: ranks that are "
            f"{settings['svd']:.1%} and {settings['svd+']:.1%} of the units, the "
            "paper's. Rows marked *paper* are its own numbers, on its own corpora.",
            _markdown(results_table(study)),
            *_trials(study, folder),
        ]
    parts += [
        "## Statistics",
        f"By `papermill notebooks/09_report.ipynb out.ipynb -p preset {preset} "
        "-p save True`, after the above.",
        "Intervals are Welch's but for the paired ones. Statistics without verdict are secondary.",
        _markdown(statistics_table(rows)),
        "## The rule",
        RULE.strip(),
    ]
    return claims, "\n\n".join(parts) + "\n"


def _trials(study: Study, folder: Path) -> list[str]:
    """How the settings were chosen, and what other settings do, where that was tried."""
    task, label = study.example.task, corpus_label(study.example)
    text = []
    if tuned := read_trials(folder, TUNING, task, label):
        text += [
            "How the settings were chosen: every gate with the same candidates, on the validation "
            f"text alone, by `{trials_command(study.example, TUNING)}`. Training perplexity is "
            "that of the epoch, dropout and noise included.",
            _markdown(TABLES[TUNING](tuned)),
        ]
    if explored := read_trials(folder, EXPLORATION, task, label):
        commands = [f"`{trial.provenance['command']}`" for trial in explored]
        text += [
            "Other settings, tried on the validation text alone, to find out what matters. Against "
            "the LSTM: of the same overrides and seed. The change by compression is that of the "
            "perplexity on the first part of the text, mean over the four columns of the table "
            "above.",
            _markdown(TABLES[EXPLORATION](explored).assign(command=commands)),
        ]
    return text


def _markdown(frame: pd.DataFrame) -> str:
    cells = frame.map(lambda cell: f"{cell:.2f}" if isinstance(cell, float) else cell)
    return tabulate(cells, headers="keys", showindex=False, tablefmt="pipe", disable_numparse=True)
