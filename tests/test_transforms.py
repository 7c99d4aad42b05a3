"""What torch does with a model that holds the layer: derivatives, compilers, tracers, devices."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, vmap
from torch.nn.utils.rnn import pack_padded_sequence

from g2lstm.gates import gaussian_noise, logistic_noise
from g2lstm.low_rank_lstm import LowRankLSTM
from g2lstm.lstm import G2LSTM, BackendError

ARGUMENTS = {
    "sigmoid": {"gate": "sigmoid"},
    "sigmoid, fused": {"gate": "sigmoid", "backend": "fused"},
    "sharpened": {"gate": "sharpened", "temperature": 0.4},
    "gumbel": {"gate": "gumbel"},
    "gumbel, output": {"gate": "gumbel", "noise_gates": "input-forget-output"},
    "gaussian": {"gate": "gumbel", "noise_distribution": "gaussian", "noise_probability": 1.0},
    "gumbel, reference": {"gate": "gumbel", "backend": "reference"},
}
WITHOUT_NOISE = ["sigmoid", "sigmoid, fused", "sharpened"]


class Model(nn.Module):
    """The layer, in double precision, with something after it."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn
        self.out = nn.Linear(8, 2)
        self.double()

    def forward(self, x):
        output, (h, c) = self.rnn(x)
        return self.out(output) + (h * c).sum()


def make(name, **arguments):
    torch.manual_seed(0)
    return Model(G2LSTM(3, 4, 2, bidirectional=True, **ARGUMENTS[name], **arguments))


def oracle(model):
    """The same model with the readable loop, or `torch.nn.LSTM` where it is a plain LSTM."""
    other = copy.deepcopy(model)
    other.rnn.backend = "reference"
    if model.rnn.gate == "sigmoid":
        other.rnn = nn.LSTM(3, 4, 2, bidirectional=True, dtype=torch.float64)
        other.rnn.load_state_dict(model.rnn.state_dict())
    return other.train(model.training)


def draw(steps=4, batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, batch, 3, generator=generator, dtype=torch.float64)


def seeded(function, *arguments):
    """The function's value, with the same noise at every call."""
    torch.manual_seed(2)
    return function(*arguments)


def gradients(model, x):
    return torch.autograd.grad(seeded(model, x).pow(2).sum(), list(model.parameters()))


def assert_same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_hessians_and_penalties_on_gradients(name):
    model, x = make(name), draw()

    def penalty(model):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(seeded(model, leaf).sum(), leaf, create_graph=True)
        rnn = list(model.rnn.parameters())
        return torch.autograd.grad(gradient.pow(2).sum(), rnn)

    def hessian(model):
        return torch.autograd.functional.hessian(lambda x: seeded(model, x).sum(), draw(2, 1))

    assert_same(penalty(model), penalty(oracle(model)))
    assert_same(hessian(model), hessian(oracle(model)))
    assert hessian(model).any()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_step_of_maml(name):
    """Through an inner step of gradient descent, to the weights before it."""

    def outer(model):
        parameters = dict(model.named_parameters())
        call = functools.partial(functional_call, model)
        inner = torch.autograd.grad(
            seeded(call, parameters, (draw(),)).sum(), list(parameters.values()), create_graph=True
        )
        moved = {k: p - 0.1 * g for (k, p), g in zip(parameters.items(), inner, strict=True)}
        loss = seeded(call, moved, (draw(seed=3),)).pow(2).sum()
        return torch.autograd.grad(loss, list(parameters.values()))

    assert_same(outer(make(name)), outer(oracle(make(name))))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_functional_gradients(name):
    model, x = make(name), draw()

    def loss(parameters):
        return seeded(functional_call, model, parameters, (x,)).pow(2).sum()

    found = grad(loss)({k: p.detach() for k, p in model.named_parameters()})
    assert_same(tuple(found.values()), gradients(oracle(model), x))


