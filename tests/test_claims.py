"""The statistics of the claims, with the paper's own numbers and plain sums as oracles."""

import math
from dataclasses import replace

import numpy as np
import pytest

from g2lstm.claims import (
    MODELS,
    Observed,
    accuracy,
    collect_evidence,
    compressed_accuracy,
    statistics_of,
)
from g2lstm.gates import GATES
from g2lstm.paper import HISTOGRAMS, TABLE_1, TABLES
from g2lstm.verdict_rule import AS_PAPER, NOT_MEASURED
from g2lstm.verdicts import judge
from made_up_runs import alignment, compression, gates, made_up_run

CORPORA = {"language-model": "Penn Treebank", "translation": "IWSLT'14 de-en"}


def place(share):
    """A profile whose decoder's first layer, or all layers together, have this share."""
    row = {"module": None, "layer": None, "reverse": None} | gates(share)
    decoder = {"module": "decoder", "layer": 0, "reverse": False} | gates(share)
    other = {"module": "upper_decoder", "layer": 0, "reverse": False} | gates(0.99)
    return {"evaluation": [row, decoder, other], "training": [], "sentence": []}


def observed(gate, seed, task, table, cache=True, share=None, **settings):
    """A run with these results, a little different from seed to seed."""
    run = made_up_run(gate, seed, task, **settings)
    table = {k: v * (1 + 1e-4 * math.sin(seed + GATES.index(gate))) for k, v in table.items()}
    summary = run.summary | {"test_bleu": table["result"]}
    if task == "language-model":
        summary["test_perplexity_with_cache" if cache else "test_perplexity"] = table["result"]
    near = {k: np.mean([h[0] + h[-1] for h in v.values()]) for k, v in HISTOGRAMS.items()}
    share = near.get(gate, 0.8) if share is None else share
    return Observed(
        replace(run, summary=summary),
        compression(table),
        place(share + 1e-4 * seed),
        alignment(-0.5, 0.9),
    )


def as_in_paper(task, seeds=(1, 2, 3), **settings):
    return [
        observed(gate, seed, task, TABLES[CORPORA[task]][gate], **settings)
        for gate in GATES
        for seed in seeds
    ]


def primary(rows, noise=0.2):
    return {s.number: s for s in rows if s.number is not None and s.noise == noise}


@pytest.mark.parametrize("task", CORPORA)
def test_the_papers_own_numbers_are_the_papers_effect(task):
    evidence = collect_evidence(task, "corpus", as_in_paper(task))
    statistics = statistics_of(evidence)
    assert list(primary(statistics)) == [1, 2, 3, 4, 5]
    for row in judge(statistics):
        if row["number"] is not None:
            assert row["verdict"] == (AS_PAPER if row["noise"] == 0.2 else NOT_MEASURED), row
    for one in primary(statistics).values():
        assert one.paper > 0
        assert one.effect.mean == pytest.approx(one.paper, abs=0.03 * max(1, one.paper))


def test_the_papers_effects_by_hand():
    lm, mt = (
        primary(statistics_of(collect_evidence(task, "corpus", as_in_paper(task))))
        for task in CORPORA
    )
    log = math.log
    assert lm[1].paper == pytest.approx(log(52.8 / 52.1))
    assert lm[5].paper == pytest.approx(log(53.2 / 52.1))
    lstm = (log(53.2 / 52.8) + log(53.6 / 52.8)) / 4 + (log(56.6 / 52.8) + log(65.5 / 52.8)) / 4
    ours = (log(52.2 / 52.1) + log(52.8 / 52.1)) / 4 + (log(53.3 / 52.1) + log(56.0 / 52.1)) / 4
    assert lm[2].paper == pytest.approx(lstm - ours)
    assert lm[3].paper == pytest.approx(lstm - ours + log(52.8 / 52.1))
    assert mt[2].paper == pytest.approx((2.35 + 9.03 + 0.48 + 1.44 - 0.51 * 2 - 0.33 - 0.67) / 4)
    assert lm[4].paper == mt[4].paper == pytest.approx((0.7469 + 0.6186 - 0.2213 - 0.1304) / 2)


def test_perplexity_without_cache_pointer_is_compared_with_the_papers_without():
    runs = as_in_paper("language-model", cache=False)
    found = primary(statistics_of(collect_evidence("language-model", "corpus", runs)))
    without = {gate: row["with fine-tuning"][1] for gate, row in TABLE_1.items()}
    assert found[1].paper == pytest.approx(math.log(without["sigmoid"] / without["gumbel"]))
    assert found[1].ours[2] == -math.log(runs[-2].run.summary["test_perplexity"])


