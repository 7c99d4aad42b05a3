"""Figures and tables: one look for all notebooks, saved with what they were made from.

Every plot function takes tidy frames or arrays and returns a new `matplotlib.figure.Figure` that
pyplot does not know: a notebook shows it once, as the last expression of a cell, and in a script
nothing opens and nothing has to be closed. Call `use_style` once before.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import style, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype
from tabulate import tabulate

from g2lstm.files import replacing, write_json, write_text

# Far apart in hue and in lightness, so also for colour-blind readers and in grey print.
GATE_COLOURS = {"sigmoid": "#333333", "sharpened": "#56B4E9", "gumbel": "#D55E00"}
GATE_LABELS = {"sigmoid": "LSTM", "sharpened": "sharpened sigmoid", "gumbel": "G2-LSTM"}
GATE_MARKERS = {"sigmoid": "o", "sharpened": "s", "gumbel": "D"}
# For lines that are no gate of the paper; Okabe and Ito's palette, as the two hues above.
OTHER_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#0072B2")
PAPER_COLOUR = "#E3CF8C"  # of what is the paper's, beside ours; light, so that lines show on it
DPI = 150  # of saved PNG files
UNIT_INTERVAL = {"xlim": (0, 1), "xticks": [0, 0.5, 1], "xticklabels": ["0", "0.5", "1"]}


def use_style() -> None:
    """Set matplotlib's style for this process: white grid, readable fonts, no frame."""
    style.use("seaborn-v0_8-whitegrid")
    matplotlib.rcParams["font.family"] = "DejaVu Sans"  # comes with matplotlib: the same everywhere
    matplotlib.rc("font", size=11)
    matplotlib.rc("axes", titlesize="medium", labelsize="medium", edgecolor="0.4")
    matplotlib.rc(("xtick", "ytick"), labelsize=10)
    matplotlib.rc("legend", fontsize=10, frameon=False)
    matplotlib.rc("axes.spines", top=False, right=False)
    matplotlib.rc("grid", color="0.9")
    matplotlib.rc("lines", linewidth=1.8, markersize=5)


def save_figure(figure: Figure, path: Path | str, provenance: Mapping[str, Any]) -> None:
    """Write ``path``.png, ``path``.svg and ``path``.provenance.json, each atomically.

    The SVG holds no date and no random identifier: the same figure gives the same file. The PNG
    carries the provenance as JSON in its metadata too, under "provenance".

    Args:
        figure: what to draw.
        path: without suffix; a dot in the name is kept. Folders are made.
        provenance: what the figure was made from; must be serialisable as JSON.
    """
    text = json.dumps(provenance, allow_nan=False)
    with replacing(f"{path}.png") as file:
        figure.savefig(file, format="png", dpi=DPI, metadata={"provenance": text})
    with matplotlib.rc_context({"svg.hashsalt": "g2lstm"}), replacing(f"{path}.svg") as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
    write_json(f"{path}.provenance.json", provenance)


def save_table(
    frame: pd.DataFrame, path: Path | str, provenance: Mapping[str, Any], *, floatfmt: str = ".2f"
) -> None:
    """Write ``path``.csv, ``path``.md and ``path``.provenance.json, each atomically.

    Args:
        frame: the table; its index is not written.
        path: without suffix; a dot in the name is kept. Folders are made.
        provenance: what the table was made from; must be serialisable as JSON.
        floatfmt: format of floats in the Markdown; the CSV keeps every digit.
    """
    json.dumps(provenance, allow_nan=False)  # raises before anything is written
    write_text(f"{path}.csv", frame.to_csv(index=False, lineterminator="\n"))
    layout = {"headers": "keys", "showindex": False, "tablefmt": "pipe", "floatfmt": floatfmt}
    # Text stays as it is, even where it looks like a number.
    layout["disable_numparse"] = frame.empty or [
        place for place, dtype in enumerate(frame.dtypes) if not is_numeric_dtype(dtype)
    ]
    write_text(f"{path}.md", tabulate(frame, **layout) + "\n")
    write_json(f"{path}.provenance.json", provenance)


