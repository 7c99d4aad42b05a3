"""Tables of robustness and of ablations over measured runs, with the paper's numbers beside."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from g2lstm import paper
from g2lstm.experiments import GATE_SETTINGS
from g2lstm.plots import GATE_LABELS
from g2lstm.records import Run
from g2lstm.results import mean_and_spread, run_key, run_label
from g2lstm.robustness import BLEU_METRIC, COLUMNS, perplexity_metric
from g2lstm.settings import cache_recipe

Measured = Iterable[tuple[Run, Any]]


def default_runs(runs: Iterable[Run]) -> list[Run]:
    """Those in the default settings of their gate: the paper's three models."""
    return [run for run in runs if run_key(run) in GATE_LABELS]


def of_seeds(runs: Iterable[Run], seeds: Sequence[int] | None) -> list[Run]:
    """Those with one of these seeds; None: all."""
    return [run for run in runs if seeds is None or run.config["seed"] in seeds]


def compression_table(measured: Measured) -> pd.DataFrame:
    """The paper's table: a row a model, mean ± standard deviation over seeds, change in brackets.

    Args:
        measured: runs with `robustness.COMPRESSION`.

    Returns:
        Columns model, seeds and those of the paper's table; below our rows the paper's own, marked
        as such. The change is against the result of the same row.
    """
    groups = by_model(measured)
    task = next(iter(groups.values()))[0][0].config["task"]
    rows = []
    for model, pairs in groups.items():
        row: dict[str, Any] = {"model": model, "seeds": str(len(pairs))}
        for column in COLUMNS:
            values = [rows_of[column]["value"] for _, rows_of in pairs]
            row[column] = _mean_and_spread(values)
            if column != "result" and None not in values:
                change = np.mean(values) - np.mean([r["result"]["value"] for _, r in pairs])
                row[column] += f" ({change:+.2f})"
        rows.append(row)
    return pd.DataFrame(rows + _paper_rows(task)).fillna("")


def _paper_rows(task: str) -> list[dict[str, Any]]:
    digits = 1 if task == "language-model" else 2
    rows = []
    for name in paper.TABLES_OF[task]:
        for gate, theirs in paper.TABLES[name].items():
            row: dict[str, Any] = {"model": f"{GATE_LABELS[gate]}, paper ({name})"}
            for column in COLUMNS:
                row[column] = f"{theirs[column]:.{digits}f}"
                if column != "result":
                    row[column] += f" ({theirs[column] - theirs['result']:+.{digits}f})"
            rows.append(row)
    return rows


def compression_sizes(measured: Measured) -> pd.DataFrame:
    """Of each column of the paper's table: metric, method, size of the stored model, LSTMs' work.

    Of the first run; sizes differ between runs by a few bytes.
    """
    run, rows = next(iter(measured))
    result = rows["result"]
    # Older records do not name the metric, and have WikiText-2's cache.
    older = BLEU_METRIC
    if run.config["task"] == "language-model":
        cached = run.config.get("evaluation", {}).get("cache_pointer")
        older = perplexity_metric(cache_recipe(run.config) if cached else None)
    return pd.DataFrame(
        {
            "column": column,
            "metric": row.get("metric", older),
            "method": row["method"],
            "megabytes": row["megabytes"],
            "relative size": row["megabytes"] / result["megabytes"],
            "FLOPs a step": row["flops_per_step"],
            "relative work": row["flops_per_step"] / result["flops_per_step"],
        }
        for column, row in rows.items()
    )


def curves_frame(measured: Measured) -> pd.DataFrame:
    """`robustness.CURVES` of all runs: a row a run and setting, with the change of the loss.

    ``loss_change`` (nats a token), ``perplexity_ratio`` and ``bleu_change`` are against the same
    run uncompressed.
    """
    rows = []
    for run, curve in measured:
        start = curve[0]
        for row in curve:
            loss = np.inf if row["loss"] is None else row["loss"]
            about = {"gate": run_key(run), "seed": run.config["seed"]} | row
            about["loss_change"] = loss - start["loss"]
            about["perplexity_ratio"] = float(np.exp(min(loss - start["loss"], 50)))
            if "bleu" in row:
                about["bleu_change"] = row["bleu"] - start["bleu"]
            rows.append(about)
    return pd.DataFrame(rows)


def perturbation_frame(measured: Measured) -> pd.DataFrame:
    """`sensitivity.PERTURBATION`: a row a run and norm, the rise of the loss over directions."""
    rows = []
    for run, found in measured:
        frame = pd.DataFrame(found)
        frame["loss"] = frame["loss"].astype(float).fillna(np.inf)
        start = frame[frame["norm"] == 0]["loss"].iloc[0]
        for norm, part in frame.groupby("norm"):
            rise = float(part["loss"].mean() - start)
            about = {"gate": run_key(run), "seed": run.config["seed"], "norm": norm}
            rows.append(about | {"loss_rise": rise})
    return pd.DataFrame(rows)


