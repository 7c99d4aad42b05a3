"""The forest plot: every primary effect beside the paper's, in one picture."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from g2lstm.plots import PAPER_COLOUR, panels
from g2lstm.verdict_rule import MARGIN, NO_PAPER, NOT_MEASURED, OPEN, WEAKER

COLOURS, MARKERS = ("#0072B2", "#CC79A7", "#E69F00"), "osv"
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}
LIMITS = (-2.0, 3.0)  # shares of the paper's effect; what lies beyond is an arrow


def plot_forest(rows: Sequence[dict[str, Any]], preset: str) -> Figure:
    """Our effect divided by the paper's, with 95 % intervals: a row a statistic and p.

    Args:
        rows: primary statistics of all corpora, as `verdicts.judge` returns them.
        preset: for the title.

    Raises:
        ValueError: more corpora than colours, or nothing to compare.
    """
    rows = [row for row in rows if row["verdict"] != NO_PAPER]
    corpora = list(dict.fromkeys(row["corpus"] for row in rows))
    measured = [row for row in rows if row["verdict"] != NOT_MEASURED]
    if not measured:
        raise ValueError("nothing to draw: no effect was measured that the paper has too")
    if len(corpora) > len(COLOURS):
        raise ValueError(f"draw at most {len(COLOURS)} corpora, got {corpora}")
    places = sorted({(row["noise"], row["number"], row["name"]) for row in measured})
    figure, axes = panels(1, 1, width=11.0, height=1.9 + 0.72 * len(places))
    axis = axes[0, 0]
    _draw_zones(axis)
    step = 0.68 / len(corpora)
    for y, place in enumerate(places):
        for index, corpus in enumerate(corpora):
            for row in rows:
                if (row["noise"], row["number"], row["name"], row["corpus"]) == (*place, corpus):
                    _draw_effect(axis, y + step * (index - (len(corpora) - 1) / 2), row, index)
        if y and places[y - 1][0] != place[0]:
            axis.axhline(y - 0.5, color="0.4", linewidth=1)
    for index, corpus in enumerate(corpora):
        label = f"{corpus}, {_seeds([row for row in measured if row['corpus'] == corpus])}"
        axis.plot([], [], color=COLOURS[index], marker=MARKERS[index], markersize=8, label=label)
    axis.set_yticks(
        range(len(places)), [f"{name}\np = {noise:g}" for noise, _, name in places], fontsize=11
    )
    axis.tick_params(axis="y", pad=12)  # room for an arrow
    axis.set(xlim=LIMITS, ylim=(len(places) - 0.5, -1.05))
    axis.set_xlabel("our effect divided by the paper's (bars: 95 % intervals)")
    axis.grid(False)
    figure.legend(loc="outside upper center", ncols=len(corpora), fontsize=12, title=(
        f"Preset {preset}: is it the paper's effect?"
    ), title_fontsize=13)  # fmt: skip
    return figure


def _seeds(rows: Sequence[dict[str, Any]]) -> str:
    counts = sorted({len(seeds) for row in rows for seeds in row["seeds"]})
    return "no runs" if not counts else f"{' or '.join(map(str, counts))} seeds a model"


def _draw_zones(axis: Axes) -> None:
    axis.axvspan(MARGIN, LIMITS[1], color=PAPER_COLOUR, alpha=0.25, linewidth=0)
    axis.axvspan(LIMITS[0], 0, color="0.5", alpha=0.1, linewidth=0)
    axis.axvline(0, color="0.3", linewidth=1.2)
    axis.axvline(1, color=PAPER_COLOUR, linewidth=5, zorder=1)
    words = {"va": "center", "fontsize": 12}
    axis.text(-1.0, -0.75, "opposite", color="0.3", ha="center", **words)
    axis.text(0.0, -0.75, " none ", color="0.3", ha="center", **words, bbox=WHITE)
    axis.text(1.04, -0.75, "as in the paper", color="0.2", weight="bold", ha="left", **words)


def _draw_effect(axis: Axes, y: float, row: dict[str, Any], index: int) -> None:
    colour, words = COLOURS[index], {"va": "center", "fontsize": 11}
    margin = LIMITS[1] + 0.06
    if row["verdict"] == NOT_MEASURED:
        axis.text(margin, y, NOT_MEASURED, color="0.6", **words)
        return
    left, right = LIMITS
    if row["interval"] is not None:
        low, high = sorted(end / row["paper"] for end in row["interval"])
        if high > left and low < right:
            axis.plot([max(low, left), min(high, right)], [y, y], color=colour, linewidth=2.4)
        for beyond, end, head in ((low < left, left, "<"), (high > right, right, ">")):
            if beyond:
                axis.plot(end, y, marker=head, color=colour, markersize=10, clip_on=False)
    if left <= row["share"] <= right:
        axis.plot(row["share"], y, marker=MARKERS[index], color=colour, markersize=8)
    else:
        beyond = right if row["share"] > right else left
        side = "right" if row["share"] > right else "left"
        axis.plot(beyond, y, marker="<" if side == "left" else ">", color=colour, markersize=10,
                  clip_on=False)  # fmt: skip
        shift = 0.08 if side == "left" else -0.08
        axis.text(beyond + shift, y, f"{row['share']:.1f}", color=colour, ha=side, **words)
    verdict = row["verdict"]
    if verdict == OPEN and row["seeds_needed"]:
        verdict += f" ({row['seeds_needed']} seeds)"
    if verdict == WEAKER:
        verdict += f" ({row['share']:.0%})"
    axis.text(margin, y, verdict, color=colour, **words)
