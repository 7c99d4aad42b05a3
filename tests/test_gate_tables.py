"""Tables of gates and of their alignment with language: means and spreads by hand."""

import pytest

from g2lstm import paper
from g2lstm.gate_tables import (
    at,
    at_papers_place,
    beside_paper,
    by_place,
    contrasts_frame,
    contrasts_table,
    gate_table,
    histograms,
    lowest_tenth_table,
    means_frame,
    paper_histograms,
    paper_sentence_rows,
    places_of,
    profile_frame,
    sentence_rows,
    units_table,
)
from made_up_runs import alignment, gates, made_up_run, profile


def translation_profile(share, pairs=None):
    """As `gate_profile.measure_gate_profile` of a translation: each place has its saturation."""
    places = [
        (None, None, None), ("encoder", 0, False), ("encoder", 0, True),
        ("upper_encoder", 0, False), ("decoder", 0, False), ("upper_decoder", 0, False),
    ]  # fmt: skip
    rows = [
        {"module": module, "layer": layer, "reverse": reverse} | gates(share + n / 100)
        for n, (module, layer, reverse) in enumerate(places)
    ]
    found = {mode: rows for mode in ("evaluation", "training", "sentence")}
    if pairs is None:
        return found
    return found | {"training pairs": [rows[4] | gates(share + 0.3) | {"pairs": pairs}]}


def test_profiles_by_layer_and_together():
    runs = [made_up_run("gumbel", 1), made_up_run("gumbel", 2)]
    frame = profile_frame(zip(runs, (profile(0.5), profile(0.7)), strict=True))
    assert places_of(frame) == ["all layers", "layer 1", "layer 2"]
    table = gate_table(frame).set_index("place")
    assert table.loc["all layers", "input saturation, sentence"] == "0.60 ± 0.14"
    assert table.loc["layer 2", "input saturation, sentence"] == "0.70 ± 0.14"
    assert table.loc["all layers", "mean forget gate"] == "0.60 ± 0.00"
    assert set(table["text"]) == {"test text"}
    together = histograms(at(frame))["gumbel"]["input"]
    assert together.sum() == pytest.approx(1)
    assert together[0] == pytest.approx(0.3)
    assert histograms(at(frame, "layer 2"))["gumbel"]["input"][0] == pytest.approx(0.35)
    assert list(by_place(frame)) == places_of(frame)
    assert by_place(frame)["layer 1"]["forget"]["gumbel"][0] == pytest.approx(0.25)


def test_the_only_layer_of_a_language_model_is_all_layers():
    one = {mode: rows[:2] for mode, rows in profile(0.5).items()}
    assert places_of(profile_frame([(made_up_run("gumbel", 1), one)])) == ["all layers"]


def test_of_a_translation_the_papers_place_is_first_and_the_default():
    run = made_up_run("sigmoid", 1, task="translation")
    frame = profile_frame([(run, translation_profile(0.2))])
    assert places_of(frame) == [
        "decoder layer 1", "all layers", "encoder layer 1", "encoder layer 1, backwards",
        "encoder layer 2", "decoder layer 2",
    ]  # fmt: skip
    table = gate_table(frame)
    assert table["place"].tolist() == places_of(frame)
    assert table["input saturation, evaluation"].tolist() == [
        "0.24", "0.20", "0.21", "0.22", "0.23", "0.25",
    ]  # fmt: skip
    assert at(frame)["saturation"].tolist() == pytest.approx([0.24, 0.24])
    with pytest.raises(ValueError, match="'layer 3', only at: all layers; encoder layer 1; "):
        at(frame, "layer 3")


def test_training_pairs_are_taken_where_all_models_have_them():
    new, old = (
        (made_up_run(gate, 1, task="translation"), translation_profile(0.2, pairs))
        for gate, pairs in (("gumbel", 9_000), ("sigmoid", None))
    )
    part = at(profile_frame([new]))
    assert set(part["text"]) == {"9,000 training pairs"}
    assert part["saturation"].tolist() == pytest.approx([0.5, 0.5])
    mixed = profile_frame([new, old])
    assert set(at(mixed)["text"]) == {"test text"}
    assert set(at(mixed)["model"]) == {"G2-LSTM", "LSTM"}
    table = gate_table(mixed)
    (row,) = table[table["text"] == "9,000 training pairs"].to_dict("records")
    assert (row["model"], row["place"]) == ("G2-LSTM", "decoder layer 1")
    assert row["input saturation, evaluation"] == "0.50"
    assert row["input saturation, training"] == row["input saturation, sentence"] == ""


