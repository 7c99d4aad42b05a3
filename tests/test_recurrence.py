"""The fast recurrence against the readable loop, the loop against torch's cell and the gates."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from choices import choose_products
from g2lstm import steps
from g2lstm.gates import gumbel_gate, logistic_noise
from g2lstm.recurrence import fused_recurrence, reference_recurrence

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
BACKENDS = {"reference": reference_recurrence, "fused": fused_recurrence}
KERNEL = steps._cell, steps._cell_backward


def cell(input_gates, hidden_gates, c):
    """What torch's kernel for a step does on CUDA; a test compares both with `torch.lstm_cell`."""
    i, f, g, o = (input_gates + hidden_gates).chunk(4, dim=1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * c + i * g
    return o * c.tanh(), c, torch.cat([i, f, g, o], dim=1)


def cell_backward(grad_h, grad_c, c_before, c, gates, has_bias):
    i, f, g, o = gates.chunk(4, dim=1)
    dc = grad_c + grad_h * o * (1 - c.tanh() ** 2)
    da = [dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g * g)]
    return torch.cat([*da, grad_h * c.tanh() * o * (1 - o)], dim=1), dc * f, None


@pytest.fixture(params=["in place", "by kernel"])
def way(request, monkeypatch):
    """Both ways through the steps; on a CPU the functions above stand for torch's kernel."""
    if request.param == "in place":
        monkeypatch.setattr(steps, "_kernel_serves", lambda z: False)
        return
    stand_ins = {"_cell": cell, "_cell_backward": cell_backward}
    for (name, stand_in), kernel in zip(stand_ins.items(), KERNEL, strict=True):

        def either(a, *others, stand_in=stand_in, kernel=kernel):
            return (kernel if a.is_cuda else stand_in)(a, *others)

        monkeypatch.setattr(steps, name, either)
    monkeypatch.setattr(steps, "_kernel_serves", lambda z: True)


