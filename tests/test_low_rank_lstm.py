"""LowRankLSTM against the layer whose blocks `compress` has made low in rank, and numpy."""

import copy
import itertools
import warnings

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from choices import choose_products
from g2lstm import G2LSTM
from g2lstm.compression import CompressionError, LowRank, compress
from g2lstm.gates import NOISE_GATES
from g2lstm.inspection import record_gates
from g2lstm.language_model import LanguageModel
from g2lstm.low_rank_lstm import LowRankLSTM, factorise, largest_rank
from g2lstm.translation import TranslationModel

INPUT, HIDDEN, STEPS, BATCH, RANK = 5, 6, 7, 4, 2
LENGTHS = {"sorted": [7, 4, 4, 1], "unsorted": [4, 7, 1, 4]}
KINDS = {
    "nn.LSTM": (nn.LSTM, {}),
    "sigmoid": (G2LSTM, {"gate": "sigmoid"}),
    "sharpened": (G2LSTM, {"gate": "sharpened", "temperature": 0.4}),
    "gumbel": (G2LSTM, {"gate": "gumbel", "temperature": 0.4}),
    "hard": (G2LSTM, {"gate": "sigmoid", "evaluation_gate": "hard"}),
    "three kept": (
        G2LSTM,
        {"temperature": 0.4, "noise_gates": NOISE_GATES[1], "evaluation_gate": "temperature"},
    ),
    "three hard": (G2LSTM, {"noise_gates": NOISE_GATES[1], "evaluation_gate": "hard"}),
}


