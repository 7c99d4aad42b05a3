"""Tables of gate values over measured runs: where they stand, and how they go with language."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from g2lstm import paper
from g2lstm.analysis import Measured, by_model
from g2lstm.plots import GATE_LABELS
from g2lstm.results import mean_and_spread, run_key, run_label


def profile_frame(measured: Measured) -> pd.DataFrame:
    """`gate_profile.GATE_PROFILE` of all runs: a row a run, mode, layer and kind of gate."""
    rows = []
    for run, profile in measured:
        about = {
            "model": run_label(run), "gate": run_key(run), "seed": run.config["seed"],
            "temperature": run.config["temperature"],
            "noise_probability": run.config["noise_probability"],
        }  # fmt: skip
        for mode, parts in profile.items():
            for part in parts:
                layer = "all" if part["layer"] is None else _layer_name(part)
                for kind in ("input", "forget"):
                    rows.append(about | {"mode": mode, "layer": layer, "kind": kind} | part[kind])
    return pd.DataFrame(rows)


def gate_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Saturation and mean of both gates by model: on the text, on one sentence, in training mode.

    Args:
        frame: as `profile_frame` makes it.
    """
    rows = []
    together = frame[frame["layer"] == "all"]
    for model, group in together.groupby("model", sort=False):
        row: dict[str, Any] = {"model": model, "seeds": group["seed"].nunique()}
        for mode in ("evaluation", "sentence", "training"):
            for kind in ("input", "forget"):
                part = group[(group["mode"] == mode) & (group["kind"] == kind)]
                row[f"{kind} saturation, {mode}"] = mean_and_spread(part["saturation"])
        for kind in ("input", "forget"):
            part = group[(group["mode"] == "evaluation") & (group["kind"] == kind)]
            row[f"mean {kind} gate"] = mean_and_spread(part["mean"])
        rows.append(row)
    return pd.DataFrame(rows)


def histograms(
    frame: pd.DataFrame, mode: str = "evaluation", by: str = "gate", layer: str = "all"
) -> dict[str, dict[str, np.ndarray]]:
    """Histograms averaged over seeds, for `plots.plot_gate_histograms`.

    Args:
        frame: as `profile_frame` makes it.
        mode: "evaluation", "training" or "sentence".
        by: the column that names the rows of the figure.
        layer: which layer; with ``by="layer"`` all of them.
    """
    part = frame[frame["mode"] == mode]
    part = part[part["layer"] != "all"] if by == "layer" else part[part["layer"] == layer]
    return {
        str(name): {
            kind: np.mean(np.stack(group[group["kind"] == kind]["histogram"]), axis=0)
            for kind in ("input", "forget")
        }
        for name, group in part.groupby(by, sort=False)
    }


def paper_histograms() -> dict[str, dict[str, np.ndarray]]:
    """The paper's histograms, scaled to sum to 1 (its heights have four digits)."""
    return {
        f"{GATE_LABELS[gate]} (paper)": {
            kind: np.asarray(shares) / sum(shares) for kind, shares in kinds.items()
        }
        for gate, kinds in paper.HISTOGRAMS.items()
    }


def contrasts_frame(measured: Measured) -> pd.DataFrame:
    """`case_study.ALIGNMENT` of all runs: a row a run, contrast, gate and layer."""
    return pd.DataFrame(
        {"model": run_label(run), "of": run_key(run), "seed": run.config["seed"]} | row
        for run, found in measured
        for row in found["contrasts"]
    )


def contrasts_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Effect sizes over all layers: a row a contrast and gate, a column a model.

    A cell is the mean ± standard deviation of Cohen's d over seeds; with one seed its bootstrap
    interval over sentences instead.
    """
    rows = []
    together = frame[frame["layer"].astype(str) == "all"]
    for (name, gate), group in together.groupby(["contrast", "gate"], sort=False):
        row = {"contrast": name, "gate": gate}
        for model, part in group.groupby("model", sort=False):
            if len(part) == 1:
                one = part.iloc[0]
                row[model] = (
                    f"{one['effect']:.2f} [{one['effect_low']:.2f}, {one['effect_high']:.2f}]"
                )
            else:
                row[model] = mean_and_spread(part["effect"])
        rows.append(row)
    return pd.DataFrame(rows)


def means_frame(measured: Measured) -> pd.DataFrame:
    """Mean gate by group of tokens: a row a run, group and kind of gate."""
    return pd.DataFrame(
        {"of": run_key(run), "seed": run.config["seed"]} | row
        for run, found in measured
        for row in found["means"]
    )


def units_table(measured: Measured) -> pd.DataFrame:
    """The unit that marks each contrast best: a row a contrast, gate and model.

    ``AUC`` is on the sentences on which the unit was not chosen, mirrored where the unit is lower
    on the first group, so that 1/2 is chance and 1 a perfect mark.
    """
    rows = []
    for model, pairs in by_model(measured).items():
        found = pd.DataFrame(row for _, m in pairs for row in m["units"])
        if found.empty:
            continue
        for (name, gate), group in found.groupby(["contrast", "gate"], sort=False):
            auc = 0.5 + (group["auc_held_out"] - 0.5).abs()
            lower = int((group["auc_held_out"] < 0.5).sum())
            rows.append(
                {
                    "contrast": name,
                    "gate": gate,
                    "model": model,
                    "AUC": mean_and_spread(auc, 3),
                    "lower on the first group": f"{lower} of {len(group)}",
                }
            )
    return pd.DataFrame(rows)


def _layer_name(part: Mapping[str, Any]) -> str:
    name = part["module"] or "layer"
    if name.startswith("layers."):
        return f"layer {int(name.removeprefix('layers.')) + 1}"
    name = f"{name.replace('_', ' ')} {part['layer'] + 1}"
    return f"{name}, backwards" if part["reverse"] else name
