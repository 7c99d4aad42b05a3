"""Methods against numpy and brute force; `compress` against masks of what it may change."""

import copy
import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn
from torch.nn import utils
from torch.nn.utils import parametrizations, parametrize, prune

from g2lstm import G2LSTM
from g2lstm.compression import (
    Chain,
    CompressionError,
    Integers,
    LowRank,
    ReparametrisedError,
    Round,
    RoundClip,
    bits_per_weight,
    compress,
    gate_blocks,
)
from g2lstm.language_model import LanguageModel
from g2lstm.low_rank_lstm import factorise
from g2lstm.packing import compression_report, flops_per_step
from g2lstm.translation import TranslationModel

GATES = ("input", "forget", "cell", "output")
STEPS = st.sampled_from([0.05, 0.1, 0.2, 0.5, 0.7, 2.0])
# No numbers so small that a part of them is denormal.
NUMBERS = st.floats(-5, 5).map(lambda number: number if abs(number) > 1e-100 else 0.0)
BLOCKS = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=NUMBERS)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- rounding ------------------------------------------------------------------------------------


@given(BLOCKS, STEPS)
def test_rounded_weights_are_the_nearest_multiples_of_the_step(block, step):
    rounded = Round(step)(torch.from_numpy(block)).numpy()
    grid = step * np.arange(-120, 121)
    distances = np.abs(block[..., None] - grid)
    np.testing.assert_allclose(np.abs(rounded - block), distances.min(-1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(rounded / step, np.rint(rounded / step), rtol=0, atol=1e-12)
    assert not np.signbit(rounded[rounded == 0]).any()


@given(st.lists(st.integers(-50, 50), min_size=1), st.integers(-3, 3))
def test_ties_go_to_the_even_multiple(halves, exponent):
    """Weights and steps without rounding errors of their own, against exact fractions."""
    step = 2.0**exponent
    block = torch.tensor(halves, dtype=torch.float32)[None] * step / 2
    expected = [round(Fraction(half, 2)) * step for half in halves]  # Python rounds half to even
    assert Round(step)(block)[0].tolist() == expected


@given(BLOCKS, STEPS, st.floats(1, 30))
def test_weights_are_clipped_first_and_rounded_then(block, step, times):
    clip = step * times
    found = RoundClip(step, clip)(torch.from_numpy(block)).numpy()
    grid = step * np.arange(-120, 121)
    clipped = np.minimum(np.maximum(block, -clip), clip)
    distances = np.abs(clipped[..., None] - grid)
    np.testing.assert_allclose(np.abs(found - clipped), distances.min(-1), rtol=0, atol=1e-12)


def test_the_order_of_clipping_and_rounding_shows():
    assert RoundClip(0.5, 0.6)(torch.tensor([[2.0, -2.0]])).tolist() == [[0.5, -0.5]]
    assert RoundClip(0.5, 0.9)(torch.tensor([[2.0, -2.0]])).tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize("step", [0.2, 0.5])
def test_five_values_are_left_by_the_papers_clip(step):
    found = RoundClip(step, 2 * step)(draw(40, 50)).unique()
    torch.testing.assert_close(found, step * torch.arange(-2.0, 3.0, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", [Round(0.25), RoundClip(0.25, 0.5), LowRank(2), Integers(8)])
def test_dtype_and_argument_stay(method, dtype):
    block = draw(5, 4).to(dtype)
    before = block.clone()
    found = method(block)
    assert (found.dtype, found.shape) == (dtype, block.shape)
    assert torch.equal(block, before)
    assert not torch.equal(found, block)


# --- low rank ------------------------------------------------------------------------------------


@given(BLOCKS, st.integers(1, 9))
def test_low_rank_has_the_least_error_that_its_rank_allows(block, rank):
    """Eckart and Young: the norm of the singular values left out."""
    found = LowRank(rank)(torch.from_numpy(block)).numpy()
    singular = np.linalg.svd(block, compute_uv=False)
    assert np.linalg.norm(found - block) == pytest.approx(
        np.sqrt((singular[rank:] ** 2).sum()), abs=1e-9
    )
    assert np.linalg.matrix_rank(found, tol=1e-9) <= rank
    if rank >= min(block.shape):
        assert np.array_equal(found, block)


@given(st.integers(0, 10**6), st.integers(1, 3))
def test_no_other_matrix_of_the_rank_is_nearer(seed, rank):
    block = draw(6, 5, seed=seed)
    best = torch.linalg.norm(LowRank(rank)(block) - block)
    left, right = LowRank(rank).factors(block)
    u, v = draw(6, rank, seed=seed + 1), draw(rank, 5, seed=seed + 2)
    nearest_for_u = u @ torch.linalg.lstsq(u, block).solution  # random columns, best weights
    for other in (u @ v, nearest_for_u, (left + 1e-3 * u) @ right, left @ (right + 1e-3 * v)):
        assert torch.linalg.norm(other - block) > best


@pytest.mark.parametrize(("rank", "kept"), [(2, 2), (4, 4), (7, 4)])
def test_factors_share_the_singular_values_evenly(rank, kept):
    block = draw(6, 4)
    left, right = LowRank(rank).factors(block)
    assert (left.shape, right.shape) == ((6, kept), (kept, 4))
    singular = np.linalg.svd(block.numpy(), compute_uv=False)[:kept]
    for gram in (left.T @ left, right @ right.T):
        np.testing.assert_allclose(gram.numpy(), np.diag(singular), rtol=0, atol=1e-12)
    torch.testing.assert_close(LowRank(rank)(block), left @ right)


def test_float32_is_decomposed_in_float64():
    block = draw(30, 20)
    found = LowRank(5)(block.float())
    torch.testing.assert_close(found.double(), LowRank(5)(block), rtol=0, atol=1e-5)


# --- integers ------------------------------------------------------------------------------------


@given(BLOCKS, st.integers(2, 8))
def test_integers_are_off_by_half_a_step_at_most(block, bits):
    codes, step = Integers(bits).codes(torch.from_numpy(block))
    limit = 2 ** (bits - 1) - 1
    largest = np.abs(block).max(1)
    assert codes.dtype == torch.int8
    assert codes.abs().max() <= limit
    assert (step > 0).all()
    found = Integers(bits)(torch.from_numpy(block)).numpy()
    assert np.array_equal(found, codes.numpy() * step.numpy())
    assert (np.abs(found - block).max(1) <= largest / limit / 2 * (1 + 1e-9)).all()
    np.testing.assert_allclose(np.abs(found).max(1), largest, rtol=1e-12)


def test_integers_have_a_step_for_each_row_and_keep_rows_of_zeros():
    found = Integers(2)(torch.tensor([[0.0, 0.0, 0.0], [3.0, -1.0, 2.0], [-0.5, 0.1, 0.3]]))
    assert found.tolist() == [[0.0, 0.0, 0.0], [3.0, 0.0, 3.0], [-0.5, 0.0, 0.5]]


# --- chains and bits -----------------------------------------------------------------------------


def test_a_chain_is_one_method_after_the_other():
    block = draw(8, 6)
    chain = Chain([LowRank(2), Round(0.25)])
    assert torch.equal(chain(block), Round(0.25)(LowRank(2)(block)))
    assert not torch.equal(chain(block), LowRank(2)(Round(0.25)(block)))
    assert torch.equal(Chain(())(block), block)
    assert chain == Chain((LowRank(2), Round(0.25)))
    assert hash(chain) == hash(Chain((LowRank(2), Round(0.25))))


@given(st.integers(1, 600), st.integers(1, 3))
def test_bits_tell_all_values_apart_and_one_bit_less_would_not(count, times):
    block = torch.arange(count).repeat(times).float()[None] / 7
    bits = bits_per_weight(block)
    assert 2**bits >= count
    assert bits == 1 or 2 ** (bits - 1) < count


# --- which weights are compressed ----------------------------------------------------------------


def constant(block):
    """A method that marks what it was given; the value is none that a model starts with."""
    return torch.full_like(block, 7.0)


def lstm(kind, **settings):
    torch.manual_seed(0)
    return kind(3, 4, **settings)


def translation(**settings):
    torch.manual_seed(0)
    return TranslationModel(7, 8, embedding_size=3, hidden_size=4, **settings)


# Model, and columns of the decoder's input matrices [embedding 3 | attentional vector 3] and
# [hidden 4 | context 4, of both directions 8] that see the context.
MODELS = {
    "nn.LSTM": (lambda: lstm(nn.LSTM, num_layers=2, bidirectional=True), {}),
    "no bias": (lambda: lstm(nn.LSTM, bias=False), {}),
    "G2LSTM": (lambda: lstm(G2LSTM, num_layers=2, bidirectional=True, gate="sharpened"), {}),
    "language model": (lambda: LanguageModel(9, 3, 4, 2), {}),
    "list": (lambda: nn.ModuleList([lstm(nn.LSTM), nn.Linear(3, 4), lstm(G2LSTM)]), {}),
    "translation": (translation, {"upper_decoder.weight_ih_l0": 4}),
    "translation, 1 layer": (lambda: translation(decoder_layers=1), {}),
    "translation, 3 layers, short encoder": (
        lambda: translation(encoder_layers=1, decoder_layers=3),
        {"upper_decoder.weight_ih_l0": 4},
    ),
    "translation, feeding": (
        lambda: translation(input_feeding=True),
        {"decoder.weight_ih_l0": 3, "upper_decoder.weight_ih_l0": 4},
    ),
    "translation, feeding, 1 layer": (
        lambda: translation(input_feeding=True, decoder_layers=1),
        {"decoder.weight_ih_l0": 3},
    ),
}


def expected_mask(name, tensor, gates, matrices, biases, context):
    """Which weights of a parameter are chosen, weight by weight; None: no LSTM's parameter."""
    own_name = name.rpartition(".")[2]
    if not own_name.startswith(("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l")):
        return None
    mask = torch.zeros_like(tensor, dtype=torch.bool)
    size = len(tensor) // 4
    for index in itertools.product(*map(range, tensor.shape)):
        if GATES[index[0] // size] not in gates:
            continue
        if own_name.startswith("bias"):
            mask[index] = biases
        elif own_name.startswith("weight_hh"):
            mask[index] = "recurrent" in matrices
        else:
            sees_context = name in context and index[1] >= context[name]
            mask[index] = "input" in matrices or ("context" in matrices and sees_context)
    return mask


def subsets(names):
    return [part for n in range(1, len(names) + 1) for part in itertools.combinations(names, n)]


@pytest.mark.parametrize("name", MODELS)
def test_only_what_is_chosen_changes(name):
    make, context = MODELS[name]
    model = make()
    before = copy.deepcopy(model.state_dict())
    kinds = subsets(("input", "recurrent", "context"))
    choices = [(("input", "forget"), chosen) for chosen in kinds]
    choices += itertools.product(subsets(GATES), [("input", "recurrent"), ("recurrent", "context")])
    for (gates, matrices), biases in itertools.product(choices, (False, True)):
        masks = {
            key: expected_mask(key, tensor, gates, matrices, biases, context)
            for key, tensor in before.items()
        }
        if not any(mask is not None and mask.any() for mask in masks.values()):
            with pytest.raises(CompressionError, match=f"nothing of what is chosen: {matrices[0]}"):
                compress(model, constant, gates, matrices, biases)
            continue
        found = compress(model, constant, gates, matrices, biases).state_dict()
        assert list(found) == list(before)
        for key, mask in masks.items():
            expected = before[key] if mask is None else before[key].masked_fill(mask, 7.0)
            assert torch.equal(found[key], expected), (key, gates, matrices, biases)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])


def test_the_papers_choice_is_the_default():
    model = lstm(nn.LSTM)
    by_name = compress(model, constant, ("input", "forget"), ("input", "recurrent"), False)
    torch.testing.assert_close(compress(model, constant).state_dict(), by_name.state_dict())


def test_methods_see_blocks_of_one_gate():
    shapes = []

    def look(block):
        shapes.append(tuple(block.shape))
        return block

    model = nn.Sequential(nn.LSTM(3, 5, 2))
    compress(model, look, "forget", biases=True)
    assert shapes == [(5, 3), (5, 5), (1, 5), (1, 5), (5, 5), (5, 5), (1, 5), (1, 5)]


@pytest.mark.parametrize("method", [Round(0.1), RoundClip(0.1, 0.2), LowRank(2), Integers(3)])
def test_each_block_is_compressed_by_itself(method):
    model = lstm(G2LSTM).double()
    found = compress(model, method, gates=("forget", "output"), matrices="recurrent")
    weight = model.weight_hh_l0.detach().clone()
    for start in (4, 12):
        weight[start : start + 4] = method(weight[start : start + 4])
    assert torch.equal(found.weight_hh_l0, weight)
    assert torch.equal(found.weight_ih_l0, model.weight_ih_l0)


def test_the_copy_is_of_its_own_and_in_the_same_mode():
    for training in (True, False):
        model = LanguageModel(9, 3, 4, 2).train(training)
        found = compress(model, Round(0.1))
        assert {part.training for part in found.modules()} == {training}
        assert all(parameter.requires_grad for parameter in found.parameters())
        assert not {p.data_ptr() for p in model.parameters()} & {
            p.data_ptr() for p in found.parameters()
        }
    x = torch.randn(5, 2, 3)
    plain, native = compress(lstm(nn.LSTM), Round(0.1)), nn.LSTM(3, 4)
    native.load_state_dict(plain.state_dict())
    assert torch.equal(plain(x)[0], native(x)[0])  # the kernel sees the new weights


@pytest.mark.parametrize("feeding", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_without_the_context_columns_the_decoder_sees_nothing_of_the_source(layers, feeding):
    model = translation(input_feeding=feeding, decoder_layers=layers).eval()
    source, lengths = torch.tensor([[4, 5], [6, 3], [5, 6]]), torch.tensor([3, 3])
    memory = model.encode(source, lengths)
    other = model.encode(source.flip(0, 1), lengths)
    inputs = torch.tensor([[2, 2], [4, 7], [5, 3]])
    reads_context = layers == 2 or feeding

    def states(model, memory):
        """States of the decoder's LSTMs, started alike whatever the memory."""
        state = model.start(model.encode(source, lengths))
        return [part for pair in model.decode(inputs, state, memory).state.layers for part in pair]

    def differ(model):
        pairs = zip(states(model, memory), states(model, other), strict=True)
        return any(not torch.equal(*pair) for pair in pairs)

    assert differ(model) == reads_context
    if reads_context:
        assert not differ(compress(model, torch.zeros_like, GATES, "context"))
        assert differ(compress(model, torch.zeros_like, GATES[:3], "context"))


def test_gate_blocks_are_views_by_name():
    model = nn.ModuleDict({"first": nn.LSTM(3, 4), "second": G2LSTM(4, 5, bidirectional=True)})
    blocks = gate_blocks(model, ("forget", "cell"), "recurrent", biases=True)
    parts = [("first", "l0"), ("second", "l0"), ("second", "l0_reverse")]
    assert list(blocks) == [
        f"{module}.{kind}_{suffix}: {gate}"
        for module, suffix in parts
        for kind in ("weight_hh", "bias_ih", "bias_hh")
        for gate in ("forget", "cell")
    ]
    blocks["second.weight_hh_l0_reverse: cell"].fill_(1.0)
    mask = (model["second"].weight_hh_l0_reverse == 1).all(1)
    assert mask.nonzero()[:, 0].tolist() == list(range(10, 15))
    assert list(gate_blocks(nn.LSTM(3, 4), "input", "input")) == ["weight_ih_l0: input"]


def test_gate_blocks_of_the_context_have_its_columns():
    model = translation()
    blocks = gate_blocks(model, "input", "context")
    assert {name: tuple(block.shape) for name, block in blocks.items()} == {
        "upper_decoder.weight_ih_l0: input": (4, 4)
    }
    assert torch.equal(*blocks.values(), model.upper_decoder.weight_ih_l0[:4, 4:])


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Round(0.0), r"step must be a finite number > 0, got 0\.0"),
        (lambda: Round(-0.2), r"step.*got -0\.2"),
        (lambda: Round(float("nan")), "step.*got nan"),
        (lambda: Round(float("inf")), "step.*got inf"),
        (lambda: Round("0.2"), r"step must be a number, got '0\.2'"),
        (lambda: Round(True), "step must be a number, got True"),
        (lambda: RoundClip(0, 1.0), "step.*got 0"),
        (lambda: RoundClip(0.2, 0.0), r"clip must be a finite number > 0, got 0\.0"),
        (lambda: RoundClip(0.2, None), "clip must be a number, got None"),
        (
            lambda: RoundClip(0.4, 0.2),
            r"step=0\.4 is larger than clip=0\.2.*swap them, as in RoundClip\(0\.2, 0\.4\)",
        ),
        (lambda: LowRank(0), "rank must be an integer >= 1, got 0"),
        (lambda: LowRank(-3), "rank.*got -3"),
        (lambda: LowRank(2.0), r"rank.*got 2\.0"),
        (lambda: LowRank(True), "rank.*got True"),
        (lambda: Integers(1), "bits must be an integer from 2 to 8, got 1"),
        (lambda: Integers(9), "bits.*got 9"),
        (lambda: Integers(2.5), r"bits.*got 2\.5"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(CompressionError, match=message):
        make()


@pytest.mark.parametrize(
    ("model", "choice", "message"),
    [
        (nn.LSTM(3, 4), {"gates": ("input", "reset")}, "gate must be one of input, .*'reset'"),
        (nn.LSTM(3, 4), {"gates": "update"}, "gate must be one of.*got 'update'"),
        (nn.LSTM(3, 4), {"matrices": ("hidden",)}, "matrix must be one of input.*got 'hidden'"),
        (nn.LSTM(3, 4), {"gates": ()}, "nothing is chosen"),
        (nn.LSTM(3, 4), {"matrices": ()}, "nothing is chosen"),
        (nn.LSTM(3, 4), {"matrices": "context"}, "LSTM has nothing of what is chosen: context"),
        (nn.LSTM(3, 4, bias=False), {"matrices": (), "biases": True}, "is chosen: biases"),
        (nn.Linear(3, 4), {}, r"Linear holds no torch\.nn\.LSTM or G2LSTM"),
        (nn.Sequential(factorise(nn.LSTM(3, 4), 1, "input")), {}, "0 is factored already"),
        (factorise(nn.LSTM(3, 4), 1), {}, "LowRankLSTM is factored already"),
    ],
)
def test_a_wrong_choice_is_named(model, choice, message):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CompressionError, match=message):
        compress(model, constant, **choice)
    with pytest.raises(CompressionError, match=message):
        gate_blocks(model, **choice)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


# --- weights that are computed from others -------------------------------------------------------


class Double(nn.Module):
    def forward(self, weight):
        return 2 * weight


def drop_connect(lstm, name):
    """As AWD-LSTM does it: the weight is an attribute that every step computes anew."""
    weight = lstm._parameters.pop(name)
    lstm.register_parameter(f"{name}_raw", weight)
    setattr(lstm, name, weight.detach().clone())


# By kind: how the weight is computed, what undoes it, and a part of the error that names it.
COMPUTED = {
    "weight_norm": (utils.weight_norm, utils.remove_weight_norm, "WeightNorm.*remove_weight_norm"),
    "spectral_norm": (
        utils.spectral_norm, utils.remove_spectral_norm, "SpectralNorm.*remove_spectral_norm",
    ),
    "pruned": (
        lambda lstm, name: prune.l1_unstructured(lstm, name, 0.5),
        prune.remove,
        r"L1Unstructured.*torch\.nn\.utils\.prune\.remove",
    ),
    "pruned twice": (
        lambda lstm, name: [prune.l1_unstructured(lstm, name, 0.5) for _ in range(2)],
        prune.remove,
        r"PruningContainer.*torch\.nn\.utils\.prune\.remove",
    ),
    "parametrizations.weight_norm": (
        parametrizations.weight_norm,
        parametrize.remove_parametrizations,
        r"_WeightNorm.*torch\.nn\.utils\.parametrize\.remove_parametrizations",
    ),
    "parametrize": (
        lambda lstm, name: parametrize.register_parametrization(lstm, name, Double()),
        parametrize.remove_parametrizations,
        r"Double.*torch\.nn\.utils\.parametrize\.remove_parametrizations",
    ),
    "DropConnect": (drop_connect, None, "register_parameter"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["weight_hh_l0", "weight_ih_l1_reverse", "bias_hh_l1"])
@pytest.mark.parametrize("layer", [nn.LSTM, G2LSTM])
@pytest.mark.parametrize("kind", COMPUTED)
def test_weights_that_are_computed_from_others_are_refused_until_they_are_parameters(
    kind, layer, name
):
    add, remove, match = COMPUTED[kind]
    if name.startswith("bias") and kind == "spectral_norm":
        name = "weight_hh_l1"  # it is of matrices alone
    model = nn.Sequential(nn.Linear(3, 3), layer(3, 4, 2, bidirectional=True))
    before = flops_per_step(model)
    add(model[1], name)
    for use in (
        lambda m: compress(m, Round(0.1)),
        gate_blocks,
        flops_per_step,
        lambda m: compression_report({"model": m}),
        lambda m: factorise(m, 1),
        lambda m: factorise(m[1], 1),
    ):
        with pytest.raises(ReparametrisedError, match=f"{name}.*{match}"):
            use(model)
    if remove is not None:
        remove(model[1], name)
        assert flops_per_step(model) == before
        blocks = gate_blocks(compress(model, constant), biases=True)
        assert any(block_name.startswith(f"1.{name}:") for block_name in blocks)


def test_computed_weights_of_other_layers_are_left_alone():
    model = nn.ModuleList([parametrizations.weight_norm(nn.Linear(3, 3)), nn.LSTM(3, 4)])
    assert flops_per_step(compress(model, Round(0.1))) == flops_per_step(model[1])