def make(kind="nn.LSTM", dtype=torch.float32, **settings):
    torch.manual_seed(0)
    layer, gate = KINDS[kind]
    made = layer(INPUT, HIDDEN, **settings, **gate, dtype=dtype).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def draw(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def make_input(layer, layout, dtype=torch.float32):
    if layout == "unbatched":
        return draw(STEPS, INPUT, dtype=dtype)
    x = draw(*((BATCH, STEPS) if layer.batch_first else (STEPS, BATCH)), INPUT, dtype=dtype)
    if layout == "batched":
        return x
    return pack_padded_sequence(x, LENGTHS[layout], layer.batch_first, layout == "sorted")


def make_state(layer, layout, dtype=torch.float32):
    layers = layer.num_layers * (2 if layer.bidirectional else 1)
    shape = (layers, HIDDEN) if layout == "unbatched" else (layers, BATCH, HIDDEN)
    return draw(*shape, dtype=dtype), draw(*shape, dtype=dtype).flip(0)


def everything(layer, x, hx):
    output, state = layer(x, hx)
    if isinstance(x, torch.Tensor):
        return [output, *state]
    indices = [i for i in (output.sorted_indices, output.unsorted_indices) if i is not None]
    return [output.data, *state, output.batch_sizes, *indices]


def assert_same(one, other, tolerance=1e-5):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


# --- the function --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["batched", "unbatched", "sorted", "unsorted"])
def test_equals_the_simulated_layer(layout, kind):
    switches = itertools.product((False, True), repeat=4)
    for batch_first, bidirectional, bias, given in switches:
        lstm = make(kind, num_layers=2, batch_first=batch_first, bidirectional=bidirectional,
                    bias=bias)  # fmt: skip
        x = make_input(lstm, layout)
        hx = make_state(lstm, layout) if given else None
        compact = LowRankLSTM.from_lstm(lstm, RANK)
        found = everything(compact, x, hx)
        assert_same(found, everything(compress(lstm, LowRank(RANK)), x, hx))
        assert not torch.allclose(found[0], everything(lstm, x, hx)[0], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("matrices", [("input",), ("recurrent",), ("input", "recurrent")])
@pytest.mark.parametrize("rank", [1, 3, 5, 6, 50])
def test_equals_the_simulated_layer_of_any_rank_and_choice(rank, matrices, kind):
    """Ranks from the least to more than blocks have; in float64, so to many digits."""
    lstm = make(kind, torch.float64, num_layers=2)
    compact = LowRankLSTM.from_lstm(lstm, rank, matrices)
    x = make_input(lstm, "batched", torch.float64)
    expected = compress(lstm, LowRank(rank), matrices=matrices)
    assert_same(everything(compact, x, None), everything(expected, x, None), 1e-12)
    assert {parameter.dtype for parameter in compact.parameters()} == {torch.float64}


def test_parameters_are_what_the_class_says():
    """Products of the factors against numpy's SVD, with the temperature worked in."""
    lstm = make("sharpened", torch.float64, bidirectional=True)
    compact = LowRankLSTM.from_lstm(lstm, RANK, "recurrent")
    for suffix in ("l0", "l0_reverse"):
        weight = getattr(lstm, f"weight_hh_{suffix}").detach().numpy()
        compact_weight = getattr(compact, f"weight_hh_{suffix}").detach().numpy()
        left = getattr(compact, f"left_hh_{suffix}").detach().numpy()
        assert compact_weight.shape == (2 * RANK + 2 * HIDDEN, HIDDEN)
        assert left.shape == (2, HIDDEN, RANK)
        for gate in (0, 1):
            block = weight[gate * HIDDEN : (gate + 1) * HIDDEN] / 0.4
            u, s, v = np.linalg.svd(block)
            product = left[gate] @ compact_weight[gate * RANK : (gate + 1) * RANK]
            best = (u[:, :RANK] * s[:RANK]) @ v[:RANK]
            np.testing.assert_allclose(product, best, rtol=0, atol=1e-12)
        assert np.array_equal(compact_weight[2 * RANK :], weight[2 * HIDDEN :])
        scale = torch.tensor([1 / 0.4, 1 / 0.4, 1.0, 1.0]).double().repeat_interleave(HIDDEN)
        bias = getattr(lstm, f"bias_ih_{suffix}") + getattr(lstm, f"bias_hh_{suffix}")
        torch.testing.assert_close(getattr(compact, f"bias_{suffix}"), bias * scale)
        weight_ih = getattr(lstm, f"weight_ih_{suffix}") * scale[:, None]
        torch.testing.assert_close(getattr(compact, f"weight_ih_{suffix}"), weight_ih)
        assert not hasattr(compact, f"left_ih_{suffix}")


def test_blocks_without_a_unique_decomposition_are_factored_too():
    """Of equal singular values, and of zeros: left and right factors are of one decomposition."""
    lstm = make(dtype=torch.float64)
    with torch.no_grad():
        lstm.weight_hh_l0[:HIDDEN] = torch.linalg.qr(draw(HIDDEN, HIDDEN).double())[0]
        lstm.weight_hh_l0[HIDDEN : 2 * HIDDEN] = 0.0
    compact = LowRankLSTM.from_lstm(lstm, HIDDEN)
    x = make_input(lstm, "batched", torch.float64)
    assert_same(everything(compact, x, None), everything(lstm, x, None), 1e-12)


def test_the_layer_it_is_made_from_stays_as_it_is():
    lstm = make("sharpened", num_layers=2)
    before = copy.deepcopy(lstm.state_dict())
    compact = LowRankLSTM.from_lstm(lstm, RANK)
    with torch.no_grad():
        for parameter in compact.parameters():
            parameter.zero_()
    torch.testing.assert_close(lstm.state_dict(), before, rtol=0, atol=0)


def test_options_and_mode_are_taken_over():
    for training in (True, False):
        lstm = nn.LSTM(INPUT, HIDDEN, 2, dropout=0.5, batch_first=True).train(training)
        compact = LowRankLSTM.from_lstm(lstm, RANK)
        assert compact.training == training
        assert (compact.dropout, compact.batch_first, compact.bias) == (0.5, True, True)
    x = make_input(compact, "batched")
    assert torch.equal(compact(x)[0], compact(x)[0])
    compact.train()
    assert not torch.equal(compact(x)[0], compact(x)[0])
    assert f"rank={RANK}" in repr(compact)
    assert "('input', 'recurrent')" in repr(compact)


def test_single_steps_equal_the_whole_sequence():
    compact = LowRankLSTM.from_lstm(make("gumbel", num_layers=2), RANK)
    x = make_input(compact, "batched")
    state = initial = make_state(compact, "batched")
    outputs = []
    for x_t in x.split(1):
        output, state = compact(x_t, state)
        outputs.append(output)
    output, expected = compact(x, initial)
    assert_same([torch.cat(outputs), *state], [output, *expected], 1e-6)


def test_empty_batch():
    output, (h, c) = LowRankLSTM(INPUT, HIDDEN, RANK)(torch.zeros(STEPS, 0, INPUT))
    assert output.shape == (STEPS, 0, HIDDEN)
    assert h.shape == c.shape == (1, 0, HIDDEN)


@pytest.mark.parametrize("layout", ["batched", "unsorted"])
def test_gradients_are_those_of_the_product(layout):
    """Of the input, the state and the factors: dW = d(U V), by the chain rule in numpy."""
    lstm = make(dtype=torch.float64, bidirectional=True)
    compact = LowRankLSTM.from_lstm(lstm, RANK)
    simulated = compress(lstm, LowRank(RANK))

    def gradients(layer):
        x = make_input(layer, "batched", torch.float64).requires_grad_()
        hx = [part.requires_grad_() for part in make_state(layer, "batched", torch.float64)]
        packed = x
        if layout != "batched":
            packed = pack_padded_sequence(x, LENGTHS[layout], enforce_sorted=False)
        results = everything(layer, packed, hx)[:3]
        loss = sum((result * result).sum() for result in results)
        names, leaves = zip(*layer.named_parameters(), strict=True)
        found = torch.autograd.grad(loss, [x, *hx, *leaves])
        return found[:3], dict(zip(names, found[3:], strict=True))

    outer, inner = gradients(compact)
    expected_outer, expected = gradients(simulated)
    assert_same(outer, expected_outer, 1e-11)
    for kind, suffix in itertools.product(("ih", "hh"), ("l0", "l0_reverse")):
        whole = expected[f"weight_{kind}_{suffix}"]
        left = compact._parameters[f"left_{kind}_{suffix}"]
        right = compact._parameters[f"weight_{kind}_{suffix}"]
        for gate in (0, 1):
            rows = slice(gate * RANK, (gate + 1) * RANK)
            block = whole[gate * HIDDEN : (gate + 1) * HIDDEN]
            found = [inner[f"left_{kind}_{suffix}"][gate], inner[f"weight_{kind}_{suffix}"][rows]]
            assert_same(found, [block @ right[rows].T, left[gate].T @ block], 1e-11)
        assert_same([inner[f"weight_{kind}_{suffix}"][2 * RANK :]], [whole[2 * HIDDEN :]], 1e-11)
        assert_same([inner[f"bias_{suffix}"]], [expected[f"bias_{kind}_{suffix}"]], 1e-11)


# --- the module ----------------------------------------------------------------------------------


def test_weights_go_through_safetensors(tmp_path):
    compact = LowRankLSTM.from_lstm(make(num_layers=2, bidirectional=True), RANK, ("recurrent",))
    save_file(compact.state_dict(), tmp_path / "weights")
    fresh = LowRankLSTM(
        INPUT, HIDDEN, RANK, num_layers=2, bidirectional=True, matrices=("recurrent",)
    )
    assert all(not parameter.any() for parameter in fresh.parameters())
    x = make_input(compact, "batched")
    fresh.load_state_dict(load_file(tmp_path / "weights"))
    assert_same(everything(fresh, x, None), everything(compact, x, None), 0)


def test_copies_and_pickles_are_of_their_own(tmp_path):
    compact = LowRankLSTM.from_lstm(make(num_layers=2), RANK)
    torch.save(compact, tmp_path / "layer.pt")
    x = make_input(compact, "batched")
    expected = everything(compact, x, None)
    loaded = torch.load(tmp_path / "layer.pt", weights_only=False)
    for other in (copy.deepcopy(compact), loaded):
        assert repr(other) == repr(compact)
        assert_same(everything(other, x, None), expected, 0)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        assert not everything(other, x, None)[0].any()
    assert_same(everything(compact, x, None), expected, 0)
    longer = copy.deepcopy(compact).double()
    assert_same([longer(x.double())[0].float()], expected[:1], 1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_there_are_fewer_parameters_by_as_much_as_the_rank_says(bias):
    lstm = nn.LSTM(40, 60, 2, bidirectional=True, bias=bias)
    for rank in (1, 8, 64):
        compact = LowRankLSTM.from_lstm(lstm, rank)
        count = 0
        for columns in (40, 60, 120, 60):
            r = min(rank, columns, 60)
            count += 2 * (2 * r * (60 + columns) + 2 * 60 * columns)
        count += 4 * 4 * 60 if bias else 0
        assert sum(parameter.numel() for parameter in compact.parameters()) == count
    small = sum(parameter.numel() for parameter in LowRankLSTM.from_lstm(lstm, 8).parameters())
    assert small < 0.75 * sum(parameter.numel() for parameter in lstm.parameters())


def test_gates_cannot_be_recorded_as_those_of_a_plain_lstm():
    with (
        pytest.raises(ValueError, match="LowRankLSTM has its own forward"),
        record_gates(LowRankLSTM(INPUT, HIDDEN, RANK)),
    ):
        pass


# --- whole models --------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_factored_language_model_gives_the_simulated_probabilities(tied, gate):
    torch.manual_seed(0)
    model = LanguageModel(11, 6, 8, 2, gate=gate, temperature=0.5, tie_weights=tied, cutoff=5)
    model.eval()
    tokens = torch.arange(24).view(6, 4) % 11
    compact = factorise(model, RANK)
    found = compact.log_probabilities(compact(tokens).hidden)
    simulated = compress(model, LowRank(RANK))
    torch.testing.assert_close(found, simulated.log_probabilities(simulated(tokens).hidden))
    assert not torch.allclose(found, model.log_probabilities(model(tokens).hidden), atol=1e-5)
    assert all(isinstance(layer, LowRankLSTM) for layer in compact.layers)
    assert all(isinstance(layer, G2LSTM) for layer in model.layers)
    assert not compact.training
    embeddings = (compact.embedding.weight, model.embedding.weight)
    assert torch.equal(*embeddings)
    assert embeddings[0].data_ptr() != embeddings[1].data_ptr()


@pytest.mark.parametrize("matrices", [("recurrent",), ("input", "recurrent")])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gate": "sharpened", "temperature": 0.3},
        {"input_feeding": True},
        {"decoder_layers": 1, "encoder_layers": 1},
        {"decoder_layers": 3, "encoder_layers": 3, "attention": "luong"},
    ],
)
def test_a_factored_translation_model_gives_the_simulated_probabilities(settings, matrices):
    torch.manual_seed(0)
    model = TranslationModel(11, 12, embedding_size=6, hidden_size=8, **settings).eval()
    arguments = (
        torch.tensor([[4, 5], [6, 3], [5, 0]]),
        torch.tensor([3, 2]),
        torch.tensor([[2, 2], [4, 7], [5, 3], [6, 6]]),
    )
    compact = factorise(model, RANK, matrices)
    found = compact.log_probabilities(compact(*arguments).hidden)
    simulated = compress(model, LowRank(RANK), matrices=matrices)
    expected = simulated.log_probabilities(simulated(*arguments).hidden)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(found, model.log_probabilities(model(*arguments).hidden), atol=1e-4)
    lstms = [part for part in compact.modules() if isinstance(part, nn.LSTM)]
    assert lstms
    assert {type(part) for part in lstms} == {LowRankLSTM}


def test_a_single_layer_is_a_model_too():
    lstm = make(num_layers=2)
    x = make_input(lstm, "batched")
    compact = factorise(lstm, RANK, "input")
    assert isinstance(compact, LowRankLSTM)
    expected = compress(lstm, LowRank(RANK), matrices="input")
    assert_same(everything(compact, x, None), everything(expected, x, None))


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_layer", "message"),
    [
        (lambda: LowRankLSTM(3, 4, 0), "rank must be an integer >= 1, got 0"),
        (lambda: LowRankLSTM(3, 4, 1.5), r"rank.*got 1\.5"),
        (lambda: LowRankLSTM(3, 4, 2, matrices=()), r"matrices must be some of.*got \(\)"),
        (lambda: LowRankLSTM(3, 4, 2, matrices="context"), "matrices.*got .'context',"),
        (
            lambda: LowRankLSTM.from_lstm(nn.LSTM(3, 4), 2, ("input", "output")),
            "matrices must be some of input, recurrent, got .'input', 'output'",
        ),
        (lambda: LowRankLSTM.from_lstm(nn.LSTM(3, 4), -1), "rank.*got -1"),
        (lambda: LowRankLSTM.from_lstm(nn.LSTM(3, 4, proj_size=2), 2), "proj_size=2"),
        (lambda: LowRankLSTM.from_lstm(LowRankLSTM(3, 4, 2), 1), "factored already, to rank 2"),
        (lambda: factorise(nn.LSTM(3, 4), 0), "rank.*got 0"),
        (lambda: LowRankLSTM(3, 4, 2, hard="foo g"), "hard must be some of i, f, o, got 'foo g'"),
        (lambda: LowRankLSTM(3, 4, 2, hard=None), "hard must be some of i, f, o, got None"),
        (lambda: factorise(nn.Sequential(nn.LSTM(3, 4)), 1, "cell"), "matrices.*'cell'"),
        (lambda: factorise(factorise(nn.Sequential(nn.LSTM(3, 4)), 1), 1), "factored already"),
        (lambda: factorise(nn.Linear(3, 4), 1), r"Linear holds no torch\.nn\.LSTM or G2LSTM"),
    ],
)
def test_wrong_arguments_are_named(make_layer, message):
    with pytest.raises(CompressionError, match=message):
        make_layer()


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(0, 2, INPUT),),
        (torch.zeros(5, 2, INPUT + 1),),
        (torch.zeros(INPUT),),
        (torch.zeros(5, 2, INPUT).double(),),
        (torch.zeros(5, 2, INPUT), (torch.zeros(1, 3, HIDDEN), torch.zeros(1, 2, HIDDEN))),
        (torch.zeros(5, 2, INPUT), (torch.zeros(2, HIDDEN), torch.zeros(2, HIDDEN))),
        (pack_padded_sequence(torch.zeros(5, 2, INPUT + 1), [5, 2]),),
    ],
    ids=["no-steps", "features", "1-d", "dtype", "hidden-batch", "hidden-2-d", "packed-features"],
)
def test_wrong_input_is_the_same_kind_of_error_as_in_nn_lstm(arguments):
    with pytest.raises((ValueError, RuntimeError)) as expected:
        nn.LSTM(INPUT, HIDDEN)(*arguments)
    with pytest.raises(expected.type):
        LowRankLSTM(INPUT, HIDDEN, RANK)(*arguments)


