"""Tables over finished runs, with the paper's numbers beside them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from g2lstm.experiments import GATE_SETTINGS
from g2lstm.paper import TABLE_1, TABLES_OF
from g2lstm.paper import TABLES as TABLES_OF_PAPER
from g2lstm.plots import GATE_LABELS
from g2lstm.provenance import provenance
from g2lstm.records import Run, read_bleu_statistics
from g2lstm.scoring import TOKENISED_BLEU, paired_bootstrap
from g2lstm.settings import cache_recipe, made_with

PAPER_PTB_PERPLEXITY = {gate: row["with cache pointer"][1] for gate, row in TABLE_1.items()}
PAPER_BLEU = {
    name: {gate: row["result"] for gate, row in TABLES_OF_PAPER[name].items()}
    for name in TABLES_OF["translation"]
}

# What the notebooks of the results save: tables as <task>_<corpus><name>, figures as
# <task>_<corpus>_<name>.
TABLES = {"language_model": ("", "_runs"), "translation": ("", "_runs", "_bootstrap")}
FIGURES = {
    "language_model": (
        "test_perplexity", "validation", "training",
        "gates_evaluation", "gates_training", "saturation",
    ),
    "translation": (
        "test_bleu", "validation", "validation_bleu",
        "gates_evaluation", "gates_training", "saturation",
    ),
}  # fmt: skip


def run_label(run: Run) -> str:
    """The model's name as in the paper; with its settings where they are not the defaults."""
    label = GATE_LABELS[run.config["gate"]]
    settings = [f"{name}={value}" for name, value in sorted(run.config["overrides"].items())]
    temperature, probability = GATE_SETTINGS[run.config["gate"]]
    if run.config["temperature"] != temperature:
        settings.append(f"tau={run.config['temperature']:g}")
    if run.config["schedule"] != "constant":
        settings.append(f"{run.config['schedule']} to {run.config['temperature_end']:g}")
    if run.config["noise_probability"] != probability:
        settings.append(f"p={run.config['noise_probability']:g}")
    return f"{label} ({', '.join(settings)})" if settings else label


def run_key(run: Run) -> str:
    """The gate's name for a run in default settings, else its label; what `plots` groups by."""
    gate, label = run.config["gate"], run_label(run)
    return gate if label == GATE_LABELS[gate] else label


def summary_frame(runs: Iterable[Run]) -> pd.DataFrame:
    """One row a run: label, gate (see `run_key`), seed, and its summary without the histograms."""
    rows = []
    for run in runs:
        numbers = {k: v for k, v in run.summary.items() if isinstance(v, int | float)}
        if "test_perplexity_with_cache" in numbers:
            numbers["cache_recipe"] = cache_recipe(run.config)
        gates = run.summary["gates"]
        rows.append(
            _about(run)
            | numbers
            | {
                f"{kind}_gate_{what}": gates["evaluation"][kind][what]
                for kind in ("input", "forget")
                for what in ("mean", "saturation")
            }
            | {"training_minutes": run.provenance["training_seconds"] / 60}
        )
    return pd.DataFrame(rows)


def metrics_frame(runs: Iterable[Run]) -> pd.DataFrame:
    """One row a run and epoch: label, gate (see `run_key`), seed, and the metrics of training."""
    rows = []
    for run in runs:
        rows += [_about(run) | row for row in run.metrics]
    return pd.DataFrame(rows)


def _about(run: Run) -> dict[str, Any]:
    about = {"model": run_label(run), "gate": run_key(run), "seed": run.config["seed"]}
    if then := made_with(run.config):
        about["made_with"] = ", ".join(f"{name}={value}" for name, value in then.items())
    return about