def make(
    steps,
    batch,
    inputs,
    hidden,
    *,
    bias=True,
    noise=True,
    noisy_gates=2,
    seed=0,
    dtype=torch.float64,
    device="cpu",
):
    """Leaf tensors in the order of the functions' arguments, noise last."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        return value.to(device, dtype).requires_grad_()

    biases = (draw(4 * hidden), draw(4 * hidden)) if bias else (None, None)
    return (
        draw(steps, batch, inputs),
        draw(batch, hidden),
        draw(batch, hidden),
        draw(4 * hidden, inputs),
        draw(4 * hidden, hidden),
        *biases,
        draw(steps, batch, noisy_gates * hidden).detach() if noise else None,
    )


def results_and_gradients(recurrence, tensors, temperature=0.9, batch_sizes=None, *modes):
    """Everything the function returns, and the gradients of a function of all of it."""
    leaves = [t for t in tensors if t is not None and t.requires_grad]
    output, h, c, gates = recurrence(*tensors, temperature, batch_sizes, *modes)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device)
    loss = (output * weights.view_as(output)).sum() + (h * h).sum() + (c * 0.3).sin().sum()
    return [output, h, c, gates.detach()], torch.autograd.grad(loss, leaves)


def assert_same(one, other, tolerance=1e-10):
    for values in zip(one, other, strict=True):
        for a, b in zip(*values, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("recurrence", BACKENDS.values(), ids=BACKENDS)
def test_equals_lstm_cell(recurrence):
    tensors = make(5, 3, 4, 6, noise=False)

    def cells(x, h, c, *rest):
        outputs = []
        for x_t in x:
            h, c = torch.lstm_cell(x_t, (h, c), *rest[:4])
            outputs.append(h)
        return torch.stack(outputs), h, c, h

    values, gradients = results_and_gradients(recurrence, tensors, 1.0)
    expected, expected_gradients = results_and_gradients(cells, tensors, 1.0)
    assert_same((values[:3], gradients), (expected[:3], expected_gradients))


@pytest.mark.parametrize("binary_output", [False, True])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("recurrence", BACKENDS.values(), ids=BACKENDS)
def test_equals_the_papers_equations(recurrence, hard, binary_output):
    """One sequence, scalar arithmetic in plain Python with the gates of gates.py.

    With two options: hard gates, and an output gate that is as the input and forget gates are.
    """
    tensors = make(4, 1, 3, 2, noisy_gates=3 if binary_output else 2)
    x, h0, c0, w_ih, w_hh, b_ih, b_hh, noise = [tensor.detach() for tensor in tensors]
    h, c, tau = h0[0], c0[0], 0.7
    outputs, gates = [], []
    for t in range(4):
        a = [w_ih[k] @ x[t, 0] + w_hh[k] @ h + b_ih[k] + b_hh[k] for k in range(8)]

        def gate(a, noise):
            return (a + noise >= 0).double() if hard else gumbel_gate(a, tau, noise)

        i = [gate(a[k], noise[t, 0, k]) for k in (0, 1)]
        f = [gate(a[k], noise[t, 0, k]) for k in (2, 3)]
        g, o = torch.tanh(torch.stack(a[4:6])), torch.sigmoid(torch.stack(a[6:8]))
        if binary_output:
            o = torch.stack([gate(a[6 + k], noise[t, 0, 4 + k]) for k in (0, 1)])
        c = torch.stack(f) * c + torch.stack(i) * g
        h = o * torch.tanh(c)
        outputs.append(h)
        gates.append(torch.stack(i + f))
    expected = [torch.stack(outputs)[:, None], h[None], c[None], torch.stack(gates)[:, None]]
    found = recurrence(*tensors, tau, None, binary_output, hard)
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_the_kernel_is_that_of_an_lstm_cell(device):
    """torch's kernel on a GPU, and what stands for it on a CPU."""
    forward, backward = (cell, cell_backward) if device == "cpu" else KERNEL
    input_gates, hidden_gates = make(2, 3, 20, 5)[0]
    c, grad_h, grad_c = make(3, 3, 5, 1)[0]
    weight, nothing = torch.eye(20, dtype=c.dtype), torch.zeros(20, 5, dtype=c.dtype)
    pre_activations = input_gates + hidden_gates
    expected = torch.lstm_cell(pre_activations, (torch.zeros_like(c), c), weight, nothing)
    expected_gradients = torch.autograd.grad(expected, (pre_activations, c), (grad_h, grad_c))
    with torch.no_grad():
        there = [tensor.to(device) for tensor in (input_gates, hidden_gates, c, grad_h, grad_c)]
        *found, gates = forward(*there[:3])
        gradients = backward(*there[3:], there[2], found[1], gates, False)[:2]
    found, gradients = [[tensor.cpu() for tensor in part] for part in (found, gradients)]
    assert_same((found, gradients), (expected, expected_gradients))
    torch.testing.assert_close(gates.cpu(), cell(input_gates, hidden_gates, c)[2])


def test_a_torch_without_the_kernel_goes_in_place(monkeypatch):
    class OnGPU(torch.Tensor):
        is_cuda = True

    z = torch.zeros(1).as_subclass(OnGPU)
    assert steps._kernel_serves(z)
    monkeypatch.setattr(steps, "_cell", None)
    assert not steps._kernel_serves(z)