# --- factors of all four gates -------------------------------------------------------------------


@pytest.mark.parametrize("matrices", [("input",), ("recurrent",), ("input", "recurrent")])
@pytest.mark.parametrize("kind", KINDS)
def test_factors_of_all_gates_are_the_best_of_their_rank(kind, matrices):
    """Of every whole matrix, against numpy's SVD."""
    lstm = make(kind, torch.float64, num_layers=2, bidirectional=True)
    compact = LowRankLSTM.from_lstm(lstm, RANK, matrices, "all")
    twin = copy.deepcopy(lstm)
    chosen = {{"input": "ih", "recurrent": "hh"}[name] for name in matrices}
    with torch.no_grad():
        for name, weight in twin.named_parameters():
            if name.split("_")[1] in chosen and name.startswith("weight"):
                u, s, v = np.linalg.svd(weight.numpy())
                weight.copy_(torch.from_numpy((u[:, :RANK] * s[:RANK]) @ v[:RANK]))
    x = make_input(lstm, "batched", torch.float64)
    assert_same(everything(compact, x, None), everything(twin, x, None), 1e-12)
    rows, columns = 4 * HIDDEN, 2 * HIDDEN
    stored = {name: tuple(part.shape) for name, part in compact.named_parameters()}
    assert stored["weight_ih_l1"] == ((RANK if "ih" in chosen else rows), columns)
    assert stored.get("left_hh_l1") == ((1, rows, RANK) if "hh" in chosen else None)


