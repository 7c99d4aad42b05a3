"""Tables over measurements: means, spreads and changes by hand; the paper's rows as they are."""

import numpy as np
import pandas as pd
import pytest

from g2lstm.analysis import (
    ablation_table,
    compression_sizes,
    compression_table,
    curves_frame,
    default_runs,
    gap_table,
    of_seeds,
    perturbation_frame,
    setting_of,
)
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
from g2lstm.paper import CLAIMS
from g2lstm.report import statistics_table, verdict_table
from g2lstm.verdicts import HOLDS, OPEN, Statistic
from made_up_runs import alignment, compression, gates, made_up_run

COLUMNS = ("result", "round", "round & clip", "SVD", "SVD+")


def profile(share):
    together = {"module": None, "layer": None, "reverse": None} | gates(share)
    parts = [
        {"module": "layers.0", "layer": 0, "reverse": False} | gates(share - 0.1),
        {"module": "upper_decoder", "layer": 1, "reverse": True} | gates(share + 0.1),
    ]
    return {mode: [together, *parts] for mode in ("evaluation", "training", "sentence")}


def test_compression_table_by_hand():
    rows = [
        compression(dict(zip(COLUMNS, values, strict=True)))
        for values in ([10.0, 11.0, 12.0, 13.0, 14.0], [12.0, 12.0, 13.0, 14.0, 17.0])
    ]
    runs = [made_up_run("sigmoid", seed) for seed in (1, 2)]
    table = compression_table(zip(runs, rows, strict=True))
    first = table.iloc[0]
    assert first["model"] == "LSTM"
    assert first["seeds"] == "2"
    assert first["result"] == "11.00 ± 1.41"
    assert first["SVD+"] == "15.50 ± 2.12 (+4.50)"
    paper = table[table["model"] == "G2-LSTM, paper (Penn Treebank)"].iloc[0]
    assert (paper["result"], paper["SVD+"]) == ("52.1", "56.0 (+3.9)")
    assert len(table) == 4


def test_compression_table_of_translation_has_both_corpora_of_the_paper():
    run = made_up_run("gumbel", 1, "translation")
    table = compression_table([(run, compression(dict.fromkeys(COLUMNS, 30.0)))])
    assert table.iloc[0]["round"] == "30.00 (+0.00)"
    assert [m for m in table["model"] if "G2-LSTM, paper" in m] == [
        "G2-LSTM, paper (IWSLT'14 de-en)",
        "G2-LSTM, paper (WMT'14 en-de)",
    ]
    assert table.set_index("model").loc["LSTM, paper (WMT'14 en-de)", "round"] == "16.22 (-5.67)"


def test_a_result_that_is_infinite_is_called_so():
    values = dict.fromkeys(COLUMNS, 10.0) | {"SVD+": None}
    table = compression_table([(made_up_run("sigmoid", 1), compression(values))])
    assert table.iloc[0]["SVD+"] == "infinite"


def test_sizes_are_relative_to_the_result():
    values = dict.fromkeys(COLUMNS, 10.0)
    sizes = compression_sizes([(made_up_run("sigmoid", 1), compression(values))])
    assert sizes["relative size"].tolist() == [1.0, 0.5, 0.5, 0.5, 0.5]
    assert sizes["relative work"].eq(1).all()


def test_curves_are_against_the_same_run():
    curve = [
        {"kind": "none", "setting": 0.0, "loss": 2.0, "bleu": 30.0, "bits": 32},
        {"kind": "step", "setting": 0.2, "loss": 2.5, "bleu": 28.0, "bits": 4},
        {"kind": "step", "setting": 9.0, "loss": None, "bleu": 0.0, "bits": 1},
    ]
    frame = curves_frame([(made_up_run("gumbel", 3), curve)])
    assert frame["loss_change"].tolist() == [0.0, 0.5, np.inf]
    assert frame["perplexity_ratio"][1] == pytest.approx(np.exp(0.5))
    assert frame["bleu_change"].tolist() == [0.0, -2.0, -30.0]
    assert set(frame["seed"]) == {3}


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


