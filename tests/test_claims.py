"""The claims as statistics, with the paper's own numbers as a check."""

import math

import numpy as np
import pytest

from g2lstm.claims import collect_evidence, judge
from g2lstm.gates import GATES
from g2lstm.paper import CLAIMS, TABLES
from g2lstm.verdicts import AS_GOOD, FAILS, HOLDS, verdict_of
from made_up_runs import alignment, compression, made_up_run


def evidence(task="language-model", seeds=(1, 2, 3), results=None, **changes):
    """Three models that behave as in the paper, or as ``changes`` say."""
    runs, tables, aligned = [], [], []
    name = "Penn Treebank" if task == "language-model" else "IWSLT'14 de-en"
    for gate in GATES:
        for seed in seeds:
            table = dict(TABLES[name][gate]) | (results or {}).get(gate, {})
            jitter = 1 + 1e-4 * np.sin(seed + GATES.index(gate))
            runs.append(made_up_run(gate, seed, task, **changes))
            tables.append(compression({k: v * jitter for k, v in table.items()}))
            boundary = {"gumbel": -1.0, "sharpened": -0.5, "sigmoid": -0.2}[gate]
            aligned.append(alignment(boundary + 0.01 * seed, content_input=0.9))
    return collect_evidence(task, "grammar", runs, tables, aligned)


@pytest.mark.parametrize("task", ["language-model", "translation"])
def test_the_papers_own_numbers_over_seeds_confirm_claims_1_2_and_5(task):
    statistics = judge(evidence(task))
    of = {n: [s for s in statistics if s.claim == n] for n in CLAIMS}
    assert all(of.values()), "every claim is judged"
    for number in (1, 2, 5):
        assert verdict_of(of[number]) == HOLDS, of[number]
    for s in statistics:
        if s.paper is not None and s.claim in (1, 2, 5):
            assert s.mean == pytest.approx(s.paper, abs=0.02), "the same formula for both"


def test_how_much_worse_is_in_nats_and_in_bleu():
    worse = judge(evidence(results={"gumbel": {"result": 55.0}}))[0]
    assert worse.mean == pytest.approx(math.log(55.0 / 52.8), abs=1e-3)
    assert worse.verdict == FAILS
    assert worse.threshold == AS_GOOD["language-model"]
    worse = judge(evidence("translation", results={"gumbel": {"result": 29.0}}))[0]
    assert worse.mean == pytest.approx(2.0, abs=0.02)
    assert worse.verdict == FAILS


def test_the_cost_of_compression_is_the_mean_over_the_four_columns():
    part = next(s for s in judge(evidence()) if s.claim == 2)

    def cost(row):
        return np.mean([math.log(row[c] / row["result"]) for c in row if c != "result"])

    table = TABLES["Penn Treebank"]
    assert part.mean == pytest.approx(cost(table["gumbel"]) - cost(table["sigmoid"]), abs=1e-3)


def test_gates_of_an_lstm_that_are_saturated_too_break_claim_3():
    usual = [s.verdict for s in judge(evidence()) if s.claim == 3]
    assert usual == [HOLDS] * 4
    broken = [s.verdict for s in judge(evidence(saturation={"sigmoid": 0.9})) if s.claim == 3]
    assert broken == [FAILS, FAILS, HOLDS, FAILS]


def test_language_without_known_boundaries_leaves_function_words_and_input_gates():
    found = evidence()
    for key in found.alignment:
        rows = found.alignment[key]["contrasts"]
        rows[:] = [row for row in rows if not row["contrast"].startswith("clause")]
    names = [s.name for s in judge(found) if s.claim == 4]
    assert len(names) == 2
    assert not any("boundar" in name for name in names)


def test_only_seeds_that_all_models_of_a_statistic_share_count():
    found = evidence(seeds=(1, 2, 3))
    runs = {key: run for key, run in found.runs.items() if key != ("sigmoid", 2)}
    some = collect_evidence(
        found.task,
        found.corpus,
        runs.values(),
        [found.compression[key] for key in runs],
        [found.alignment[key] for key in runs],
    )
    against_lstm, *_, against_sharpened = (s for s in judge(some) if s.claim in (1, 5))
    assert against_lstm.seeds == (1, 3)
    assert against_sharpened.seeds == (1, 2, 3)


def test_two_runs_of_one_gate_and_seed_are_refused():
    run = made_up_run("gumbel", 1)
    with pytest.raises(ValueError, match="same gate and seed"):
        collect_evidence("language-model", "grammar", [run, run], [{}, {}], [{}, {}])