def plot_gate_densities(frame: pd.DataFrame, *, limit: float = 4.0) -> Figure:
    """Density of the Gumbel gate: a panel per pre-activation, a line per temperature.

    Args:
        frame: columns ``a``, ``temperature``, ``value`` (of the gate, in (0, 1)), ``density``.
        limit: upper end of the density axis (below tau = 1 the density has no bound).
    """
    groups = list(frame.groupby("a", sort=False))
    figure, axes = panels(1, len(groups), width=3.1, height=3.0)
    temperatures = sorted(frame["temperature"].unique())
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.8, len(temperatures)))
    for axis, (a, panel) in zip(axes[0], groups, strict=True):
        for temperature, colour in zip(temperatures, colours, strict=True):
            line = panel[panel["temperature"] == temperature]
            axis.plot(line["value"], line["density"], color=colour, label=f"τ = {temperature:g}")
        axis.set(title=f"a = {a:g}", xlabel="gate value", ylim=(0, limit), **UNIT_INTERVAL)
    axes[0, 0].set_ylabel("density")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure


def plot_gate_sample(
    values: np.ndarray, grid: np.ndarray, density: np.ndarray, *, title: str, limit: float = 4.0
) -> Figure:
    """Histogram of gate values with a density drawn over it.

    Args:
        values: sampled gate values in [0, 1], any shape.
        grid, density: the curve, two arrays of one shape.
        title: title of the figure.
        limit: upper end of the density axis; the legend gives the share in the highest bin.
    """
    figure, axes = panels(1, 1, width=6.2, height=3.4)
    axis = axes[0, 0]
    shares, edges = np.histogram(values, bins=50, range=(0, 1))
    shares = shares / shares.sum()
    bars = {"color": GATE_COLOURS["gumbel"], "alpha": 0.35, "linewidth": 0}
    label = f"sample (highest bin: {shares.max():.0%})"
    axis.bar(edges[:-1], shares / edges[1], edges[1], align="edge", label=label, **bars)
    axis.plot(grid, density, color=GATE_COLOURS["gumbel"], label="density")
    axis.set(title=title, xlabel="gate value", ylabel="density", xlim=(0, 1), ylim=(0, limit))
    axis.legend(loc="upper center")
    return figure


def plot_proposition(frame: pd.DataFrame, *, ylabel: str = "P(G ≥ 1 − ε)") -> Figure:
    """Sampled probability (points) between the Proposition's bounds (band), a panel per tau.

    Args:
        frame: columns ``a``, ``temperature``, ``probability`` (sampled), ``lower``, ``upper``.
        ylabel: what the probability is of.
    """
    groups = list(frame.groupby("temperature"))
    figure, axes = panels(1, len(groups), width=2.6, height=3.0)
    for axis, (temperature, panel) in zip(axes[0], groups, strict=True):
        panel = panel.sort_values("a")
        band = {"color": GATE_COLOURS["sharpened"], "alpha": 0.35, "linewidth": 0}
        label = "between the bounds"
        axis.fill_between(panel["a"], panel["lower"], panel["upper"], label=label, **band)
        points = {"marker": "o", "linestyle": "", "color": GATE_COLOURS["gumbel"]}
        axis.plot(panel["a"], panel["probability"], label="sampled", **points)
        axis.set(title=f"τ = {temperature:g}", xlabel="pre-activation a", ylim=(-0.05, 1.05))
    axes[0, 0].set_ylabel(ylabel)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure


