"""Histograms over the paper's, and sentences word by word: what is drawn is what is given."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import StepPatch

from g2lstm.gate_plots import plot_outlines, plot_words
from g2lstm.plots import GATE_COLOURS, PAPER_COLOUR

LOW, HIGH = np.arange(10.0, 0, -1) / 55, np.arange(1.0, 11) / 55
FLAT = np.full(10, 0.1)
KINDS = ("input", "forget")


def drawn(figure):
    """Draw it, so that a wrong layout or font fails here; its axes."""
    figure.canvas.draw()
    return figure.axes


def steps(axis):
    return [patch for patch in axis.patches if isinstance(patch, StepPatch)]


def test_outlines_lie_over_the_papers_bars():
    rows = {
        "LSTM": {kind: {"sigmoid": LOW} for kind in KINDS},
        "G2-LSTM": {"input": {"gumbel": FLAT, "G2-LSTM (p=1)": HIGH}, "forget": {"gumbel": LOW}},
    }
    bars = {name: {"input": HIGH, "forget": FLAT} for name in rows}
    figure = plot_outlines(rows, bars, title="ptb, small: all layers", label="the paper")
    axes = drawn(figure)
    assert [axis.get_title() for axis in axes] == ["input gate", "forget gate", "", ""]
    assert figure.get_suptitle() == "ptb, small: all layers"
    for axis, values in zip(axes, (HIGH, FLAT, HIGH, FLAT), strict=True):
        bars = [patch for patch in axis.patches if not isinstance(patch, StepPatch)]
        assert [bar.get_height() for bar in bars] == pytest.approx(values)
        assert {to_hex(bar.get_facecolor()).upper() for bar in bars} == {PAPER_COLOUR}
    assert PAPER_COLOUR not in GATE_COLOURS.values()
    outlines = steps(axes[2])
    assert [outline.get_data().values.tolist() for outline in outlines] == [
        FLAT.tolist(), HIGH.tolist(),
    ]  # fmt: skip
    assert outlines[0].get_data().edges == pytest.approx(np.linspace(0, 1, 11))
    assert [outline.get_linestyle() for outline in outlines] == ["-", "--"]
    colours = {to_hex(outline.get_edgecolor()).upper() for outline in outlines}
    assert colours == {GATE_COLOURS["gumbel"]}, "G2-LSTM in another setting has its colour"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["the paper", "LSTM", "G2-LSTM", "G2-LSTM (p=1)"]


def test_outlines_without_the_paper():
    rows = {
        f"layer {n}": {kind: {"sigmoid": LOW, "gumbel": HIGH} for kind in KINDS} for n in (1, 2)
    }
    axes = drawn(plot_outlines(rows, title="ptb"))
    assert [axis.get_ylabel() for axis in axes[::2]] == ["layer 1", "layer 2"]
    assert all(len(axis.patches) == 2 for axis in axes)


@pytest.mark.parametrize("wrong", ["ours", "the paper"])
def test_shares_that_do_not_sum_to_one_are_refused(wrong):
    ours = LOW * (2 if wrong == "ours" else 1)
    theirs = LOW * (2 if wrong == "the paper" else 1)
    with pytest.raises(ValueError, match="sum to 2, not to 1"):
        plot_outlines({"LSTM": {"input": {"sigmoid": ours}}}, {"LSTM": {"input": theirs}}, title="")


def test_words_have_a_panel_a_gate_and_the_papers_rows_below():
    ours = {
        "forget": {"LSTM": [0.5, 0.4, 0.3], "G2-LSTM": [0.6, 0.5, 0.2]},
        "input": {"LSTM": [0.1, 0.3, 0.2], "G2-LSTM": [0.3, 0.1, 0.2]},
    }
    paper = {
        "forget": {"LSTM": [0.3, 0.2, 0.4], "G2-LSTM": [0.3, 0.3, 0.9]},
        "input": {"LSTM": [0.8, 0.9, 1.0], "G2-LSTM": [0.8, 0.9, 0.85]},
    }
    figure = plot_words(ours, ["a", "cat", "."], title="ptb: all layers", paper=paper)
    forget, inputs, *_ = drawn(figure)
    assert [tick.get_text() for tick in inputs.get_xticklabels()] == ["a", "cat", "."]
    assert [tick.get_text() for tick in forget.get_yticklabels()] == [
        "LSTM", "G2-LSTM", "LSTM, the paper", "G2-LSTM, the paper",
    ]  # fmt: skip
    table = np.array([*ours["forget"].values(), *paper["forget"].values()])
    np.testing.assert_allclose(forget.images[0].get_array(), table)
    assert forget.images[0].get_clim() == (0.2, 0.9), "the range of the data of this panel"
    assert inputs.images[0].get_clim() == (0.1, 1.0)
    assert [text.get_text() for text in forget.texts][:3] == ["0.50", "0.40", "0.30"]
    r_ours, r_paper = (np.corrcoef(*part["forget"].values())[0, 1] for part in (ours, paper))
    assert forget.get_title() == (
        f"forget gate; LSTM with G2-LSTM: r = {r_ours:.2f}, in the paper {r_paper:.2f}"
    )
    assert inputs.get_title() == "input gate; LSTM with G2-LSTM: r = -1.00, in the paper 0.50"


def test_words_of_one_model_without_the_paper():
    ours = {"forget": {"LSTM": [0.5, 0.25]}}
    axis, _ = drawn(plot_words(ours, ["a", "b"], title="quick"))
    assert axis.get_title() == "forget gate"
    with pytest.raises(ValueError, match="LSTM, forget: 2 values for 1 words"):
        plot_words(ours, ["a"], title="quick")
