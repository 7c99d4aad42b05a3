"""Gates' weights with a rate of their own, against two parameters in torch's own optimisers."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from g2lstm.gate_rates import scale_gates, with_gate_rate
from g2lstm.lstm import G2LSTM

OPTIMIZERS = {
    "adamw": partial(torch.optim.AdamW, lr=0.05, weight_decay=0.3),
    "fused adamw": partial(torch.optim.AdamW, lr=0.05, weight_decay=0.3, fused=True),
    "adadelta": partial(torch.optim.Adadelta, lr=0.7, weight_decay=0.1),
    "sgd": partial(torch.optim.SGD, lr=0.5, weight_decay=0.01),
    "asgd": partial(torch.optim.ASGD, lr=0.5, lambd=0.0, t0=0, weight_decay=0.01),
}
HIDDEN = 4


class Model(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.lstm = G2LSTM(3, HIDDEN, 2, bidirectional=True, **settings)
        self.head = nn.Linear(2 * HIDDEN, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0]).sin().mean()


def make(gate="sigmoid", seed=0, **settings):
    torch.manual_seed(seed)
    return Model(gate=gate, **settings).double()


def inputs(number):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(number, 5, 2, 3, generator=generator, dtype=torch.float64)


def train(model, optimizer, batches):
    for x in batches:
        model.zero_grad()
        model(x).backward()
        optimizer.step()


def gate_rows(name):
    return slice(2 * HIDDEN) if name.startswith("lstm") else slice(0)


@pytest.mark.parametrize("factor", [0.1, 5.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_two_parameters_with_two_learning_rates(name, factor):
    """Gradients of the model of each step go to copies of its parameters, split in two."""
    model, build = make(), OPTIMIZERS[name]
    optimizer = with_gate_rate(build, model, factor)
    for group in optimizer.param_groups:  # as who sets the rate does
        group["lr"] = build.keywords["lr"] * group["learning_rate_factor"]
    gates, others = {}, {}
    for key, parameter in model.named_parameters():
        rows = gate_rows(key)
        gates[key] = nn.Parameter(parameter.detach()[rows].clone())
        others[key] = nn.Parameter(parameter.detach()[rows.stop :].clone())
    separate = build([{"params": list(others.values())}])
    fast = build([{"params": list(gates.values())}], lr=factor * build.keywords["lr"])
    for x in inputs(6):
        train(model, optimizer, x[None])
        for key, parameter in model.named_parameters():
            stop = gate_rows(key).stop
            gates[key].grad, others[key].grad = parameter.grad[:stop], parameter.grad[stop:]
        separate.step()
        fast.step()
        for key, parameter in model.named_parameters():
            expected = torch.cat([gates[key], others[key]])
            torch.testing.assert_close(parameter, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_factor_of_1_is_the_optimiser_itself(name):
    model, twin = make(), make()
    optimizer = with_gate_rate(OPTIMIZERS[name], model, 1.0)
    assert len(optimizer.param_groups) == 1
    train(model, optimizer, inputs(4))
    train(twin, OPTIMIZERS[name](twin.parameters()), inputs(4))
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_scale_is_of_the_rows_of_the_input_and_forget_gates_alone():
    model, twin = make(), make()
    scale_gates(model, 3.0)
    for (name, value), old in zip(model.named_parameters(), twin.parameters(), strict=True):
        stop = gate_rows(name).stop
        assert torch.equal(value[:stop], 3.0 * old[:stop])
        assert torch.equal(value[stop:], old[stop:])
        assert value.requires_grad


@pytest.mark.parametrize(
    ("build", "power"),
    [
        (partial(torch.optim.Adam, lr=0.01, eps=0.0), 1),
        (partial(torch.optim.SGD, lr=0.05), 2),
    ],
    ids=["adam", "sgd"],
)
def test_training_the_sharpened_sigmoid_is_training_a_rescaled_lstm(build, power):
    """W' = W / tau, with 1 / tau of the rate under Adam, 1 / tau^2 of it under SGD."""
    tau = 0.2
    sharpened, lstm = make("sharpened", temperature=tau), make()
    lstm.load_state_dict(copy.deepcopy(sharpened.state_dict()))
    scale_gates(lstm, 1 / tau)
    optimizer = with_gate_rate(build, lstm, tau**-power)
    for group in optimizer.param_groups:
        group["lr"] = build.keywords["lr"] * group["learning_rate_factor"]
    batches = inputs(10)
    train(sharpened, build(sharpened.parameters()), batches)
    train(lstm, optimizer, batches)
    for (name, value), other in zip(lstm.named_parameters(), sharpened.parameters(), strict=True):
        expected = other.detach().clone()
        expected[gate_rows(name)] /= tau
        torch.testing.assert_close(value.detach(), expected, rtol=1e-6, atol=1e-8)
        assert not torch.allclose(other, dict(make("sharpened").named_parameters())[name])
