"""Gates, noise, schedules and the Proposition, against torch.distributions and closed forms."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from g2lstm.gates import (
    GATES,
    SCHEDULES,
    TemperatureSchedule,
    check_gate,
    check_probability,
    check_temperature,
    gaussian_noise,
    gumbel_gate,
    hard_gate,
    logistic_noise,
    proposition_bounds,
    sharpened_gate,
    sigmoid_gate,
)

SAMPLES = 200_000
# A test at this level fails by chance once in a million, and seeds are fixed on top.
LEVEL = 1e-6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def share_interval(successes: int, trials: int = SAMPLES) -> tuple[float, float]:
    """Exact (Clopper-Pearson) interval of a probability at the level of these tests."""
    interval = stats.binomtest(successes, trials).proportion_ci(1 - LEVEL, method="exact")
    return interval.low, interval.high


# --- noise ---------------------------------------------------------------------------------------


def test_noise_without_mask_and_eps_is_logistic():
    noise = logistic_noise((SAMPLES,), 1.0, 0.0, generator=seeded()).double().numpy()
    assert stats.kstest(noise, stats.logistic.cdf).pvalue > 1e-3


@pytest.mark.parametrize("eps", [1e-3, 0.1])
@pytest.mark.parametrize("probability", [0.2, 0.5, 1.0])
def test_noise_follows_the_formula_with_eps(probability, eps):
    """Where there is noise, U recovered from log(U + eps) - log(1 - U + eps) is uniform."""
    noise = logistic_noise((SAMPLES,), probability, eps, generator=seeded(1)).double()
    ratio = noise[noise != 0].exp()  # (U + eps) / (1 - U + eps)
    uniform = (ratio * (1 + eps) - eps) / (1 + ratio)
    assert stats.kstest(uniform.numpy(), stats.uniform.cdf).pvalue > 1e-3


@pytest.mark.parametrize("probability", [1e-3, 0.2, 0.5, 0.9])
def test_mask_has_share_p_and_exact_zeros(probability):
    noise = logistic_noise((SAMPLES,), probability, generator=seeded(2))
    low, high = share_interval(int((noise != 0).sum()))
    assert low <= probability <= high


@pytest.mark.parametrize("shape", [(1,), (7,), (3000,)])
def test_every_place_gets_noise_with_probability_p(shape):
    """The last ones too: noise is drawn for some places only, and must not run out."""
    generator, trials = seeded(14), 3000
    count = sum((logistic_noise(shape, 0.5, generator=generator) != 0).int() for _ in range(trials))
    for place in (0, -1):
        low, high = share_interval(int(count[place]), trials)
        assert low <= 0.5 <= high


def test_mask_and_noise_are_drawn_for_each_element_alone():
    noise = logistic_noise((2, SAMPLES), 0.5, generator=seeded(3)).double()
    for a, b in [
        (noise[0], noise[1]),
        (noise[0, :-1], noise[0, 1:]),
        (noise[0, :-2], noise[0, 2:]),
    ]:
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5 / math.sqrt(SAMPLES)
        masks = torch.stack([a != 0, b != 0]).double()
        assert abs(torch.corrcoef(masks)[0, 1]) < 5 / math.sqrt(SAMPLES)


def test_noise_of_probability_0_is_0_and_of_probability_1_is_everywhere():
    assert not logistic_noise((1000,), 0.0).any()
    assert not logistic_noise((1000,), 1e-300).any()
    assert (logistic_noise((1000,), 1.0, generator=seeded()) != 0).all()


@pytest.mark.parametrize("eps", [1e-3, 1e-2, 1.0])
def test_eps_bounds_the_noise(eps):
    bound = math.log((1 + eps) / eps)
    noise = logistic_noise((SAMPLES,), 1.0, eps, generator=seeded(4))
    assert noise.abs().max() <= bound * (1 + 1e-5)
    assert noise.max() > 0.97 * bound
    assert noise.min() < -0.97 * bound


def test_noise_without_eps_is_finite():
    noise = logistic_noise((5_000_000,), 1.0, 0.0, generator=seeded(5))
    assert noise.isfinite().all()
    assert noise.abs().max() > 12  # the tails are there


def test_gaussian_noise_has_the_variance_of_the_logistic_distribution():
    noise = gaussian_noise((SAMPLES,), generator=seeded(7)).double().numpy()
    scale = stats.logistic.std()
    assert stats.kstest(noise, stats.norm(scale=scale).cdf).pvalue > 1e-3
    assert abs(noise.std() / scale - 1) < 0.01
    many = gaussian_noise((5_000_000,), generator=seeded(8))
    assert many.isfinite().all()
    assert many.abs().max() > 4.5 * scale  # the tails are there
    with pytest.raises(ValueError, match=r"got 1\.5"):
        gaussian_noise((3,), 1.5)


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_gaussian_and_logistic_noise_of_a_seed_differ_in_nothing_but_the_distribution(probability):
    """The same places, and there the quantiles of the same U."""
    logistic = logistic_noise((SAMPLES,), probability, 0.0, generator=seeded(9)).double()
    gaussian = gaussian_noise((SAMPLES,), probability, generator=seeded(9)).double()
    assert torch.equal(logistic != 0, gaussian != 0)
    uniform = stats.logistic.cdf(logistic.numpy())
    expected = stats.norm(scale=math.pi / math.sqrt(3)).ppf(uniform)
    torch.testing.assert_close(gaussian, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_hard_gates_open_at_0():
    a = torch.tensor([-3.0, -1e-30, -0.0, 0.0, 1e-30, 3.0], dtype=torch.float64)
    assert hard_gate(a).tolist() == [0, 0, 1, 1, 1, 1]
    assert hard_gate(a).dtype == torch.float64


def test_noise_repeats_with_its_generator_or_the_global_seed():
    a = logistic_noise((3, 5), 0.5, generator=seeded(6))
    assert torch.equal(a, logistic_noise((3, 5), 0.5, generator=seeded(6)))
    assert not torch.equal(a, logistic_noise((3, 5), 0.5, generator=seeded(7)))
    torch.manual_seed(6)
    assert torch.equal(a, logistic_noise((3, 5), 0.5))
    generator = seeded(6)
    logistic_noise((3, 5), 0.5, generator=generator)
    assert not torch.equal(a, logistic_noise((3, 5), 0.5, generator=generator))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_noise_is_float32_whatever_the_default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        noise = logistic_noise((3, 5), 0.5, generator=seeded(6))
    finally:
        torch.set_default_dtype(before)
    assert noise.dtype == torch.float32
    assert torch.equal(noise, logistic_noise((3, 5), 0.5, generator=seeded(6)))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (2, 0, 3), (3, 5, 7)])
def test_noise_has_the_shape_asked_for(shape):
    assert logistic_noise(shape).shape == shape


# --- gates ---------------------------------------------------------------------------------------


def test_sigmoid_and_sharpened_gate_are_their_formulas():
    a = torch.linspace(-6, 6, 25, dtype=torch.float64)
    expected = torch.tensor([1 / (1 + math.exp(-v)) for v in a.tolist()], dtype=torch.float64)
    torch.testing.assert_close(sigmoid_gate(a), expected)
    sharpened = [1 / (1 + math.exp(-v / 0.3)) for v in a.tolist()]
    expected = torch.tensor(sharpened, dtype=torch.float64)
    torch.testing.assert_close(sharpened_gate(a, 0.3), expected)


def test_gumbel_gate_is_its_formula():
    a, noise, tau = torch.tensor([0.3, -1.2]).double(), torch.tensor([0.7, 2.0]).double(), 0.4
    expected = [1 / (1 + math.exp(-(x + n) / tau)) for x, n in zip(a, noise, strict=True)]
    torch.testing.assert_close(gumbel_gate(a, tau, noise), torch.tensor(expected).double())


@pytest.mark.parametrize("temperature", [0.1, 0.9, 2.0])
@pytest.mark.parametrize("a", [-2.0, 0.0, 0.4, 3.0])
def test_gumbel_gate_exceeds_a_half_with_probability_sigmoid_a(a, temperature):
    noise = logistic_noise((SAMPLES,), 1.0, 0.0, generator=seeded(8))
    gate = gumbel_gate(torch.full((SAMPLES,), a), temperature, noise)
    low, high = share_interval(int((gate > 0.5).sum()))
    assert low <= 1 / (1 + math.exp(-a)) <= high


@pytest.mark.parametrize("temperature", [0.3, 0.9, 2.0])
@pytest.mark.parametrize("a", [-1.5, 0.0, 2.0])
def test_gumbel_gate_is_distributed_as_relaxed_bernoulli(a, temperature):
    noise = logistic_noise((SAMPLES,), 1.0, 0.0, generator=seeded(9))
    gate = gumbel_gate(torch.full((SAMPLES,), a, dtype=torch.float64), temperature, noise)
    relaxed = torch.distributions.RelaxedBernoulli(
        torch.tensor(temperature).double(), logits=torch.tensor(a).double()
    )
    torch.manual_seed(10)
    assert stats.ks_2samp(gate.numpy(), relaxed.sample((SAMPLES,)).numpy()).pvalue > 1e-3
    # And its density: shares of ten bins against the integral of exp(log_prob).
    edges = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    counts = torch.histogram(gate, edges).hist
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        points = torch.linspace(low, high, 501, dtype=torch.float64)
        share = torch.trapezoid(relaxed.log_prob(points).exp(), points)
        lower, upper = share_interval(int(count))
        assert lower <= share <= upper


@pytest.mark.parametrize("a", [-4.0, -1.0, 0.0, 0.5, 3.0])
@pytest.mark.parametrize("temperature", [0.05, 0.2, 0.9])
@pytest.mark.parametrize("eps", [0.01, 0.1, 0.4])
def test_proposition_holds(a, temperature, eps):
    noise = logistic_noise((SAMPLES,), 1.0, 0.0, generator=seeded(11))
    gate = gumbel_gate(torch.full((SAMPLES,), a, dtype=torch.float64), temperature, noise)
    bounds = proposition_bounds(torch.tensor(a).double(), temperature, eps)
    for successes, lower, upper in [
        (int((gate >= 1 - eps).sum()), bounds.lower_one, bounds.upper_one),
        (int((gate <= eps).sum()), bounds.lower_zero, bounds.upper_zero),
    ]:
        low, high = share_interval(successes)
        assert low <= upper
        assert high >= lower


def test_proposition_bounds_are_the_papers():
    bounds = proposition_bounds(torch.tensor([0.0, 1.0]).double(), 0.2, 0.1)
    slack = 0.05 * math.log(10)
    one = torch.tensor([0.5, 1 / (1 + math.exp(-1))]).double()
    expected = (one - slack, one, 1 - one - slack, 1 - one)
    for bound, value in zip(bounds, expected, strict=True):
        torch.testing.assert_close(bound, value, atol=1e-7, rtol=0)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_gate_gradients(temperature):
    a = torch.randn(4, 3, dtype=torch.float64, generator=seeded(), requires_grad=True)
    noise = torch.randn(4, 3, dtype=torch.float64, generator=seeded(1))
    assert torch.autograd.gradcheck(sigmoid_gate, (a,))
    assert torch.autograd.gradcheck(lambda a: sharpened_gate(a, temperature), (a,))
    assert torch.autograd.gradcheck(lambda a: gumbel_gate(a, temperature, noise), (a,))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_gates_keep_the_dtype(dtype):
    a = torch.linspace(-3, 3, 7).to(dtype)
    for gate in (sigmoid_gate(a), sharpened_gate(a, 0.5), gumbel_gate(a, 0.5), gumbel_gate(a, 1)):
        assert gate.dtype == dtype
        assert ((gate >= 0) & (gate <= 1)).all()


def test_gumbel_gate_draws_its_own_noise():
    torch.manual_seed(0)
    gate = gumbel_gate(torch.zeros(1000), 0.5)
    torch.manual_seed(0)
    torch.testing.assert_close(gate, torch.sigmoid(logistic_noise((1000,)) / 0.5))
    assert gate.std() > 0.2


@settings(deadline=None, max_examples=50)
@given(
    a=st.floats(-1e4, 1e4),
    noise=st.floats(-7, 7),
    temperature=st.floats(1e-30, 1e6),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_gumbel_gate_is_never_nan(a, noise, temperature, dtype):
    gate = gumbel_gate(torch.tensor([a]).to(dtype), temperature, torch.tensor([noise]))
    assert 0 <= gate.item() <= 1


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, -0.5, math.nan, math.inf, -math.inf])
def test_wrong_temperature_is_named(value):
    a = torch.zeros(2)
    for call in (
        lambda: check_temperature(value),
        lambda: sharpened_gate(a, value),
        lambda: gumbel_gate(a, value, a),
        lambda: proposition_bounds(a, value, 0.1),
        lambda: TemperatureSchedule(start=value),
        lambda: TemperatureSchedule("linear", 0.9, value, 3),
    ):
        with pytest.raises(ValueError, match=f"temperature.*{value!r}"):
            call()


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_wrong_probability_is_named(value):
    for call in (lambda: check_probability(value), lambda: logistic_noise((2,), value)):
        with pytest.raises(ValueError, match=f"probability.*{value!r}"):
            call()


@pytest.mark.parametrize("value", [-1e-3, math.nan, math.inf])
def test_wrong_eps_of_the_noise_is_named(value):
    with pytest.raises(ValueError, match=f"eps.*{value!r}"):
        logistic_noise((2,), 0.5, value)


@pytest.mark.parametrize("value", [0.0, 0.5, -0.1, math.nan])
def test_wrong_eps_of_the_proposition_is_named(value):
    with pytest.raises(ValueError, match=f"eps.*{value!r}"):
        proposition_bounds(torch.zeros(2), 0.5, value)


def test_right_arguments_are_returned():
    assert check_temperature(0.9) == 0.9
    assert check_probability(0.0) == 0.0
    assert check_probability(1) == 1
    assert [check_gate(gate) for gate in GATES] == ["sigmoid", "sharpened", "gumbel"]


def test_wrong_gate_is_named():
    with pytest.raises(ValueError, match=r"gate.*'tanh'"):
        check_gate("tanh")


# --- schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "middle"),
    [("constant", 1.0), ("linear", 0.75), ("exponential", 10**-0.25), ("cosine", None)],
)
def test_schedule_values(kind, middle):
    end = 10**-0.5 if kind == "exponential" else 0.5
    schedule = TemperatureSchedule(kind, 1.0, end, 10)
    if kind == "cosine":
        middle = 0.75
        assert schedule(2) == pytest.approx(0.5 + 0.5 * (1 + math.cos(0.2 * math.pi)) / 2)
    assert schedule(0) == schedule(-3) == 1.0
    assert schedule(5) == pytest.approx(middle)
    assert schedule(10) == schedule(1000) == pytest.approx(1.0 if kind == "constant" else end)


@settings(deadline=None, max_examples=50)
@given(
    kind=st.sampled_from(SCHEDULES),
    start=st.floats(0.01, 10),
    end=st.none() | st.floats(0.01, 10),
    steps=st.integers(1, 50),
)
def test_schedules_go_from_start_to_end_without_turning(kind, start, end, steps):
    schedule = TemperatureSchedule(kind, start, end, steps)
    values = [schedule(step) for step in range(steps + 2)]
    goal = start if end is None or kind == "constant" else end
    assert values[0] == pytest.approx(start)
    assert values[-1] == pytest.approx(goal)
    changes = [b - a for a, b in itertools.pairwise(values)]
    assert all(change * (goal - start) >= -1e-12 for change in changes)
    assert all(value > 0 for value in values)


def test_wrong_schedules_are_named():
    with pytest.raises(ValueError, match=r"schedule.*'step'"):
        TemperatureSchedule("step")
    with pytest.raises(ValueError, match=r"steps.*0"):
        TemperatureSchedule("linear", 1.0, 0.5, 0)