def test_beside_the_paper_stand_the_models_it_shows_and_p_of_one():
    runs = [made_up_run(gate, 1) for gate in ("sigmoid", "sharpened", "gumbel")]
    runs.append(made_up_run("gumbel", 1, noise_probability=1.0))
    frame = profile_frame((run, profile(0.4 + n / 10)) for n, run in enumerate(runs))
    found = beside_paper(at(frame))
    assert {name: list(kinds["forget"]) for name, kinds in found.items()} == {
        "LSTM": ["sigmoid"], "G2-LSTM": ["gumbel", "G2-LSTM (p=1)"],
    }  # fmt: skip
    assert found["G2-LSTM"]["input"]["G2-LSTM (p=1)"][0] == pytest.approx(0.35)
    theirs = paper_histograms()
    assert list(theirs) == list(found)
    for kinds in theirs.values():
        assert all(shares.sum() == pytest.approx(1) for shares in kinds.values())


def test_words_are_averaged_over_seeds_at_the_place_asked_for():
    def found(value):
        near, far = ({kind: [value, value + d] for kind in ("input", "forget")} for d in (0.1, 0.3))
        return {"words": ["a", "b"], **near, "places": {"layer 1": far}}

    measured = [(made_up_run("sigmoid", s), found(0.2 * s)) for s in (1, 2)]
    measured.append((made_up_run("gumbel", 1), found(0.5)))
    rows = sentence_rows(measured)
    assert list(rows) == ["forget", "input"]
    assert rows["forget"]["LSTM"] == pytest.approx([0.3, 0.4])
    assert rows["input"]["G2-LSTM"] == pytest.approx([0.5, 0.6])
    assert sentence_rows(measured, "layer 1")["forget"]["LSTM"] == pytest.approx([0.3, 0.6])


def test_the_papers_rows_are_of_its_sentences_only():
    rows = paper_sentence_rows(paper.SENTENCES[1]["words"])
    assert rows["forget"]["LSTM"][8] == 0.58
    assert rows["input"]["G2-LSTM"][3] == 0.92
    assert paper_sentence_rows("the cat sleeps .") == paper_sentence_rows(None) == {}


def test_contrasts_and_lowest_words_by_place():
    def found(layers, shares):
        rows = alignment(-1.0, 0.5)
        rows["contrasts"] = [
            row | {"layer": layer, "effect": -1.0 - n} for n, layer in enumerate(layers)
            for row in rows["contrasts"]
        ]  # fmt: skip
        rows["lowest_tenth"] = [
            {"layer": layer, "group": "function word", "tokens": 100, "share": share, "base": 0.4}
            for layer, share in zip(layers, shares, strict=True)
        ]
        return rows

    runs = [made_up_run("gumbel", s, task="translation") for s in (1, 2)]
    both = [found(["all", 0, 1], (0.5, 0.6, 0.2)), found(["all", 0, 1], (0.5, 0.8, 0.2))]
    frame = contrasts_frame(zip(runs, both, strict=True))
    assert list(frame["place"].unique()) == [
        "all decoder layers", "decoder layer 1", "decoder layer 2",
    ]  # fmt: skip
    assert set(at_papers_place(frame)["effect"]) == {-2.0}
    assert contrasts_table(frame)["G2-LSTM"].tolist() == ["-2.00 ± 0.00"] * 4
    table = lowest_tenth_table(zip(runs, both, strict=True)).set_index("place")
    assert table.loc["decoder layer 1", "share of the lowest tenth"] == "0.70 ± 0.14"
    assert table.loc["decoder layer 1", "ratio"] == "1.75 ± 0.35"
    assert table.loc["decoder layer 2", "share of all"] == "0.40 ± 0.00"
    (row,) = lowest_tenth_table([(runs[0], found(["all"], (0.5,)))]).to_dict("records")
    assert row["place"] == "decoder layer 1", "the only one"
    (row,) = lowest_tenth_table([(made_up_run("gumbel", 1), found(["all"], (0.5,)))]).to_dict(
        "records"
    )
    assert row["place"] == "all layers"
    assert lowest_tenth_table([(runs[0], alignment(-1.0, 0.5))]).empty, "an older record"


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