def plot_gate_histograms(histograms: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Gate histograms as in the paper: a row per model, a column per kind of gate.

    Args:
        histograms: for each model (a gate's name, or any text) the shares of values in equal bins
            of [0, 1], by "input" and "forget" (or any other text, which then titles the column);
            every model has the same columns.

    Raises:
        ValueError: shares that do not sum to 1.
    """
    columns = list(next(iter(histograms.values())))
    height = 2.3 if len(histograms) > 1 else 2.7
    width = 3.8 if len(columns) < 3 else 2.6
    figure, axes = panels(len(histograms), len(columns), width=width, height=height)
    for row, (model, shares_of) in zip(axes, histograms.items(), strict=True):
        colour = GATE_COLOURS.get(model, OTHER_COLOURS[0])
        for axis, column in zip(row, columns, strict=True):
            shares = np.asarray(shares_of[column])
            if not np.isclose(shares.sum(), 1.0):
                raise ValueError(
                    f"shares of {model}, {column} sum to {shares.sum():g}, not to 1; "
                    "pass what inspection.gate_histogram returns"
                )
            left = np.arange(len(shares)) / len(shares)
            axis.bar(left, shares, 1 / len(shares), align="edge", edgecolor="white", color=colour)
            axis.grid(False, axis="x")
        row[0].set_ylabel(f"{GATE_LABELS.get(model, model)}\nshare of values")
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(f"{column} gate" if column in ("input", "forget") else column)
    for axis in axes[-1]:
        axis.set(xlabel="gate value", **UNIT_INTERVAL)
    axes[0, 0].yaxis.set_major_formatter(ticker.PercentFormatter(xmax=1, decimals=0))
    return figure


def plot_gate_curves(
    frame: pd.DataFrame, *, x: str, y: str, xlabel: str, ylabel: str, log_y: bool = False
) -> Figure:
    """A line per gate: its mean over the seeds, with the range over the seeds as a band.

    Args:
        frame: columns ``gate`` (a gate's name, or any text), ``x`` and ``y``; several rows of one
            gate and x are the seeds.
        x, y: names of the columns to draw.
        xlabel, ylabel: labels of the axes.
        log_y: whether the y axis is logarithmic.
    """
    figure, axes = panels(1, 1, width=6.2, height=3.8)
    axis = axes[0, 0]
    colours = gate_colours(frame["gate"].unique())
    for gate, colour in colours.items():
        line = frame[frame["gate"] == gate].groupby(x)[y].agg(["mean", "min", "max"])
        look = {"color": colour, "marker": GATE_MARKERS.get(gate)}
        every, label = max(1, len(line) // 12), GATE_LABELS.get(gate, gate)
        axis.plot(line.index, line["mean"], markevery=every, label=label, **look)
        band = {"color": colour, "alpha": 0.2, "linewidth": 0}
        axis.fill_between(line.index, line["min"], line["max"], **band)
    if log_y:
        axis.set_yscale("log")
        wide = frame[y].max() > 2 * frame[y].min()
        some = ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)) if wide else ticker.MaxNLocator(6)
        axis.yaxis.set_major_locator(some)
        axis.yaxis.set_minor_locator(ticker.NullLocator())
        axis.yaxis.set_major_formatter(ticker.ScalarFormatter())
    if pd.api.types.is_integer_dtype(frame[x]):
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.legend()
    return figure


def plot_learning_curves(
    frame: pd.DataFrame, *, y: str = "valid_perplexity", floor: float | None = None
) -> Figure:
    """Perplexity by epoch on a logarithmic axis; a line per gate: mean and range over the seeds.

    Args:
        frame: columns ``gate``, ``seed``, ``epoch`` and ``y``.
        y: column to draw, a perplexity.
        floor: the least perplexity possible, where it is known; drawn as a dashed line.
    """
    ylabel = y.replace("valid_", "validation_").replace("_", " ")
    figure = plot_gate_curves(frame, x="epoch", y=y, xlabel="epoch", ylabel=ylabel, log_y=True)
    _draw_floor(figure.axes[0], floor)
    return figure


def plot_test_metric(
    frame: pd.DataFrame, *, y: str, ylabel: str, floor: float | None = None
) -> Figure:
    """A final measurement: a column per gate, a point per seed, the mean as a line with its value.

    Args:
        frame: columns ``gate``, ``seed`` and ``y``.
        y: column to draw.
        ylabel: label of the axis.
        floor: the least perplexity possible, where it is known; drawn as a dashed line.
    """
    figure, axes = panels(1, 1, width=5.2, height=3.6)
    axis = axes[0, 0]
    colours = gate_colours(frame["gate"].unique())
    for place, (gate, colour) in enumerate(colours.items()):
        values = frame[frame["gate"] == gate].sort_values("seed")[y].to_numpy()
        spread = place + np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [place]
        axis.plot(spread, values, linestyle="", marker=GATE_MARKERS.get(gate, "o"), color=colour)
        axis.hlines(values.mean(), place - 0.28, place + 0.28, color=colour)
        axis.text(place + 0.31, values.mean(), f"{values.mean():.2f}", va="center", fontsize=10)
    axis.set(xlim=(-0.6, len(colours) - 0.2), ylabel=ylabel)
    axis.set_xticks(range(len(colours)), [GATE_LABELS.get(gate, gate) for gate in colours])
    axis.set_xlabel("model (points: seeds, line: mean)")
    axis.grid(False, axis="x")
    _draw_floor(axis, floor)
    return figure


def plot_attention(weights: np.ndarray, source: Sequence[str], target: Sequence[str]) -> Figure:
    """Attention weights of one translation: a row per target subword, a column per source subword.

    Args:
        weights: [T, S], each row a distribution over the source.
        source, target: the S and T subwords, for the axes.

    Raises:
        ValueError: the subwords are not as many as the rows and columns.
    """
    if weights.shape != (len(target), len(source)):
        raise ValueError(
            f"weights are {weights.shape}, but there are {len(target)} target and {len(source)} "
            "source subwords"
        )
    width, height = 2.2 + 0.34 * len(source), 2.0 + 0.3 * len(target)
    figure, axes = panels(1, 1, width=width, height=height)
    axis = axes[0, 0]
    image = axis.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axis.set_xticks(range(len(source)), source, rotation=90)
    axis.set_yticks(range(len(target)), target)
    axis.set(xlabel="source subword", ylabel="target subword")
    axis.grid(False)
    figure.colorbar(image, label="attention weight", shrink=0.8)
    return figure


class _Figure(Figure):
    def _repr_png_(self) -> bytes:
        """What a notebook shows; without it only one with `%matplotlib inline` would."""
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


def panels(
    rows: int, columns: int, *, width: float, height: float, sharex: bool = True
) -> tuple[Figure, np.ndarray]:
    """A figure with rows x columns axes of width x height inches each, with common scales."""
    figure = _Figure(figsize=(width * columns, height * rows), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)  # or the "1" of a scale touches the next one's "0"
    axes = figure.subplots(rows, columns, sharex=sharex, sharey=True, squeeze=False)
    return figure, axes


def _draw_floor(axis: Axes, floor: float | None) -> None:
    if floor is not None:
        axis.axhline(floor, color="0.4", linestyle="--", linewidth=1.2)
        place = {"transform": axis.get_yaxis_transform(), "va": "bottom", "fontsize": 10}
        axis.text(0.01, floor, f"entropy floor {floor:.2f}", color="0.3", **place)


def gate_colours(names: Iterable[str]) -> dict[str, str]:
    """Colour of each name: the paper's gates first and in its order, then the others as given."""
    names = list(names)
    gates = [gate for gate in GATE_COLOURS if gate in names]
    others = [name for name in names if name not in GATE_COLOURS]
    if len(others) > len(OTHER_COLOURS):
        most = len(OTHER_COLOURS)
        raise ValueError(f"draw at most {most} lines besides the gates, got {others}")
    known = {gate: GATE_COLOURS[gate] for gate in gates}
    return known | dict(zip(others, OTHER_COLOURS, strict=False))