def test_families_weigh_equally_and_a_void_clip_is_left_out_on_both_sides():
    row = {"result": 30.0, "round": 28.0, "round & clip": 20.0, "SVD": 29.0, "SVD+": 26.0}
    assert compressed_accuracy("translation", row, void=False) == (24.0 + 27.5) / 2
    assert compressed_accuracy("translation", row, void=True) == (28.0 + 27.5) / 2
    runs = as_in_paper("translation")
    for one in runs:
        one.compression["round & clip"] = one.compression["round"]
    found = primary(statistics_of(collect_evidence("translation", "corpus", runs)))
    assert found[2].paper == pytest.approx((2.35 + (0.48 + 1.44) / 2 - 0.51 - 0.5) / 2)
    assert found[2].effect.mean == pytest.approx(found[2].paper, abs=0.01)
    runs[0].compression["round & clip"] = {"value": 20.0}
    found = primary(statistics_of(collect_evidence("translation", "corpus", runs)))
    assert found[2].paper == pytest.approx(2.82), "one run that clips is enough"


def test_gates_of_a_translation_are_those_of_the_decoders_first_layer():
    runs = as_in_paper("translation", share=0.25)
    assert all(
        value == pytest.approx(0.25, abs=0.001)
        for value in primary(statistics_of(collect_evidence("translation", "c", runs)))[
            4
        ].ours.values()
    )


def test_noise_on_every_gate_is_judged_apart_with_what_is_measured():
    runs = as_in_paper("language-model")
    full = [
        replace(
            observed("gumbel", seed, "language-model", TABLES["Penn Treebank"]["sharpened"],
                     noise_probability=1.0, share=0.9),
            compression=None,
        )
        for seed in (4, 5)
    ]  # fmt: skip
    evidence = collect_evidence("language-model", "corpus", runs + full)
    found = primary(statistics_of(evidence), noise=1.0)
    assert list(found[1].ours) == [4, 5]
    assert list(found[1].others) == [1, 2, 3]
    assert found[1].effect.mean < 0
    assert found[2].ours == found[3].ours == {}
    assert list(evidence.models) == [*GATES[:2], "gumbel", MODELS[1.0]]
    names = [s.name for s in statistics_of(evidence) if s.number is None]
    assert "accuracy, G2-LSTM (p=1) minus G2-LSTM" in names


@pytest.mark.parametrize(
    ("task", "key", "good", "bad"),
    [
        ("language-model", "valid_perplexity", 101.0, 103.0),
        ("language-model", "valid_perplexity", 101.0, math.nan),
        ("language-model", "valid_perplexity", 101.0, None),
        ("translation", "valid_bleu", 15.2, 15.1),
    ],
)
def test_a_collapsed_run_is_named_and_left_out(task, key, good, bad):
    def changed(value):
        """The best of the others are a perplexity of 51.1 and a BLEU of 30.3."""
        runs = as_in_paper(task)
        summary = runs[0].run.summary | {key: value}
        runs[0] = replace(runs[0], run=replace(runs[0].run, summary=summary))
        return collect_evidence(task, "corpus", runs)

    assert changed(good).collapsed == ()
    evidence = changed(bad)
    assert len(evidence.collapsed) == 1
    assert evidence.collapsed[0].endswith(f"{GATES[0]}/seed-1")
    assert list(evidence.models[GATES[0]]) == [2, 3]


def test_a_compression_that_is_not_finite_is_no_value():
    runs = as_in_paper("language-model")
    runs[0].compression["SVD+"]["value"] = None
    found = primary(statistics_of(collect_evidence("language-model", "corpus", runs)))
    assert len(found[2].others) == 2
    assert len(found[1].others) == 3


def test_language_without_known_boundaries_leaves_function_words():
    runs = as_in_paper("language-model")
    for one in runs:
        rows = one.alignment["contrasts"]
        rows[:] = [row for row in rows if not row["contrast"].startswith("clause")]
    found = statistics_of(collect_evidence("language-model", "corpus", runs))
    names = [s.name for s in found if s.claim == 4]
    assert len(names) == 2
    assert not any("boundar" in name for name in names)


def test_accuracy_is_higher_where_perplexity_is_lower():
    good, bad = as_in_paper("language-model")[-1], as_in_paper("language-model")[0]
    assert accuracy(good.run) > accuracy(bad.run)


def test_two_runs_of_one_model_and_seed_are_refused():
    run = as_in_paper("language-model")[0]
    with pytest.raises(ValueError, match="two runs of sigmoid have seed 1"):
        collect_evidence("language-model", "grammar", [run, run])