def gap_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Loss (nats a token) on seen and on test text, and the gap: a row a model."""
    rows = []
    for model, group in by_model((run, run.summary) for run in runs).items():
        seen = [np.log(summary["train_perplexity"]) for _, summary in group]
        test = [np.log(summary["test_perplexity"]) for _, summary in group]
        rows.append(
            {
                "model": model,
                "seeds": len(group),
                "loss, seen text": mean_and_spread(seen, 4),
                "loss, test text": mean_and_spread(test, 4),
                "gap": mean_and_spread(np.subtract(test, seen), 4),
            }
        )
    return pd.DataFrame(rows)


def ablation_table(measured: Measured, profiles: pd.DataFrame) -> pd.DataFrame:
    """One row a setting of G2-LSTM (and the LSTM to compare with): accuracy, robustness, gates.

    Args:
        measured: runs with `sensitivity.SWITCHES`.
        profiles: `profile_frame` of the same runs.

    Returns:
        Validation perplexity, its change against the default G2-LSTM (nats, same seeds), what the
        strongest low rank costs (nats), the gap between validation and seen text, and the
        saturation of the gates; a row "tau in evaluation" for the default one.
    """
    groups = by_model(measured)
    default = {
        run.config["seed"]: found["loss"] for run, found in groups.get(GATE_LABELS["gumbel"], [])
    }
    rows = []
    for model, pairs in groups.items():
        rows.append(_ablation_row(model, pairs, "loss", default, profiles))
        if model == GATE_LABELS["gumbel"]:
            name = "loss_temperature_in_evaluation"
            label = f"{model} (tau in evaluation too)"
            rows.append(_ablation_row(label, pairs, name, default, None))
    return pd.DataFrame(rows).fillna("")


def _ablation_row(
    label: str,
    pairs: list[tuple[Run, Any]],
    column: str,
    default: Mapping[int, float],
    profiles: pd.DataFrame | None,
) -> dict[str, Any]:
    losses = np.array([found[column] for _, found in pairs])
    changes = [
        found[column] - default[run.config["seed"]]
        for run, found in pairs
        if run.config["seed"] in default
    ]
    row = {
        "model": label,
        "seeds": len(pairs),
        "validation perplexity": mean_and_spread(np.exp(losses)),
        "change, nats": mean_and_spread(changes, 4) if changes else "",
    }
    if profiles is None:
        return row
    row["cost of SVD+, nats"] = mean_and_spread(
        [found["loss_svd_plus"] - found["loss"] for _, found in pairs], 4
    )
    row["gap, nats"] = mean_and_spread(
        [found["loss"] - found["loss_seen"] for _, found in pairs], 4
    )
    mine = profiles[(profiles["model"] == label) & (profiles["place"] == "all layers")]
    for mode in ("evaluation", "training"):
        for kind in ("input", "forget"):
            part = mine[(mine["mode"] == mode) & (mine["kind"] == kind)]
            row[f"{kind} saturation, {mode}"] = mean_and_spread(part["saturation"])
    return row


def evaluation_table(measured: Measured) -> pd.DataFrame:
    """Other gates in evaluation than those of the run: a row a model.

    Args:
        measured: runs with `sensitivity.SWITCHES`; older measurements lack ways of evaluation.

    Returns:
        Validation perplexity of the run, with the temperature kept and with hard gates, and their
        changes against the first in nats; mean ± standard deviation over seeds. A way that was not
        measured is left out, and so is a model of which none was.
    """
    ways = {"tau kept": "loss_temperature_in_evaluation", "hard gates": "loss_hard_in_evaluation"}
    columns = ["model", "seeds", "as trained"]
    columns += [column for way in ways for column in (way, f"{way}, change in nats")]
    rows = []
    for model, pairs in by_model(measured).items():
        measured_ways = [way for way in ways if all(ways[way] in found for _, found in pairs)]
        if not measured_ways:
            continue
        losses = [_loss(found["loss"]) for _, found in pairs]
        row = dict.fromkeys(columns, "")
        row |= {"model": model, "seeds": len(pairs), "as trained": _over_seeds(np.exp(losses))}
        for way in measured_ways:
            others = [_loss(found[ways[way]]) for _, found in pairs]
            row[way] = _over_seeds(np.exp(others))
            with np.errstate(invalid="ignore"):  # both infinite
                changes = np.subtract(others, losses)
            row[f"{way}, change in nats"] = _over_seeds(changes, 4)
        rows.append(row)
    frame = pd.DataFrame(rows, columns=columns)
    return frame.loc[:, (frame != "").any()] if rows else frame


def _loss(value: float | None) -> float:
    return np.inf if value is None else value


def _over_seeds(values: np.ndarray, digits: int = 2) -> str:
    return mean_and_spread(values, digits) if np.isfinite(values).all() else "infinite"


def setting_of(run: Run) -> str | None:
    """Which one setting of a G2-LSTM departs from the default; None: several, or another gate.

    Returns:
        "default", "noise_probability", "temperature", "schedule" or the name of an override.
    """
    config = run.config
    if config["gate"] != "gumbel":
        return None
    temperature, probability = GATE_SETTINGS["gumbel"]
    departures = list(config["overrides"])
    if config["schedule"] != "constant":
        departures.append("schedule")
    elif config["temperature"] != temperature:
        departures.append("temperature")
    if config["noise_probability"] != probability:
        departures.append("noise_probability")
    return departures[0] if len(departures) == 1 else None if departures else "default"


def by_model(measured: Measured) -> dict[str, list[tuple[Run, Any]]]:
    """Runs with their measurements, by the label of the run."""
    groups: dict[str, list[tuple[Run, Any]]] = {}
    for run, found in measured:
        groups.setdefault(run_label(run), []).append((run, found))
    return groups


def _mean_and_spread(values: Sequence[float | None]) -> str:
    """As `mean_and_spread`, where a value may be infinite (None in JSON)."""
    return "infinite" if None in values else mean_and_spread(values)
