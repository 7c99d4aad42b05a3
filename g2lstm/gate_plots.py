"""Figures of gate values: histograms over the paper's, and sentences word by word.

As in `plots`, every function returns a new figure that pyplot does not know.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from g2lstm.plots import GATE_COLOURS, GATE_LABELS, PAPER_COLOUR, UNIT_INTERVAL, panels

Shares = Mapping[str, np.ndarray]  # by the model's name
Rows = Mapping[str, Mapping[str, Sequence[float]]]  # by kind of gate and model, word by word


def plot_outlines(
    rows: Mapping[str, Mapping[str, Shares]],
    bars: Mapping[str, Shares] | None = None,
    *,
    title: str,
    label: str = "the paper",
) -> Figure:
    """Gate histograms as outlines over each other: a row as given, a column a kind of gate.

    Args:
        rows: by row and kind of gate the shares of values in equal bins of [0, 1] by model: a
            gate's name (its outline is solid), or its label with settings in brackets (dashed, in
            the colour of its gate).
        bars: by row and kind of gate shares to be drawn as bars behind the outlines.
        title: of the figure.
        label: of the bars.

    Raises:
        ValueError: shares that do not sum to 1.
    """
    kinds = list(next(iter(rows.values())))
    height = 2.4 if bars else 1.6 + 1.2 / len(rows)
    figure, axes = panels(len(rows), len(kinds), width=4.0, height=height)
    handles = {label: Patch(color=PAPER_COLOUR, label=label)} if bars else {}
    for row, (name, of_kind) in zip(axes, rows.items(), strict=True):
        for axis, kind in zip(row, kinds, strict=True):
            if bars:
                shares = _checked(bars[name][kind], f"{label}, {name}, {kind}")
                left = np.arange(len(shares)) / len(shares)
                look = {"align": "edge", "edgecolor": "white", "color": PAPER_COLOUR}
                axis.bar(left, shares, 1 / len(shares), **look)
            for model, values in of_kind[kind].items():
                handles[model] = _outline(axis, model, _checked(values, f"{model}, {name}, {kind}"))
            axis.grid(False, axis="x")
        row[0].set_ylabel(name.replace(", ", ",\n"))
    for axis, kind in zip(axes[0], kinds, strict=True):
        axis.set_title(f"{kind} gate")
    for axis in axes[-1]:
        axis.set(xlabel="gate value", **UNIT_INTERVAL)
    axes[0, 0].yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes[0, 0].set_ylim(bottom=0)
    figure.supylabel("share of values", fontsize="medium")
    figure.suptitle(title, fontsize="medium")
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4)
    return figure


def plot_words(
    ours: Rows, words: Sequence[str], *, title: str, paper: Rows | None = None
) -> Figure:
    """Mean gate value word by word, as in the paper's case study: a panel a gate, a row a model.

    The colours of a panel span the range of its values.

    Args:
        ours: by kind of gate and model the mean gate value at each word, in [0, 1].
        words: for the columns.
        title: of the figure.
        paper: the same of the paper, below a line.

    Raises:
        ValueError: a row that is not as long as the words.
    """
    paper = paper or {}
    number = max(len(rows) + len(paper.get(kind, {})) for kind, rows in ours.items())
    size = {"width": 3.2 + 0.62 * len(words), "height": 1.0 + 0.42 * number}
    figure, axes = panels(len(ours), 1, **size)
    for (kind, rows), axis in zip(ours.items(), axes[:, 0], strict=True):
        theirs = {f"{model}, the paper": row for model, row in paper.get(kind, {}).items()}
        every = {**rows, **theirs}
        for model, row in every.items():
            if len(row) != len(words):
                raise ValueError(f"{model}, {kind}: {len(row)} values for {len(words)} words")
        values = np.array(list(every.values()))
        image = axis.imshow(values, cmap="cividis", aspect="auto")
        middle = (values.min() + values.max()) / 2
        for (row, column), value in np.ndenumerate(values):
            look = {"color": "white" if value < middle else "black", "fontsize": 9}
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", **look)
        if theirs:
            axis.axhline(len(rows) - 0.5, color="white", linewidth=5)
        axis.set_yticks(range(len(every)), list(every))
        axis.set_title(_with_correlation(kind, rows, paper.get(kind)))
        axis.grid(False)
        figure.colorbar(image, ax=axis, label="mean gate", shrink=0.9)
    axis.set_xticks(range(len(words)), words, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_xlabel("word, as it is read")
    figure.suptitle(title, fontsize="medium")
    return figure


def _with_correlation(
    kind: str, rows: Mapping[str, Sequence[float]], paper: Mapping[str, Sequence[float]] | None
) -> str:
    """Name of the gate, with the correlation over the words of two models' rows."""
    if len(rows) != 2:
        return f"{kind} gate"
    text = f"{kind} gate; {' with '.join(rows)}: r = {correlation(rows):.2f}"
    return text + (f", in the paper {correlation(paper):.2f}" if paper else "")


def correlation(rows: Mapping[str, Sequence[float]]) -> float:
    """Pearson's correlation over the words of the gates of two models."""
    one, other = rows.values()
    return float(np.corrcoef(one, other)[0, 1])


def _outline(axis: Axes, model: str, shares: np.ndarray) -> Line2D:
    """Draw it; return what stands for it in the legend."""
    gate = next(
        gate
        for gate, label in GATE_LABELS.items()
        if model == gate or model.startswith(f"{label} (")
    )
    style = "-" if model == gate else "--"
    look = {"color": GATE_COLOURS[gate], "linestyle": style, "linewidth": 1.8}
    axis.stairs(shares, np.linspace(0, 1, len(shares) + 1), baseline=None, **look)
    return Line2D([], [], label=GATE_LABELS.get(model, model), **look)


def _checked(shares: np.ndarray, name: str) -> np.ndarray:
    shares = np.asarray(shares)
    if not np.isclose(shares.sum(), 1.0):
        raise ValueError(
            f"shares of {name} sum to {shares.sum():g}, not to 1; "
            "pass what inspection.gate_histogram returns"
        )
    return shares