@pytest.mark.usefixtures("way")
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=7),
    packed=st.booleans(),
    inputs=st.integers(1, 4),
    hidden=st.integers(1, 5),
    bias=st.booleans(),
    noise=st.booleans(),
    binary_output=st.booleans(),
    temperature=st.floats(0.05, 3),
    seed=st.integers(0, 1000),
    device=st.sampled_from(DEVICES),
)
def test_fused_equals_reference(
    sizes, packed, inputs, hidden, bias, noise, binary_output, temperature, seed, device
):
    sizes = sorted(sizes, reverse=True)
    tensors = make(
        len(sizes), sizes[0], inputs, hidden, bias=bias, noise=noise, seed=seed, device=device,
        noisy_gates=3 if binary_output else 2,
    )  # fmt: skip
    rest = temperature, sizes if packed else None, binary_output
    assert_same(
        results_and_gradients(fused_recurrence, tensors, *rest),
        results_and_gradients(reference_recurrence, tensors, *rest),
    )


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("batch_sizes", [None, [3, 2, 2, 1]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_fused_gradients_are_numerically_right(batch_sizes, bias, device):
    *tensors, noise = make(4, 3, 2, 2, bias=bias, device=device)
    leaves = [tensor for tensor in tensors if tensor is not None]

    def run(*leaves):
        biases = leaves[5:] or (None, None)
        return fused_recurrence(*leaves[:5], *biases, noise, 0.6, batch_sizes)[:3]

    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("recurrence", BACKENDS.values(), ids=BACKENDS)
def test_ended_sequences_keep_their_state_and_give_zeros(recurrence):
    tensors = make(4, 3, 2, 2)
    output, h, c, gates = recurrence(*tensors, 0.9, [3, 2, 2, 1])
    for b, length in enumerate([4, 3, 1]):
        alone = [t[:, b : b + 1] if t.dim() == 3 else t for t in tensors]
        alone[1], alone[2] = tensors[1][b : b + 1], tensors[2][b : b + 1]
        alone[0], alone[7] = alone[0][:length], alone[7][:length]
        expected = recurrence(*alone, 0.9)
        torch.testing.assert_close(output[:length, b : b + 1], expected[0])
        torch.testing.assert_close(gates[:length, b : b + 1], expected[3])
        torch.testing.assert_close((h[b], c[b]), (expected[1][0], expected[2][0]))
        assert not output[length:, b].any()
        assert not gates[length:, b].any()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_a_part_of_the_results(device):
    tensors = make(4, 3, 2, 2, device=device)
    leaves = tensors[:7]
    for part in range(3):
        fused, reference = (
            torch.autograd.grad(recurrence(*tensors, 0.9)[part].sum(), leaves, allow_unused=True)
            for recurrence in (fused_recurrence, reference_recurrence)
        )
        for a, b in zip(fused, reference, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_some_of_the_arguments(device):
    """Arguments without gradient, as the input of a first layer, get none and change no other."""
    tensors = make(4, 3, 2, 2, device=device)
    *_, gradients = results_and_gradients(fused_recurrence, tensors)
    for free in range(7):
        some = [t if k == free or t is None else t.detach() for k, t in enumerate(tensors)]
        *_, (gradient,) = results_and_gradients(fused_recurrence, some)
        torch.testing.assert_close(gradient, gradients[free])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("batch_sizes", [None, [2, 2, 1]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("noisy_gates", [0, 2, 3])
@pytest.mark.parametrize("device", DEVICES)
def test_fused_second_derivatives_are_numerically_right(batch_sizes, bias, noisy_gates, device):
    *tensors, noise = make(
        3, 2, 2, 2, bias=bias, noise=noisy_gates > 0, noisy_gates=noisy_gates, device=device
    )
    leaves = [tensor for tensor in tensors if tensor is not None]

    def run(*leaves):
        biases = leaves[5:] or (None, None)
        rest = 0.6, batch_sizes, noisy_gates == 3
        return fused_recurrence(*leaves[:5], *biases, noise, *rest)[:3]

    assert torch.autograd.gradgradcheck(run, leaves)


def second_derivatives(recurrence, tensors, *rest):
    """The gradients of a penalty on the gradients of a sum, whose own gradient is constant."""
    leaves = [t for t in tensors if t is not None and t.requires_grad]
    gradients = torch.autograd.grad(
        sum(result.sum() for result in recurrence(*tensors, *rest)[:3]), leaves, create_graph=True
    )
    penalty = sum((gradient.float() ** 2).sum() for gradient in gradients)
    return torch.autograd.grad(penalty, leaves)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("binary_output", [False, True])
@pytest.mark.parametrize("noise", [False, True])
def test_gradients_of_gradients_of_every_setting(temperature, binary_output, noise):
    tensors = make(4, 3, 2, 2, noise=noise, noisy_gates=3 if binary_output else 2)
    for batch_sizes in (None, [3, 2, 2, 1]):
        rest = temperature, batch_sizes, binary_output
        found = second_derivatives(fused_recurrence, tensors, *rest)
        expected = second_derivatives(reference_recurrence, tensors, *rest)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("which", ["autocast", "half input under autocast", "half weights"])
def test_gradients_of_gradients_in_half_precision(which):
    tensors = make(4, 3, 8, 8, dtype=torch.float32)
    tensors = [(t.detach() * 0.5).requires_grad_(t.requires_grad) for t in tensors]
    exact = second_derivatives(reference_recurrence, tensors, 0.9)
    if which != "autocast":
        few = tensors[:7] if which == "half weights" else tensors[:1]
        halves = [t.detach().bfloat16().requires_grad_() for t in few]
        tensors = [*halves, *tensors[len(few) :]]

    def run(*arguments):
        with torch.autocast("cpu", torch.bfloat16, enabled=which != "half weights"):
            return fused_recurrence(*arguments)

    found = second_derivatives(run, tensors, 0.9)
    for a, b, leaf in zip(found, exact, tensors, strict=False):
        assert a.dtype == leaf.dtype
        assert (a - b).norm() < 0.1 * b.norm()


def test_an_argument_that_is_another_ones_too_has_its_own_gradient():
    """Initial states of one tensor, and an input that is made of them."""
    _, h, _, *rest = make(3, 2, 2, 2)

    def run(recurrence):
        (gradient,) = torch.autograd.grad(
            recurrence(torch.stack([h, 2 * h, h]), h, h, *rest)[0].sum(), h, create_graph=True
        )
        return gradient, *torch.autograd.grad(gradient.sum(), h)

    torch.testing.assert_close(run(fused_recurrence), run(reference_recurrence))


@pytest.mark.usefixtures("way")
def test_fused_gates_carry_no_gradient():
    gates = fused_recurrence(*make(3, 2, 2, 2))[3]
    assert not gates.requires_grad


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("device", DEVICES)
def test_a_result_changed_in_place_is_noticed(device):
    output, *_ = fused_recurrence(*make(3, 2, 2, 2, device=device))
    with torch.no_grad():
        output.mul_(2)
    with pytest.raises(RuntimeError, match="inplace"):
        output.sum().backward()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("batch_sizes", [None, [3, 2, 2, 1]])
@pytest.mark.parametrize("device", DEVICES)
def test_fused_changes_none_of_its_arguments(batch_sizes, device):
    tensors = make(4, 3, 2, 2, device=device)
    before = [t.detach().clone() for t in tensors]
    results_and_gradients(fused_recurrence, tensors, 0.5, batch_sizes)
    for now, then in zip(tensors, before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("device", DEVICES)
def test_arguments_need_not_be_contiguous(device):
    tensors = make(4, 3, 2, 2, device=device)
    strange = []
    for t in tensors:
        wide = torch.stack([t.detach(), torch.zeros_like(t)], dim=-1)
        strange.append(wide[..., 0].transpose(0, -1).contiguous().transpose(0, -1))
    assert not strange[0].is_contiguous()
    strange = [t.requires_grad_(old.requires_grad) for t, old in zip(strange, tensors, strict=True)]
    assert_same(
        results_and_gradients(fused_recurrence, strange),
        results_and_gradients(fused_recurrence, tensors),
    )


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("recurrence", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_autocast_is_near_float32(recurrence, bias, device):
    tensors = [
        t if t is None else (t.detach() * 0.5).requires_grad_(t.requires_grad)
        for t in make(6, 4, 8, 16, bias=bias, dtype=torch.float32, device=device)
    ]
    exact, exact_gradients = results_and_gradients(recurrence, tensors)
    with torch.autocast(device, torch.bfloat16):
        near = recurrence(*tensors, 0.9)
    assert all(value.dtype == torch.float32 for value in near)
    for a, b in zip(near, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0.05)
    assert not torch.equal(near[0], exact[0])  # the products were in bfloat16

    def under_autocast(*arguments):
        with torch.autocast(device, torch.bfloat16):
            return recurrence(*arguments)

    _, gradients = results_and_gradients(under_autocast, tensors)
    for a, b in zip(gradients, exact_gradients, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.05 * b.norm()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("recurrence", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_weights(recurrence, dtype, device):
    tensors = make(6, 4, 8, 16, dtype=dtype, device=device)
    noise = logistic_noise((6, 4, 32), 0.5, generator=torch.Generator().manual_seed(0))
    tensors = (*tensors[:7], noise.to(device))
    double = [t.detach().double().requires_grad_(t.requires_grad) for t in tensors]
    exact, exact_gradients = results_and_gradients(reference_recurrence, double)
    values, gradients = results_and_gradients(recurrence, tensors)
    assert [value.dtype for value in values] == [dtype] * 3 + [torch.float32]
    for a, b in zip(values, exact, strict=True):
        assert (a - b).norm() < 0.05 * b.norm()
    for a, b in zip(gradients, exact_gradients, strict=True):
        assert a.dtype == dtype
        assert (a - b).norm() < 0.1 * b.norm()


@pytest.mark.parametrize("recurrence", BACKENDS.values(), ids=BACKENDS)
def test_half_precision_input_under_autocast(recurrence):
    """The usual case inside a model: the layer before gave bfloat16, the weights are float32."""
    x, *rest = make(6, 4, 8, 16, dtype=torch.float32)
    half = x.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output, h, c, gates = recurrence(half, *rest)
    assert {value.dtype for value in (output, h, c, gates)} == {torch.float32}
    output.sum().backward()
    assert half.grad.dtype == torch.bfloat16
    assert rest[2].grad.dtype == torch.float32


@pytest.mark.parametrize("batch_sizes", [None, [5, 3, 3, 1]])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("products", ["oneDNN", "oneDNN, packed", "packed alone", "without oneDNN"])
def test_products_of_each_library_differ_by_rounding_alone(
    monkeypatch, products, autocast, batch_sizes
):
    tensors = make(4, 5, 8, 16, dtype=torch.float32)
    double = [t if t is None else t.detach().double() for t in tensors]
    double = [t.requires_grad_(old.requires_grad) for t, old in zip(double, tensors, strict=True)]

    def run(*arguments):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return fused_recurrence(*arguments)

    choose_products(monkeypatch, products)
    found = results_and_gradients(run, tensors, 0.9, batch_sizes)
    expected = results_and_gradients(reference_recurrence, double, 0.9, batch_sizes)
    for values in zip(found, expected, strict=True):
        for a, b in zip(*values, strict=True):
            assert (a - b).norm() <= (0.03 if autocast else 1e-6) * b.norm()


@pytest.mark.usefixtures("way")
def test_noise_in_float32_serves_double_weights():
    *tensors, noise = make(4, 3, 2, 2)
    assert_same(
        results_and_gradients(fused_recurrence, (*tensors, noise.float())),
        results_and_gradients(reference_recurrence, (*tensors, noise.float().double())),
    )


@pytest.mark.parametrize("recurrence", BACKENDS.values(), ids=BACKENDS)
def test_empty_batch(recurrence):
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            results = recurrence(*make(3, 0, 2, 4, dtype=torch.float32))
        assert [value.shape for value in results] == [(3, 0, 4), (0, 4), (0, 4), (3, 0, 8)]
