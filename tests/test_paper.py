"""The paper's numbers against what the paper prints of the same numbers elsewhere."""

import numpy as np
import pytest

from g2lstm import paper


def test_rows_of_a_histogram_are_shares():
    for kinds in paper.HISTOGRAMS.values():
        for shares in kinds.values():
            assert len(shares) == 10
            assert sum(shares) == pytest.approx(1, abs=5e-4)


def test_table_1_agrees_with_table_3_and_with_the_gains_of_the_text():
    uncompressed = {gate: row["result"] for gate, row in paper.TABLES["Penn Treebank"].items()}
    test = {
        gate: {column: pair[1] for column, pair in row.items()}
        for gate, row in paper.TABLE_1.items()
    }
    assert {gate: row["with cache pointer"] for gate, row in test.items()} == uncompressed
    gains = [
        round(1 - test["gumbel"][column] / test["sigmoid"][column], 3)
        for column in ("with fine-tuning", "with cache pointer")
    ]
    assert gains == [0.021, 0.013]


def test_figure_4_has_a_value_for_each_word_and_its_forget_rows_correlate():
    correlations = []
    for sentence in paper.SENTENCES:
        for gate in ("sigmoid", "gumbel"):
            for values in sentence[gate].values():
                assert len(values) == len(sentence["words"].split())
        forget = [sentence[gate]["forget"] for gate in ("sigmoid", "gumbel")]
        correlations.append(np.corrcoef(forget)[0, 1])
    assert correlations == pytest.approx([0.86, 0.81], abs=5e-3)