def test_a_full_rank_of_all_gates_loses_nothing():
    lstm = make("sharpened", torch.float64)
    x = make_input(lstm, "batched", torch.float64)
    for rank in (HIDDEN, 50):
        compact = LowRankLSTM.from_lstm(lstm, rank, gates="all")
        assert_same(everything(compact, x, None), everything(lstm, x, None), 1e-12)


def test_other_gates_are_an_error():
    with pytest.raises(CompressionError, match="gates must be one of input-forget, all, got 'no'"):
        LowRankLSTM(3, 4, 2, gates="no")


# --- without gradients ---------------------------------------------------------------------------


@pytest.fixture(params=["as it is", "oneDNN, packed", "packed alone", "without oneDNN"])
def any_products(request, monkeypatch):
    if request.param != "as it is":
        choose_products(monkeypatch, request.param)


@hypothesis.settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    steps=st.integers(1, 12),
    batch=st.integers(0, 9),
    bias=st.booleans(),
    bidirectional=st.booleans(),
    matrices=st.sampled_from([("input",), ("recurrent",), ("input", "recurrent")]),
    gates=st.sampled_from(["input-forget", "all"]),
    given_state=st.booleans(),
    mode=st.sampled_from([torch.no_grad, torch.inference_mode]),
)
def test_without_gradients_it_computes_the_same(
    any_products, steps, batch, bias, bidirectional, matrices, gates, given_state, mode
):
    lstm = make("sharpened", num_layers=2, bias=bias, bidirectional=bidirectional)
    compact = LowRankLSTM.from_lstm(lstm, 3, matrices, gates)
    x = draw(steps, batch, INPUT)
    hx = None
    if given_state:
        layers = 4 if bidirectional else 2
        hx = (draw(layers, batch, HIDDEN), draw(layers, batch, HIDDEN))
    expected = everything(copy.deepcopy(compact).double(), x.double(), hx and
                          tuple(part.double() for part in hx))  # fmt: skip
    with mode():
        for _ in range(2):  # the second time with kept weights
            found = everything(compact, x, hx)
            assert_same([part.double() for part in found], expected)
            assert len({part.data_ptr() for part in found if part.numel()}) == 3 or not batch