@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_a_batch_of_calls_by_vmap(name):
    model, xs = make(name), torch.stack([draw(seed=k) for k in range(5)])
    expected = torch.stack([oracle(model)(x) for x in xs])
    assert_same(vmap(model)(xs), expected)


@pytest.mark.parametrize("name", [name for name in ARGUMENTS if name not in WITHOUT_NOISE])
def test_noise_of_a_batch_of_calls_is_the_same_or_different(name):
    model, xs = make(name), torch.stack([draw()] * 3)
    same = seeded(vmap(model, randomness="same"), xs)
    assert_same(same, torch.stack([seeded(model, draw())] * 3))
    different = vmap(model, randomness="different")(xs)
    assert all(not torch.equal(different[k], different[k - 1]) for k in range(3))


@pytest.mark.parametrize("draw_noise", [logistic_noise, gaussian_noise])
def test_each_call_of_a_batch_has_the_share_of_noise(draw_noise):
    torch.manual_seed(0)
    calls = torch.zeros(4)
    noise = vmap(lambda _: draw_noise((100, 100), 0.2), randomness="different")(calls)
    share = (noise != 0).double().mean((1, 2))
    assert ((share - 0.2).abs() < 0.02).all()  # 5 standard deviations
    assert (noise.var((1, 2)) > 0.5).all()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_gradients_of_each_example(name):
    model, xs = make(name), torch.stack([draw(batch=1, seed=k) for k in range(4)])
    parameters = {k: p.detach() for k, p in model.named_parameters()}

    def loss(parameters, x):
        return functional_call(model, parameters, (x,)).pow(2).sum()

    found = seeded(vmap(grad(loss), (None, 0), randomness="same"), parameters, xs)
    for k, x in enumerate(xs):
        assert_same([value[k] for value in found.values()], list(gradients(oracle(model), x)))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_jacobians(name):
    model, x = make(name), draw(3, 2)
    expected = torch.autograd.functional.jacobian(lambda x: seeded(oracle(model), x), x)
    assert_same(seeded(jacrev(model), x), expected)
    assert_same(seeded(jacfwd(model, randomness="same"), x), expected)
    batched = torch.autograd.functional.jacobian(lambda x: seeded(model, x), x, vectorize=True)
    assert_same(batched, expected)
    direction = draw(3, 2, seed=5)
    with forward_ad.dual_level():
        output = seeded(model, forward_ad.make_dual(x, direction))
        tangent = forward_ad.unpack_dual(output).tangent
    assert_same(tangent, (expected * direction).sum((3, 4, 5)))


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    yield torch.compile
    torch._dynamo.reset()


@pytest.mark.parametrize("compiled", ["eager", "aot_eager"])
@pytest.mark.parametrize("dynamic", [None, True, False])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_compiled_training_at_every_length_and_batch_size(compiler, name, dynamic, compiled):
    model = make(name)
    fast = compiler(model, backend=compiled, dynamic=dynamic)
    for steps, batch in [(4, 3), (6, 3), (4, 2), (9, 5), (1, 1)]:
        x = draw(steps, batch)
        assert_same(gradients(fast, x), gradients(model, x))
    with torch.no_grad():
        assert_same(fast.eval()(x), oracle(model.eval())(x))


@pytest.mark.parametrize("noise", [logistic_noise, gaussian_noise])
@pytest.mark.parametrize("probability", [0.2, 1.0])
def test_noise_is_drawn_inside_a_compiled_function(compiler, noise, probability):
    """As of a cell that someone writes with the functions of gates."""
    draw_noise = compiler(
        lambda x: noise(tuple(x.shape), probability), backend="eager", fullgraph=True
    )
    for rows in (300, 400, 500):
        drawn = draw_noise(torch.zeros(rows, 100))
        assert abs((drawn != 0).double().mean() - probability) < 0.02
        assert drawn.shape == (rows, 100)


