"""Tables of gates and of their alignment with language: means and spreads by hand."""

import pytest

from g2lstm.gate_tables import (
    contrasts_frame,
    contrasts_table,
    gate_table,
    histograms,
    means_frame,
    paper_histograms,
    profile_frame,
    units_table,
)
from made_up_runs import alignment, made_up_run, profile


def test_profiles_by_layer_and_together():
    runs = [made_up_run("gumbel", 1), made_up_run("gumbel", 2)]
    frame = profile_frame(zip(runs, (profile(0.5), profile(0.7)), strict=True))
    assert frame["layer"].unique().tolist() == ["all", "layer 1", "upper decoder 2, backwards"]
    table = gate_table(frame).iloc[0]
    assert table["input saturation, sentence"] == "0.60 ± 0.14"
    assert table["mean forget gate"] == "0.60 ± 0.00"
    together = histograms(frame)["gumbel"]["input"]
    assert together.sum() == pytest.approx(1)
    assert together[0] == pytest.approx(0.3)
    assert list(histograms(frame, by="layer")) == ["layer 1", "upper decoder 2, backwards"]


def test_paper_histograms_sum_to_one():
    rows = paper_histograms()
    assert list(rows) == ["LSTM (paper)", "G2-LSTM (paper)"]
    for kinds in rows.values():
        assert all(shares.sum() == pytest.approx(1) for shares in kinds.values())


def test_contrasts_over_seeds_and_with_one_seed():
    measured = [(made_up_run("gumbel", s), alignment(-1.0 - 0.2 * s, 0.5)) for s in (1, 2)]
    measured.append((made_up_run("sigmoid", 1), alignment(-0.3, 0.5)))
    frame = contrasts_frame(measured)
    table = contrasts_table(frame).set_index(["contrast", "gate"])
    cell = table.loc[("clause boundary - other words", "forget")]
    assert cell["G2-LSTM"] == "-1.30 ± 0.14"
    assert cell["LSTM"] == "-0.30 [-0.40, -0.20]"
    assert len(means_frame(measured)) == 12
    units = units_table(measured).set_index("model")
    assert units.loc["G2-LSTM", "AUC"] == "0.800 ± 0.000"
    assert units.loc["G2-LSTM", "lower on the first group"] == "2 of 2"