def edit_in_place(layer):
    with torch.no_grad():
        layer.weight_hh_l0.mul_(0.5)


def step_of_an_optimiser(layer):
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


def load(layer):
    other = make()
    with torch.no_grad():
        other.weight_ih_l0.mul_(0.1)
    layer.load_state_dict(LowRankLSTM.from_lstm(other, RANK).state_dict())


def replace_parameter(layer):
    layer.bias_l0 = nn.Parameter(layer.bias_l0.detach() + 1)


def replace_data(layer):
    layer.left_hh_l0.data = layer.left_hh_l0.data * 2


@pytest.mark.parametrize(
    "change", [edit_in_place, step_of_an_optimiser, load, replace_parameter, replace_data]
)
@torch.no_grad()
def test_kept_weights_follow_the_parameters(change):
    layer = LowRankLSTM.from_lstm(make(), RANK)
    x = make_input(layer, "batched")
    before = everything(layer, x, None)
    change(layer)
    fresh = copy.deepcopy(layer).double()
    after = everything(layer, x, None)
    assert_same([part.double() for part in after], everything(fresh, x.double(), None))
    assert not torch.allclose(before[0], after[0], atol=1e-3)


@torch.no_grad()
def test_batches_of_other_sizes_use_the_same_weights():
    layer = LowRankLSTM.from_lstm(make(), RANK)
    twin = copy.deepcopy(layer).double()
    for batch in (4, 3, 1, 17, 1, 4):
        x = draw(STEPS, batch, INPUT)
        found = [part.double() for part in everything(layer, x, None)]
        assert_same(found, everything(twin, x.double(), None))