@pytest.mark.parametrize(
    ("name", "training", "strict"),
    [
        *((name, training, False) for name in ARGUMENTS for training in (False, True)),
        ("sigmoid", True, True),
        ("sharpened", False, True),
        ("gumbel", True, True),
    ],
)
def test_export_with_a_free_batch_size(name, training, strict):
    model = make(name).train(training)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (draw(3),), dynamic_shapes=({1: batch},), strict=strict)
    x = draw(3, 7)
    found = program.module()(x)
    if name in WITHOUT_NOISE or not training:
        assert_same(found, oracle(model)(x))
    else:
        assert not torch.equal(found, program.module()(x))  # the noise is drawn at each call


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ARGUMENTS)
def test_traced_in_evaluation(name):
    model = make(name).eval()
    traced = torch.jit.trace(model, (draw(),))
    assert_same(traced(draw(batch=7)), oracle(model)(draw(batch=7)))
    # Another length is right, or an error of torch's, never a part of the sequence.
    try:
        longer = traced(draw(steps=6))
    except RuntimeError:
        return
    assert_same(longer, oracle(model)(draw(steps=6)))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_noise_of_a_traced_layer_covers_a_larger_batch():
    layer = G2LSTM(3, 4, gate="gumbel", noise_probability=0.5)
    traced = torch.jit.trace(layer, (torch.zeros(5, 2, 3),), check_trace=False)
    output, _ = traced(torch.zeros(5, 300, 3))
    without = traced(torch.zeros(5, 300, 3))[0] == output  # of two draws
    assert 0 < without[0].double().mean() < 0.5
    assert without[0, -50:].double().mean() < 0.5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ARGUMENTS)
def test_script_names_the_way_out(name):
    with pytest.raises(BackendError, match=r"torch\.jit\.trace"):
        torch.jit.script(make(name))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_fx_takes_the_layer_as_one_node(name):
    model = make(name)
    traced = torch.fx.symbolic_trace(model)
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == ["rnn", "out"]
    for x in (draw(), draw(6, 2)):
        assert_same(gradients(traced, x), gradients(model, x))
    assert_same(traced.eval()(draw()), oracle(model.eval())(draw()))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("wants_gradients", [False, True])
def test_a_factored_layer_too(compiler, wants_gradients):
    layer = LowRankLSTM.from_lstm(G2LSTM(3, 4, gate="sharpened"), 2)
    layer.requires_grad_(wants_gradients)
    xs = torch.stack([draw(seed=k).float() for k in range(3)])
    expected = torch.stack([layer(x)[0] for x in xs])
    traced = torch.jit.trace(layer, (xs[0],))
    ways = [compiler(layer, backend="eager"), traced, torch.fx.symbolic_trace(nn.Sequential(layer))]
    for way in ways:
        torch.testing.assert_close(torch.stack([way(x)[0] for x in xs]), expected)
    torch.testing.assert_close(vmap(lambda x: layer(x)[0])(xs), expected)
    assert jacfwd(lambda x: layer(x)[0])(xs[0]).any()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_runs_on_a_device_without_autocast(name, training, packed):
    model = make(name).train(training).to("meta")
    x = draw().to("meta").requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = model.rnn(pack_padded_sequence(x, [4, 2, 1]) if packed else x)
    output = output.data if packed else output
    output.sum().backward()
    assert x.grad.shape == x.shape
    assert output.device.type == model.rnn.weight_hh_l1.grad.device.type == "meta"


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_default_device(name, packed, device):
    """Made on the default device, the layer is there; made before, it stays where it was."""
    old, x = make(name), draw()
    lengths = torch.tensor([4, 2, 1])

    def run(layer, x):
        if not packed:
            return seeded(layer, x)[0]
        return seeded(layer, pack_padded_sequence(x, lengths))[0].data

    expected = run(old.rnn, x)
    with torch.device(device):
        new = G2LSTM(3, 4, 2, bidirectional=True, **ARGUMENTS[name])
        output = run(new, torch.zeros(4, 3, 3))
        output.sum().backward()
        found = run(old.rnn, x)
        found.sum().backward()
    assert output.device.type == new.weight_hh_l0.grad.device.type == device
    assert_same(found, expected)