def mean_and_spread(values: Iterable[float], digits: int = 2) -> str:
    """Mean over the seeds +- sample standard deviation; the latter needs two seeds."""
    values = np.asarray(list(values), dtype=float)
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def perplexity_table(summaries: pd.DataFrame) -> pd.DataFrame:
    """The comparison of the models: a row a model, mean ± standard deviation over its seeds.

    Args:
        summaries: as `summary_frame` makes it.

    Returns:
        Columns for the perplexities (validation, test, with the cache pointer in the settings that
        the heading names, on seen text), the ratio of test to seen text, the saturation of the
        gates and the minutes of training. The paper's columns hold its Penn Treebank test
        perplexity without and with the cache pointer.
    """
    rows = []
    for model, group in summaries.groupby("model", sort=False):
        gap = group["test_perplexity"] / group["train_perplexity"]
        row: dict[str, Any] = {
            "model": model,
            "seeds": len(group),
            "validation": mean_and_spread(group["valid_perplexity"]),
            "test": mean_and_spread(group["test_perplexity"]),
        }
        if "test_perplexity_with_cache" in group:
            for recipe, part in group.groupby("cache_recipe"):
                values = part["test_perplexity_with_cache"]
                row[f"test, cache pointer ({recipe})"] = mean_and_spread(values)
        paper = TABLE_1.get(group["gate"].iloc[0])
        for column, heading in (
            ("with fine-tuning", "paper (PTB)"),
            ("with cache pointer", "paper (PTB, cache pointer)"),
        ):
            row[heading] = "" if paper is None else f"{paper[column][1]:.1f}"
        if "made_with" in group:
            row["made with"] = group["made_with"].fillna("").iloc[0]
        row |= {
            "seen text": mean_and_spread(group["train_perplexity"]),
            "test / seen": mean_and_spread(gap, 3),
            "input gate saturation": mean_and_spread(group["input_gate_saturation"]),
            "forget gate saturation": mean_and_spread(group["forget_gate_saturation"]),
            "training minutes": mean_and_spread(group["training_minutes"], 1),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def bleu_table(summaries: pd.DataFrame) -> pd.DataFrame:
    """The comparison of the translation models: a row a model, mean ± standard deviation.

    Args:
        summaries: as `summary_frame` makes it.

    Returns:
        Columns for BLEU (validation, test, case-insensitive where the record has it, greedy, of
        tokenised text, of seen text), chrF, test perplexity, the share of reordered clauses and of
        whole sentences that are exactly right (embedded corpus), the saturation of the gates and
        the minutes of training. The paper's columns hold its BLEU on its corpora, tokenised;
        case-insensitive for IWSLT'14.
    """
    rows = []
    for model, group in summaries.groupby("model", sort=False):
        row: dict[str, Any] = {"model": model, "seeds": len(group)}
        for name, column, digits in (
            ("validation BLEU", "valid_bleu", 2),
            ("test BLEU", "test_bleu", 2),
            ("test BLEU, case-insensitive", "test_bleu_lc", 2),
            ("test BLEU, greedy", "test_bleu_greedy", 2),
            (f"test, {TOKENISED_BLEU}", "test_tokenised_bleu", 2),
            (f"test, {TOKENISED_BLEU} -lc", "test_tokenised_bleu_lc", 2),
            ("test chrF", "test_chrf", 2),
            ("test perplexity", "test_perplexity", 3),
            ("seen text BLEU", "train_bleu", 2),
            ("reordered clauses right", "clause_accuracy", 3),
            ("sentences right, reordered", "exact_with_clauses", 3),
            ("sentences right, others", "exact_without_clauses", 3),
            ("input gate saturation", "input_gate_saturation", 2),
            ("forget gate saturation", "forget_gate_saturation", 2),
            ("training minutes", "training_minutes", 1),
        ):
            if column in group:
                row[name] = mean_and_spread(group[column], digits)
        for corpus, paper in PAPER_BLEU.items():
            value = paper.get(group["gate"].iloc[0])
            row[f"paper ({corpus})"] = "" if value is None else f"{value:.2f}"
        rows.append(row)
    return pd.DataFrame(rows)


def comparison_table(task: str, runs: Iterable[Run]) -> pd.DataFrame:
    """The comparison of the models of one task, see `perplexity_table` and `bleu_table`."""
    table = bleu_table if task == "translation" else perplexity_table
    return table(summary_frame(runs))


def bootstrap_table(runs: Iterable[Run], samples: int = 1000) -> pd.DataFrame:
    """Paired bootstrap of test BLEU, seed by seed: every model against the LSTM of its seed.

    Args:
        runs: translation runs; seeds without an LSTM in default settings are left out.
        samples: see `scoring.paired_bootstrap`.

    Returns:
        One row a seed and model: seed, and the columns of `scoring.paired_bootstrap`.
    """
    by_seed: dict[int, dict[str, np.ndarray]] = {}
    for run in runs:
        statistics = by_seed.setdefault(run.config["seed"], {})
        statistics[run_label(run)] = read_bleu_statistics(run)
    baseline = GATE_LABELS["sigmoid"]
    tables = [
        paired_bootstrap(statistics, baseline, samples).assign(seed=seed)
        for seed, statistics in sorted(by_seed.items())
        if baseline in statistics
    ]
    if not tables:
        return pd.DataFrame(columns=["seed", "model"])
    table = pd.concat(tables, ignore_index=True)
    return table[["seed", *table.columns.drop("seed")]]


def mean_histograms(runs: Iterable[Run], mode: str = "evaluation") -> dict[str, dict[str, Any]]:
    """Gate histograms by `run_key` and kind of gate, averaged over seeds, for `plots`."""
    collected: dict[str, dict[str, list[list[float]]]] = {}
    for run in runs:
        entry = collected.setdefault(run_key(run), {"input": [], "forget": []})
        for kind, histograms in entry.items():
            histograms.append(run.summary["gates"][mode][kind]["histogram"])
    return {
        model: {kind: np.mean(values, axis=0) for kind, values in entry.items()}
        for model, entry in collected.items()
    }


def results_provenance(runs: Iterable[Run], command: str) -> dict[str, Any]:
    """Provenance of a table or figure over ``runs``: of its making, and of each run."""
    sources = [
        {
            "run": "/".join(run.directory.parts[-5:]),
            "seed": run.config["seed"],
            "commit": run.provenance["commit"],
            "modified": run.provenance["modified"],
            "fingerprint": run.config["fingerprint"],
            "command": run.provenance["command"],
            "hardware": run.provenance["hardware"],
        }
        for run in runs
    ]
    return provenance(command, runs=sources)
