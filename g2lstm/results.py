"""Tables over finished runs, with the paper's numbers beside them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from g2lstm.experiments import GATE_SETTINGS
from g2lstm.plots import GATE_LABELS
from g2lstm.provenance import provenance
from g2lstm.records import Run

# The paper's Penn Treebank table: test perplexity with the cache pointer, uncompressed.
PAPER_PTB_PERPLEXITY = {"sigmoid": 52.8, "sharpened": 53.2, "gumbel": 52.1}

# Figures that the notebook of the language-model results saves, as language_model_<corpus>_<name>.
FIGURES = (
    "test_perplexity", "validation", "training", "gates_evaluation", "gates_training", "saturation",
)  # fmt: skip


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
    return {"model": run_label(run), "gate": run_key(run), "seed": run.config["seed"]}


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
        Columns for the perplexities (validation, test, with cache pointer, on seen text), the ratio
        of test to seen text, the saturation of the gates and the minutes of training. The paper's
        column holds its Penn Treebank test perplexity with the cache pointer.
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
            row["test, cache pointer"] = mean_and_spread(group["test_perplexity_with_cache"])
        paper = PAPER_PTB_PERPLEXITY.get(group["gate"].iloc[0])
        row |= {
            "paper (PTB, cache pointer)": "" if paper is None else f"{paper:.1f}",
            "seen text": mean_and_spread(group["train_perplexity"]),
            "test / seen": mean_and_spread(gap, 3),
            "input gate saturation": mean_and_spread(group["input_gate_saturation"]),
            "forget gate saturation": mean_and_spread(group["forget_gate_saturation"]),
            "training minutes": mean_and_spread(group["training_minutes"], 1),
        }
        rows.append(row)
    return pd.DataFrame(rows)


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
