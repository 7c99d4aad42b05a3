"""The paper's table and curves: numbers of the run itself, methods by hand, sizes and bits."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from g2lstm.beam_search import translate
from g2lstm.compression import Chain, Integers, LowRank, Round, RoundClip, compress, gate_blocks
from g2lstm.evaluation import evaluate, evaluate_translation, evaluate_with_cache
from g2lstm.measurements import first_pairs
from g2lstm.robustness import (
    COLUMNS,
    PAPER_MATRICES,
    describe,
    hidden_size_of,
    measure_compression,
    measure_curves,
    paper_methods,
    rank_of,
)
from pets import write_pets
from tiny_runs import trained, untrained

pytestmark = pytest.mark.usefixtures("corpora")


@pytest.fixture(scope="module")
def reader(corpora):
    return trained(overrides={"cache_pointer": True})


@pytest.fixture(scope="module")
def translator(corpora, tmp_path_factory):
    """Trained for long enough that some of its words are right."""
    folder = tmp_path_factory.mktemp("pets")
    write_pets(folder, "de")
    overrides = {"epochs": 6, "learning_rate": 0.06, "batch_tokens": 100, "merges": 40}
    return trained("translation", corpus=str(folder), overrides=overrides)


@pytest.fixture(scope="module")
def table(reader):
    return measure_compression(reader)


@pytest.fixture(scope="module")
def translation_table(translator):
    return measure_compression(translator)


@pytest.fixture(scope="module")
def curves(reader):
    return measure_curves(reader, limit=500)


def test_ranks_are_the_papers_at_the_papers_sizes():
    language_model, translation = (
        paper_methods("language-model", 1150),
        paper_methods("translation", 256),
    )
    assert language_model == {
        "round": Round(0.2), "round & clip": RoundClip(0.2, 0.4),
        "SVD": LowRank(128), "SVD+": LowRank(64),
    }  # fmt: skip
    assert translation == {
        "round": Round(0.5), "round & clip": RoundClip(0.5, 1.0),
        "SVD": LowRank(32), "SVD+": LowRank(16),
    }  # fmt: skip
    assert tuple(language_model) == tuple(translation) == COLUMNS[1:]


def test_ranks_are_the_same_share_of_other_sizes():
    assert paper_methods("translation", 128)["SVD+"] == LowRank(8)
    assert paper_methods("language-model", 320)["SVD"] == LowRank(36)
    assert [rank_of(0.25, size) for size in (1, 2, 6, 100)] == [1, 1, 2, 25]
    assert rank_of(1.0, 7) == 7


def test_the_size_is_that_of_the_largest_layer(reader, translator):
    assert hidden_size_of(reader) == 10, "of layers of 10 and 8 units"
    assert hidden_size_of(translator) == 10


def test_methods_in_words():
    chain = Chain((LowRank(16), Round(0.1)))
    assert [describe(m) for m in (Round(0.2), RoundClip(0.5, 1), Integers(), chain)] == [
        "step 0.2", "step 0.5, clip 1", "int8", "rank 16, then step 0.1",
    ]  # fmt: skip
    with pytest.raises(TypeError, match="no words for"):
        describe(len)


def changed(model, change, context_only):
    """A copy with the blocks of i and f changed by ``change`` [rows, columns], by numpy.

    Recurrent matrices, and of the input matrices everything or the columns of the context.
    """
    copied = copy.deepcopy(model)
    for name, parameter in copied.named_parameters():
        if "weight_hh" in name or ("weight_ih" in name and not context_only):
            columns = slice(None)
        elif name == "upper_decoder.weight_ih_l0":
            columns = slice(10, None)  # after the 10 units of the first layer
        else:
            continue
        hidden = len(parameter) // 4
        for start in (0, hidden):
            block = parameter.detach()[start : start + hidden, columns]
            block.copy_(torch.from_numpy(change(block.double().numpy())))
    return copied


def low_rank(rank):
    def change(block):
        u, s, v = np.linalg.svd(block, full_matrices=False)
        return (u[:, :rank] * s[:rank]) @ v[:rank]

    return change


def rounded(step, clip=math.inf):
    return lambda block: np.round(np.clip(block, -clip, clip) / step) * step


def test_the_table_of_a_language_model(reader, table):
    summary, test = reader.run.summary, reader.task.corpus.test
    assert tuple(table) == COLUMNS
    assert table["result"]["plain"] == summary["test_perplexity"]
    assert table["result"]["value"] == summary["test_perplexity_with_cache"]
    methods = {
        "round": ("step 0.2", rounded(0.2)),
        "round & clip": ("step 0.2, clip 0.4", rounded(0.2, 0.4)),
        "SVD": ("rank 1", low_rank(1)),
        "SVD+": ("rank 1", low_rank(1)),
    }
    assert table["result"]["method"] == "none"
    for column, (words, change) in methods.items():
        model = changed(reader.model, change, context_only=False)
        assert table[column]["method"] == words
        assert table[column]["plain"] == pytest.approx(evaluate(model, test).perplexity, rel=1e-4)
        assert table[column]["value"] == pytest.approx(
            evaluate_with_cache(model, test).perplexity, rel=1e-4
        )
        assert table[column]["plain"] != table["result"]["plain"]


def test_without_the_cache_pointer_both_perplexities_are_one(corpora):
    run = trained()
    row = measure_compression(run)["result"]
    assert row["value"] == row["plain"] == run.run.summary["test_perplexity"]


def test_the_table_of_a_translation(translator, translation_table):
    summary, pairs = translator.run.summary, translator.task.pairs["test"]
    row = translation_table["result"]
    assert row["value"] == summary["test_bleu"]
    assert row["plain"] == pytest.approx(summary["test_perplexity"])
    methods = {
        "round": ("step 0.5", rounded(0.5)),
        "round & clip": ("step 0.5, clip 1", rounded(0.5, 1.0)),
        "SVD": ("rank 1", low_rank(1)),
        "SVD+": ("rank 1", low_rank(1)),
    }
    for column, (words, change) in methods.items():
        model = changed(translator.model, change, context_only=True)
        assert translation_table[column]["method"] == words
        expected = evaluate_translation(model, pairs).perplexity
        assert translation_table[column]["plain"] == pytest.approx(expected, rel=1e-4)
        assert translation_table[column]["plain"] != row["plain"]
    # For BLEU the very same weights: a translation may hang on the last digit.
    model = compress(translator.model, Round(0.5), matrices=("recurrent", "context"))
    found = translate(model, pairs.sources, beam_size=5, length_penalty=1.0)
    texts = translator.task.target_subwords.decode([h.tokens for h in found])
    expected = translator.task.score(texts, translator.task.corpus.test[1]).bleu
    assert translation_table["round"]["value"] == expected != row["value"]


def weights_of_lstms(model):
    return sum(
        value.numel()
        for lstm in model.modules()
        if isinstance(lstm, nn.LSTM)
        for name, value in lstm.named_parameters()
        if "weight" in name
    )


@pytest.mark.parametrize("name", ["reader", "translator"])
def test_work_and_size_shrink_where_there_is_something_to_save(name, request):
    run = request.getfixturevalue(name)
    rows = request.getfixturevalue({"reader": "table", "translator": "translation_table"}[name])
    work = {column: row["flops_per_step"] for column, row in rows.items()}
    assert work["result"] == 2 * weights_of_lstms(run.model)
    assert work["round"] == work["round & clip"] == work["result"]
    assert work["SVD"] == work["SVD+"] < work["result"]
    # Rank 1: a vector for the rows and one for the columns instead of a block.
    kinds = ("weight_ih", "weight_hh") if name == "reader" else ("weight_hh",)
    saved = 0
    for key, value in run.model.named_parameters():
        if any(kind in key for kind in kinds):
            rows_of_gate, columns = len(value) // 4, value.shape[1]
            saved += 2 * (rows_of_gate * columns - rows_of_gate - columns)
    assert work["SVD"] == work["result"] - 2 * saved
    sizes = {column: row["megabytes"] for column, row in rows.items()}
    numbers = sum(value.numel() for value in run.model.parameters())
    assert 4 * numbers < 1e6 * sizes["result"] < 4 * numbers + 20_000, "float32 and a header"
    assert sizes["round & clip"] <= sizes["round"] < sizes["result"]
    assert sizes["SVD"] == sizes["SVD+"] < sizes["result"]


def test_curves_have_every_setting_once(reader, curves):
    kinds = [(row["kind"], row["setting"]) for row in curves]
    assert kinds == [
        ("none", 0.0),
        *(("step", step) for step in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)),
        *(("clip", clip) for clip in (0.2, 0.4, 0.7, 1.0, 1.5, 2.0)),
        *(("rank", rank) for rank in (5, 2, 1, 1, 1)),
    ]
    valid = reader.task.corpus.valid[:500]
    changes = {
        ("none", 0.0): lambda block: block,
        ("step", 0.3): rounded(0.3),
        ("clip", 0.4): rounded(0.2, 0.4),
        ("rank", 2): low_rank(2),
    }
    for row in curves:
        assert math.isfinite(row["loss"])
        assert row["perplexity"] == pytest.approx(math.exp(row["loss"]))
        change = changes.get((row["kind"], row["setting"]))
        if change is not None:
            model = changed(reader.model, change, context_only=False)
            expected = evaluate(model, valid, batch_size=10).loss
            assert row["loss"] == pytest.approx(expected, rel=1e-5)
    json.dumps(curves, allow_nan=False)


def test_bits_fall_with_the_strength_of_the_compression(reader, curves):
    bits = {
        kind: [row["bits"] for row in curves if row["kind"] == kind]
        for kind in ("none", "step", "clip", "rank")
    }
    assert bits["none"] == [32]
    for kind in ("step", "rank"):
        assert bits[kind] == sorted(bits[kind], reverse=True)
        assert bits[kind][0] > bits[kind][-1] >= 1
    assert max(bits["clip"]) <= 3, "five values"
    # By hand: of the rounded blocks, codes as long as each needs; of a block of rank 2 its factors.
    codes = weights = factors = 0
    for block in gate_blocks(reader.model).values():
        values = {round(float(value) / 0.05) for value in block.flatten()}
        codes += block.numel() * max(1, math.ceil(math.log2(len(values))))
        factors += 32 * min(2 * sum(block.shape), block.numel())
        weights += block.numel()
    assert bits["step"][0] == pytest.approx(codes / weights)
    assert bits["rank"][1] == pytest.approx(factors / weights)


def test_curves_of_a_translation(translator):
    found = measure_curves(
        translator, steps=[0.5], clips=[1.0], rank_shares=[0.3], limit=200, sentences=5
    )
    assert [(row["kind"], row["setting"]) for row in found] == [
        ("none", 0.0), ("step", 0.5), ("clip", 1.0), ("rank", 3),
    ]  # fmt: skip
    task = translator.task
    pairs = first_pairs(task.pairs["valid"], 200)
    changes = (lambda block: block, rounded(0.5), rounded(0.5, 1.0), low_rank(3))
    for row, change in zip(found, changes, strict=True):
        model = changed(translator.model, change, context_only=True)
        assert row["loss"] == pytest.approx(evaluate_translation(model, pairs).loss, rel=1e-5)
    hypotheses = translate(translator.model, task.pairs["valid"].sources[:5], beam_size=1)
    texts = task.target_subwords.decode([h.tokens for h in hypotheses])
    assert found[0]["bleu"] == task.score(texts, task.corpus.valid[1][:5]).bleu
    assert all(0 <= row["bleu"] <= 100 for row in found)
    blocks = gate_blocks(translator.model, matrices=PAPER_MATRICES["translation"])
    sizes = {tuple(block.shape) for block in blocks.values()}
    assert sizes == {(10, 10), (10, 20)}, "W_h, and the context of both directions"
    json.dumps(found, allow_nan=False)


def test_a_model_that_breaks_has_infinite_loss(corpora):
    run = untrained()
    with torch.no_grad():
        run.model.decoder_bias.fill_(math.nan)
    (row,) = measure_curves(run, steps=[], clips=[], rank_shares=[], limit=100)
    assert row["loss"] == row["perplexity"] == math.inf
