"""Tables over measurements: means, spreads and changes by hand; the paper's rows as they are."""

import numpy as np
import pytest

from g2lstm.analysis import (
    ablation_table,
    compression_sizes,
    compression_table,
    curves_frame,
    default_runs,
    evaluation_table,
    gap_table,
    of_seeds,
    perturbation_frame,
    setting_of,
)
from g2lstm.gate_tables import profile_frame
from g2lstm.results import mean_and_spread
from made_up_runs import compression, made_up_run, profile

COLUMNS = ("result", "round", "round & clip", "SVD", "SVD+")


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


def test_other_gates_in_evaluation_are_against_the_runs_own():
    runs = [
        made_up_run(gate, seed) for gate in ("gumbel", "sigmoid", "sharpened") for seed in (1, 2)
    ]
    kept = {"loss_temperature_in_evaluation": 2.5}
    measured = [
        (runs[0], {"loss": 2.0, "loss_hard_in_evaluation": 3.0} | kept),
        (runs[1], {"loss": 2.5, "loss_hard_in_evaluation": 3.25} | kept),
        (runs[2], {"loss": 2.0, "loss_hard_in_evaluation": None}),  # infinite
        (runs[3], {"loss": 2.0, "loss_hard_in_evaluation": 1.0}),
        (runs[4], {"loss": 2.0}),  # measured before hard gates were looked at
        (runs[5], {"loss": 2.0, "loss_hard_in_evaluation": 3.0}),
    ]
    table = evaluation_table(measured).set_index("model")
    assert list(table.index) == ["G2-LSTM", "LSTM"]
    g2, lstm = table.loc["G2-LSTM"], table.loc["LSTM"]
    assert g2["as trained"] == mean_and_spread(np.exp([2.0, 2.5]))
    assert g2["tau kept"] == mean_and_spread(np.exp([2.5, 2.5]))
    assert g2["tau kept, change in nats"] == "0.2500 ± 0.3536"
    assert g2["hard gates, change in nats"] == "0.8750 ± 0.1768"
    assert list(lstm[["tau kept", "tau kept, change in nats"]]) == ["", ""]
    assert list(lstm[["hard gates", "hard gates, change in nats"]]) == ["infinite", "infinite"]
    older = evaluation_table([(runs[0], {"loss": 2.0} | kept), measured[4]])
    assert list(older["model"]) == ["G2-LSTM"]
    assert list(older.columns) == list(table.reset_index().columns[:5])
    assert len(evaluation_table(measured[4:5])) == 0


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
