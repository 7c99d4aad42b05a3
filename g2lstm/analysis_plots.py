"""Figures of the analyses: robustness, gates by group of words, loss surfaces.

As in `plots`, every function returns a new figure that pyplot does not know.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from g2lstm.plots import GATE_LABELS, GATE_MARKERS, gate_colours, panels

AXES = {
    "step": "step r of rounding",
    "clip": "clip c (step c / 2)",
    "rank": "rank of each gate's block",
}


def plot_robustness(frame: pd.DataFrame, *, y: str, ylabel: str, log_y: bool = False) -> Figure:
    """The metric against the strength of each compression; a line per gate: mean and range.

    Args:
        frame: columns ``gate``, ``seed``, ``kind`` ("step", "clip", "rank"), ``setting`` and ``y``.
        y: column to draw.
        ylabel: label of the axis.
        log_y: whether the y axis is logarithmic.
    """
    figure, axes = panels(1, len(AXES), width=3.4, height=3.4, sharex=False)
    for axis, (kind, xlabel) in zip(axes[0], AXES.items(), strict=True):
        part = frame[frame["kind"] == kind]
        for gate, colour in gate_colours(frame["gate"].unique()).items():
            _draw_line(axis, part[part["gate"] == gate], "setting", y, gate, colour)
        axis.set(xlabel=xlabel)
        _scale_x(axis, sorted(part["setting"].unique()), reverse=kind == "rank")
    axes[0, 0].set_ylabel(ylabel)
    if log_y:
        _log_y(axes[0, 0])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def plot_bits(frame: pd.DataFrame, *, y: str, ylabel: str, log_y: bool = False) -> Figure:
    """The metric against the bits a weight of the compressed blocks; a line per gate and method.

    Rounding and low rank; with clipping the bits hardly change with the setting.

    Args:
        frame: as for `plot_robustness`, with ``bits``.
        y, ylabel, log_y: see there.
    """
    figure, axes = panels(1, 1, width=6.2, height=3.8)
    axis = axes[0, 0]
    styles = {"step": "-", "rank": "--"}
    colours = gate_colours(frame["gate"].unique())
    for gate, colour in colours.items():
        for kind, style in styles.items():
            part = frame[(frame["gate"] == gate) & (frame["kind"] == kind)]
            line = part.groupby("setting")[["bits", y]].mean()
            look = {"color": colour, "linestyle": style, "marker": GATE_MARKERS.get(gate)}
            axis.plot(line["bits"], line[y], **look)
    axis.set(xlabel="bits a weight of the gates' blocks, as stored", ylabel=ylabel)
    axis.set_xscale("log", base=2)
    axis.invert_xaxis()
    axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    if log_y:
        _log_y(axis)
    handles = [
        Line2D([], [], color=c, marker=GATE_MARKERS.get(g), label=GATE_LABELS.get(g, g))
        for g, c in colours.items()
    ]
    names = {"step": "round", "rank": "low rank"}
    handles += [Line2D([], [], color="0.4", linestyle=s, label=names[k]) for k, s in styles.items()]
    axis.legend(handles=handles)
    return figure


def plot_effects(frame: pd.DataFrame, *, gate: str, about: str | None = None) -> Figure:
    """Cohen's d of each contrast: a row a contrast, a point per seed and model, the mean larger.

    Args:
        frame: columns ``of`` (the gate's name, or any text), ``contrast``, ``gate``, ``effect``.
        gate: "input" or "forget".
        about: what the title says in front of the gate.
    """
    part = frame[frame["gate"] == gate]
    names = list(part["contrast"].unique())
    figure, axes = panels(1, 1, width=9, height=1.4 + 0.75 * len(names))
    axis = axes[0, 0]
    colours = gate_colours(part["of"].unique())
    for place, (model, colour) in enumerate(colours.items()):
        shift = (place - (len(colours) - 1) / 2) * 0.22
        for row, name in enumerate(names):
            values = part[(part["of"] == model) & (part["contrast"] == name)]["effect"]
            look = {"color": colour, "marker": GATE_MARKERS.get(model, "o"), "linestyle": ""}
            axis.plot(values, np.full(len(values), row + shift), markersize=4, alpha=0.6, **look)
            label = GATE_LABELS.get(model, model) if row == 0 else None
            axis.plot(values.mean(), row + shift, markersize=8, label=label, **look)
    axis.axvline(0, color="0.4", linewidth=1.2)
    axis.set_yticks(range(len(names)), names)
    axis.set(title=", ".join(filter(None, (about, f"{gate} gate"))))
    axis.set(xlabel="Cohen's d (small: seeds, large: mean)")
    axis.set_ylim(len(names) - 0.5, -0.5)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def plot_groups(frame: pd.DataFrame) -> Figure:
    """Mean gate by group of tokens: a row a group, a panel a gate, a point a model (mean of seeds).

    Args:
        frame: columns ``of``, ``label``, ``gate`` and ``mean``; rows in the order of the labels.
    """
    names = list(frame["label"].unique())
    figure, axes = panels(1, 2, width=4.4, height=1.4 + 0.3 * len(names))
    for axis, gate in zip(axes[0], ("input", "forget"), strict=True):
        part = frame[frame["gate"] == gate]
        for model, colour in gate_colours(part["of"].unique()).items():
            means = part[part["of"] == model].groupby("label")["mean"].mean().reindex(names)
            look = {"color": colour, "marker": GATE_MARKERS.get(model, "o"), "linestyle": ""}
            axis.plot(means, range(len(names)), label=GATE_LABELS.get(model, model), **look)
        axis.set(xlabel=f"mean {gate} gate", xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    axes[0, 0].set_yticks(range(len(names)), names)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def plot_surfaces(surfaces: Mapping[str, tuple[Sequence[float], np.ndarray]]) -> Figure:
    """How much the loss rises around the trained weights: a panel a model, one colour scale.

    Args:
        surfaces: by gate's name (or any text) the steps along both axes [P] and the loss [P, P].
    """
    rises = {}
    for name, (steps, loss) in surfaces.items():
        loss = np.asarray(loss, dtype=float)
        centre = loss[len(steps) // 2, len(steps) // 2]
        rises[name] = np.clip(np.nan_to_num(loss - centre, nan=np.inf), 1e-4, None)
    finite = np.concatenate([rise[np.isfinite(rise)] for rise in rises.values()])
    norm = LogNorm(vmin=1e-3, vmax=max(finite.max(), 1e-2))
    figure, axes = panels(1, len(surfaces), width=3.4, height=3.3)
    for axis, (name, (steps, _)) in zip(axes[0], surfaces.items(), strict=True):
        rise = np.minimum(rises[name], finite.max())
        image = axis.pcolormesh(steps, steps, rise, norm=norm, cmap="cividis", shading="nearest")
        lines = axis.contour(
            steps, steps, rise, levels=[0.003, 0.01, 0.03, 0.1], colors="white", linewidths=1
        )
        axis.clabel(lines, fmt="%g", fontsize=8)
        axis.set(title=GATE_LABELS.get(name, name), xlabel="step along direction 0", aspect="equal")
        axis.grid(False)
    axes[0, 0].set_ylabel("step along direction 1")
    figure.colorbar(image, ax=list(axes[0]), label="rise of the loss, nats a token", shrink=0.9)
    return figure


def _draw_line(axis: Axes, part: pd.DataFrame, x: str, y: str, gate: str, colour: str) -> None:
    line = part.replace(np.inf, np.nan).groupby(x)[y].agg(["mean", "min", "max"])
    look = {"color": colour, "marker": GATE_MARKERS.get(gate)}
    axis.plot(line.index, line["mean"], label=GATE_LABELS.get(gate, gate), **look)
    band = {"color": colour, "alpha": 0.2, "linewidth": 0}
    axis.fill_between(line.index, line["min"], line["max"], **band)


def _scale_x(axis: Axes, settings: Sequence[float], reverse: bool) -> None:
    axis.set_xscale("log")
    shown = settings if len(settings) < 7 else settings[::2]
    axis.set_xticks(shown, [f"{setting:g}" for setting in shown])
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    if reverse:  # stronger compression to the right, as with the others
        axis.invert_xaxis()


def _log_y(axis: Axes) -> None:
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.2, 1.5, 2, 3, 5)))
    axis.yaxis.set_minor_locator(ticker.NullLocator())
    axis.yaxis.set_major_formatter(ticker.ScalarFormatter())
