"""The figures of the analyses show what they are given, with labelled axes."""

import numpy as np
import pandas as pd
import pytest

from g2lstm.analysis_plots import (
    plot_bits,
    plot_effects,
    plot_groups,
    plot_robustness,
    plot_surfaces,
)
from g2lstm.plots import GATE_COLOURS, GATE_LABELS

GATES = list(GATE_COLOURS)


@pytest.fixture
def curves():
    return pd.DataFrame(
        {"gate": gate, "seed": seed, "kind": kind, "setting": setting, "bits": bits, "y": y + seed}
        for gate in GATES
        for seed in (1, 3)
        for kind, settings in (("step", (0.1, 0.5)), ("clip", (0.4, 1.0)), ("rank", (32, 4)))
        for setting, bits, y in zip(settings, (8, 2), (10.0, 20.0), strict=True)
    )


def drawn(figure):
    """Draw it, so that a wrong layout or font fails here; its axes."""
    figure.canvas.draw()
    return figure.axes


def test_robustness_has_a_panel_a_compression_and_a_line_a_gate(curves):
    axes = drawn(plot_robustness(curves, y="y", ylabel="loss"))
    assert len(axes) == 3
    for axis in axes:
        assert axis.get_xlabel()
        assert [line.get_label() for line in axis.lines] == list(GATE_LABELS.values())
        assert all(sorted(line.get_ydata()) == [12.0, 22.0] for line in axis.lines)
    assert axes[0].get_ylabel() == "loss"
    assert axes[2].xaxis_inverted(), "stronger to the right"
    assert not axes[0].xaxis_inverted()


def test_robustness_leaves_out_what_is_infinite(curves):
    curves["y"] = np.where(curves["setting"] == 0.5, np.inf, curves["y"])
    axis, *_ = drawn(plot_robustness(curves, y="y", ylabel="loss", log_y=True))
    assert np.isnan(axis.lines[0].get_ydata()).tolist() == [False, True]


def test_bits_draw_rounding_and_low_rank(curves):
    (axis,) = drawn(plot_bits(curves, y="y", ylabel="change"))
    assert len(axis.lines) == 2 * len(GATES)
    assert axis.xaxis_inverted()
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == [*GATE_LABELS.values(), "round", "low rank"]


def test_effects_draw_seeds_and_their_mean():
    frame = pd.DataFrame(
        {"of": gate, "contrast": name, "gate": "forget", "effect": effect}
        for gate in GATES
        for name in ("boundary", "function")
        for effect in (-1.0, -2.0)
    )
    (axis,) = drawn(plot_effects(frame, gate="forget"))
    means = [line for line in axis.lines if line.get_markersize() == 8]
    assert [line.get_xdata()[0] for line in means] == [-1.5] * 6
    assert axis.get_title() == "forget gate"
    (axis,) = drawn(plot_effects(frame, gate="forget", about="ptb, small: layer 1"))
    assert axis.get_title() == "ptb, small: layer 1, forget gate"
    assert [t.get_text() for t in axis.get_yticklabels()] == ["boundary", "function"]


def test_groups_have_a_row_a_label_and_a_panel_a_gate():
    frame = pd.DataFrame(
        {"of": "gumbel", "label": label, "gate": gate, "mean": mean}
        for label, mean in (("noun", 0.25), ("verb", 0.5))
        for gate in ("input", "forget")
    )
    axes = drawn(plot_groups(frame))
    assert [axis.get_xlabel() for axis in axes] == ["mean input gate", "mean forget gate"]
    assert list(axes[0].lines[0].get_xdata()) == [0.25, 0.5]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["noun", "verb"]


def test_surfaces_share_one_scale():
    steps = [-1.0, 0.0, 1.0]
    bowl = np.add.outer(np.square(steps), np.square(steps))
    figure = plot_surfaces({"sigmoid": (steps, 2 + bowl), "gumbel": (steps, 3 + 0.01 * bowl)})
    *axes, bar = drawn(figure)
    assert [axis.get_title() for axis in axes] == ["LSTM", "G2-LSTM"]
    meshes = [axis.collections[0] for axis in axes]
    assert meshes[0].norm is meshes[1].norm
    assert meshes[0].get_array().max() == pytest.approx(2.0)
    assert meshes[1].get_array().max() == pytest.approx(0.02)
    assert "nats a token" in bar.get_ylabel()


def test_a_surface_that_is_not_finite_is_drawn_at_the_top():
    steps = [-1.0, 0.0, 1.0]
    loss = np.full((3, 3), 2.0)
    loss[0, 0], loss[2, 2] = np.nan, 2.5
    axis, *_ = drawn(plot_surfaces({"sigmoid": (steps, loss)}))
    assert axis.collections[0].get_array()[0, 0] == pytest.approx(0.5)
