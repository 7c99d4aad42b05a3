"""Products of each library against torch's own in float64, and which library is taken."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from choices import choose_products
from g2lstm import products, steps
from g2lstm.provenance import hardware

CHOICES = ["oneDNN", "oneDNN, packed", "packed alone", "without oneDNN"]
EACH = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=CHOICES)
def choice(request, monkeypatch):
    choose_products(monkeypatch, request.param)
    return request.param


def draw(*shape, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(torch.float32, **options)


def assert_near(found, expected):
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@EACH
@given(
    rows=st.lists(st.integers(0, 40), min_size=1, max_size=2),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bias=st.booleans(),
    ragged=st.booleans(),
    transposed=st.booleans(),
)
def test_linear_and_its_gradients(choice, rows, sizes, bias, ragged, transposed):
    inputs, outputs = sizes
    x = draw(*rows, inputs).requires_grad_()
    weight = draw(inputs, outputs, seed=1).T if transposed else draw(outputs, inputs, seed=1)
    leaves = [x, weight.requires_grad_()]
    if bias:
        leaves.append(draw(outputs, seed=2).requires_grad_())
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    found, expected = products.linear(*leaves, ragged=ragged), torch.nn.functional.linear(*doubles)
    assert_near(found, expected)
    with torch.no_grad():
        assert_near(products.linear(*leaves, ragged=ragged), expected)
    gradients = torch.autograd.grad(found.square().sum(), leaves)
    exact = torch.autograd.grad(expected.square().sum(), doubles)
    for gradient, wanted in zip(gradients, exact, strict=True):
        assert_near(gradient / 10, wanted / 10)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.usefixtures("choice")
def test_second_gradients_of_linear(ragged):
    leaves = [draw(5, 3), draw(4, 3, seed=1), draw(4, seed=2)]
    second = []
    for dtype in (torch.float32, torch.float64):
        some = [leaf.to(dtype).requires_grad_() for leaf in leaves]
        y = products.linear(*some, ragged=ragged)
        first = torch.autograd.grad(y.sin().sum(), some, create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in first)
        second.append(torch.autograd.grad(penalty, some))
    for found, expected in zip(*second, strict=True):
        assert_near(found, expected)


@EACH
@given(
    rows=st.integers(0, 70),
    pad_to=st.integers(0, 2000),
    outputs=st.integers(1, 6),
    inputs=st.lists(st.integers(1, 6), max_size=3),
    ragged=st.booleans(),
)
def test_weight_gradients(choice, rows, pad_to, outputs, inputs, ragged):
    grad = draw(rows, outputs)
    some = [draw(rows, size, seed=size) for size in inputs]
    with patch.object(products, "PAD_TO", pad_to):
        found = products.weight_gradients(grad, some, ragged=ragged)
    for gradient, x in zip(found, some, strict=True):
        assert_near(gradient, grad.double().T @ x.double())


@EACH
@given(rows=st.integers(0, 5), sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_products_of_the_steps(choice, rows, sizes):
    inputs, outputs = sizes
    add_product = products.step_product(draw(outputs, inputs), rows, 20)
    for n in range(rows + 1):
        a, x = draw(n, outputs, seed=1), draw(n, inputs, seed=2)
        before = a.clone(), x.clone()
        expected = a.double() + x.double() @ draw(outputs, inputs).double().T
        assert_near(add_product(a, x), expected)
        assert torch.equal(a, before[0])
        assert torch.equal(x, before[1])


@pytest.mark.usefixtures("choice")
def test_other_types_devices_and_autocast_are_left_to_torch():
    x, weight = draw(4, 3), draw(5, 3, seed=1)
    double = products.linear(x.double(), weight.double())
    assert torch.equal(double, x.double() @ weight.double().T)
    assert products.linear(x.to("meta"), weight.to("meta")).shape == (4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear(x, weight).dtype == torch.bfloat16
        half = products.linear(x.requires_grad_(), weight)
    half.sum().backward()
    assert x.grad.dtype == torch.float32


@pytest.mark.parametrize("choice", ["oneDNN", "oneDNN, packed"])
def test_a_bias_that_is_a_view_of_others_is_read_by_its_strides(monkeypatch, choice):
    choose_products(monkeypatch, choice)
    x, weight = draw(4, 3), draw(6, 3)
    for bias in (draw(12)[::2], draw(1).expand(6), draw(6, 2)[:, 1]):
        expected = x.double() @ weight.double().T + bias.double()
        torch.testing.assert_close(products.linear(x, weight, bias).double(), expected)


@pytest.mark.parametrize("bias", [None, 4, 6])
@pytest.mark.usefixtures("choice")
def test_shapes_that_do_not_fit_are_errors(bias):
    weight = draw(5, 3)
    with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied|size"):
        products.linear(draw(4, 3 if bias else 2), weight, bias and draw(bias))


def test_the_same_product_repeats_to_the_last_bit(monkeypatch):
    choose_products(monkeypatch, "oneDNN, packed")
    x, weight = draw(300, 70), draw(90, 70, seed=1)
    first = products.linear(x, weight, ragged=True)
    assert all(torch.equal(products.linear(x, weight, ragged=True), first) for _ in range(5))


@pytest.mark.parametrize(
    ("vendor", "instructions", "expected"),
    [
        ("AuthenticAMD", "AVX512", "onednn"),
        ("AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD", "AVX512", "onednn"),
        ("AuthenticAMD", "AVX2", "torch"),
        ("GenuineIntel", "AVX512", "torch"),
        ("", "DEFAULT", "torch"),
    ],
)
def test_the_processor_decides(monkeypatch, vendor, instructions, expected):
    monkeypatch.delenv(products.VARIABLE, raising=False)
    monkeypatch.setattr(products, "_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    choose = products.library.__wrapped__
    assert choose() == expected
    monkeypatch.setattr(products, "NEEDED", ("_no_such_operator",))
    assert choose() == "torch"


def test_the_environment_overrides_the_processor(monkeypatch):
    choose = products.library.__wrapped__
    for name in products.LIBRARIES:
        monkeypatch.setenv(products.VARIABLE, name)
        assert choose() == name
    monkeypatch.setenv(products.VARIABLE, "mkl")
    with pytest.raises(ValueError, match="G2LSTM_PRODUCTS must be one of onednn, torch, got 'mkl'"):
        choose()


def test_provenance_names_the_library():
    assert hardware()["products"] == products.library()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.usefixtures("choice")
def test_a_single_step_is_that_of_an_lstm_cell(bias):
    """Also with arguments so large that tanh is +-1, and without a graph as with one."""
    state = [draw(5, 3) * 8, draw(5, 4, seed=1), draw(5, 4, seed=2) * 8]
    weights = [draw(16, 3, seed=3), draw(16, 4, seed=4)]
    weights += [draw(16, seed=5), draw(16, seed=6)] if bias else []
    x, h, c = (tensor.double() for tensor in state)
    expected = torch.lstm_cell(x, (h, c), *(weight.double() for weight in weights))
    with torch.no_grad():
        without = steps.single_step(*state, *weights)
    found = steps.single_step(state[0].requires_grad_(), *state[1:], *weights)
    assert all(tensor.requires_grad for tensor in found)
    for tensors in (found, without):
        for tensor, wanted in zip(tensors, expected, strict=True):
            assert_near(tensor, wanted)
