"""Tables over finished runs, with the paper's numbers beside them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from g2lstm.experiments import GATE_SETTINGS
from g2lstm.plots import GATE_LABELS
from g2lstm.provenance import provenance
from g2lstm.runs import Run

# The paper's Penn Treebank table: test perplexity with the cache pointer, uncompressed.
PAPER_PTB_PERPLEXITY = {"sigmoid": 52.8, "sharpened": 53.2, "gumbel": 52.1}


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


def summary_frame(runs: Iterable[Run]) -> pd.DataFrame:
    """One row a run: label, gate, seed, and every number of its summary but the histograms."""
    rows = []
    for run in runs:
        numbers = {k: v for k, v in run.summary.items() if isinstance(v, int | float)}
        gates = run.summary["gates"]
        rows.append(
            {"model": run_label(run), "gate": run.config["gate"], "seed": run.config["seed"]}
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
    """One row a run and epoch: gate (its label), seed, and the metrics of training."""
    rows = []
    for run in runs:
        about = {"model": run_label(run), "gate": run.config["gate"], "seed": run.config["seed"]}
        rows += [about | row for row in run.metrics]
    return pd.DataFrame(rows)


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
        of test to seen text, the saturation of the gates and the minutes a run. The paper's column
        holds its Penn Treebank test perplexity with the cache pointer.
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
        gate = group["gate"].iloc[0]
        default = model == GATE_LABELS[gate]
        row |= {
            "paper (PTB, cache pointer)": f"{PAPER_PTB_PERPLEXITY[gate]:.1f}" if default else "",
            "seen text": mean_and_spread(group["train_perplexity"]),
            "test / seen": mean_and_spread(gap, 3),
            "input gate saturation": mean_and_spread(group["input_gate_saturation"]),
            "forget gate saturation": mean_and_spread(group["forget_gate_saturation"]),
            "minutes a run": mean_and_spread(group["training_minutes"], 1),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def mean_histograms(runs: Iterable[Run], mode: str = "evaluation") -> dict[str, dict[str, Any]]:
    """Gate histograms by model and kind of gate, averaged over seeds, for `plots`."""
    collected: dict[str, dict[str, list[list[float]]]] = {}
    for run in runs:
        entry = collected.setdefault(run_label(run), {"input": [], "forget": []})
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