def test_perturbation_is_the_rise_over_directions():
    found = [
        {"direction": d, "norm": norm, "loss": loss}
        for d in (0, 1)
        for norm, loss in ((0.0, 2.0), (0.5, 2.2 + 0.2 * d))
    ]
    frame = perturbation_frame([(made_up_run("sigmoid", 1), found)])
    assert frame["loss_rise"].tolist() == pytest.approx([0.0, 0.3])


def test_gap_is_test_minus_seen():
    run = made_up_run("sigmoid", 1)
    gap = np.log(run.summary["test_perplexity"] / run.summary["train_perplexity"])
    assert gap_table([run]).iloc[0]["gap"] == f"{gap:.4f}"


def test_ablations_are_against_the_default_of_the_same_seed():
    runs = [
        made_up_run("gumbel", 1),
        made_up_run("gumbel", 2),
        made_up_run("gumbel", 2, noise_probability=1.0),
        made_up_run("sigmoid", 1),
    ]
    losses = [2.0, 3.0, 3.5, 2.25]
    measured = [
        (run, {"loss": x, "loss_svd_plus": x + 0.1, "loss_seen": x - 0.2})
        for run, x in zip(runs, losses, strict=True)
    ]
    for _, found in measured[:3]:
        found["loss_temperature_in_evaluation"] = found["loss"] + 0.01
    profiles = profile_frame((run, profile(0.5)) for run in runs)
    table = ablation_table(measured, profiles).set_index("model")
    assert table.loc["G2-LSTM (p=1)", "change, nats"] == "0.5000"
    assert table.loc["LSTM", "change, nats"] == "0.2500"
    assert table.loc["G2-LSTM", "change, nats"] == "0.0000 ± 0.0000"
    row = table.loc["G2-LSTM (tau in evaluation too)"]
    assert row["change, nats"] == "0.0100 ± 0.0000"
    assert table.loc["G2-LSTM (p=1)", "cost of SVD+, nats"] == "0.1000"
    assert table.loc["G2-LSTM (p=1)", "gap, nats"] == "0.2000"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "default"),
        ({"noise_probability": 1.0}, "noise_probability"),
        ({"temperature": 2.0}, "temperature"),
        ({"schedule": "linear", "temperature": 2.0, "temperature_end": 0.5}, "schedule"),
        ({"overrides": {"noise_eps": 1e-6}}, "noise_eps"),
        ({"temperature": 2.0, "noise_probability": 1.0}, None),
    ],
)
def test_the_one_setting_that_departs(settings, expected):
    assert setting_of(made_up_run("gumbel", 1, **settings)) == expected


def test_other_gates_have_no_setting_of_g2_lstm():
    assert setting_of(made_up_run("sharpened", 1)) is None


def test_choice_of_runs():
    runs = [made_up_run("gumbel", 1), made_up_run("gumbel", 2, noise_probability=0.0)]
    assert default_runs(runs) == runs[:1]
    assert of_seeds(runs, [2]) == runs[1:]
    assert of_seeds(runs, None) == runs


def test_tables_of_statistics_and_verdicts():
    part = Statistic(
        3, "language-model", "grammar", "share", "share", "above", 0.5, (0.7, 0.71), (1, 2), 0.6
    )
    other = Statistic(
        1, "translation", "grammar-de-en", "worse", "BLEU", "below", 0.5, (0.1,), (1,)
    )
    row = statistics_table([part, other]).iloc[0]
    assert row["verdict"] == HOLDS
    assert row["the claim says"] == "above 0.5"
    assert row["paper"] == "0.600"
    assert row["95 % interval"] == "[0.641, 0.769]"
    table = verdict_table([part, other])
    assert table["claim"].tolist() == [f"{n}. {CLAIMS[n]}" for n in (1, 3)]
    assert table["grammar"].tolist() == ["not measured", HOLDS]
    assert table["grammar-de-en"].tolist() == [OPEN, "not measured"]
    assert isinstance(table, pd.DataFrame)