def test_a_used_layer_can_be_copied_pickled_and_trained(tmp_path):
    layer = LowRankLSTM.from_lstm(make(), RANK)
    x = make_input(layer, "batched")
    with torch.no_grad():
        expected = everything(layer, x, None)
    torch.save(layer, tmp_path / "layer.pt")
    loaded = torch.load(tmp_path / "layer.pt", weights_only=False)
    for other in (copy.deepcopy(layer), loaded):
        with torch.no_grad():
            assert_same(everything(other, x, None), expected, 0)
    output, _ = layer(x)
    output.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


# --- a rank that saves nothing -------------------------------------------------------------------


def weights(model):
    return sum(part.numel() for name, part in model.named_parameters() if "bias" not in name)


@hypothesis.given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    matrices=st.sampled_from(["input", "recurrent", ("input", "recurrent")]),
    gates=st.sampled_from(["input-forget", "all"]),
    rank=st.integers(1, 40),
)
def test_a_rank_is_warned_of_just_where_no_weights_are_saved(
    sizes, layers, bidirectional, matrices, gates, rank
):
    """Counted on the factored models themselves, at every rank."""
    model = nn.ModuleList(
        nn.LSTM(d, h, layers, bidirectional=bidirectional) for d, h in itertools.pairwise(sizes)
    )
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        counts = {r: weights(factorise(model, r, matrices, gates)) for r in range(1, 41)}
    saving = [r for r, count in counts.items() if count < weights(model)]
    assert largest_rank(model, matrices, gates) == max(saving, default=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        factorise(model, rank, matrices, gates)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == (rank not in saving)
    for message in messages:
        assert f"rank={rank} saves no weights" in message
        assert (f"saves any is {max(saving)}" if saving else "no rank saves any") in message
