"""Gate activations, their noise and their temperature, as pure functions.

The paper trains the input and forget gates of an LSTM with the Gumbel-sigmoid (binary concrete)
estimator. With U ~ Uniform(0, 1) and a pre-activation ``a``::

    G(a, tau) = sigmoid((a + log U - log(1 - U)) / tau)

Two details are in the authors' code only: a gate receives the noise with probability ``p`` (0.2 in
the paper's experiments), and both logarithms have ``eps = 1e-3`` inside.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from g2lstm.transforms import is_recorded

GATES = ("sigmoid", "sharpened", "gumbel")
NOISE_GATES = ("input-forget", "input-forget-output")
NOISE_DISTRIBUTIONS = ("logistic", "gaussian")
EVALUATION_GATES = ("plain", "temperature", "hard")
SCHEDULES = ("constant", "linear", "exponential", "cosine")
NOISE_EPS = 1e-3  # authors' code
# The paper's (4.1.1, 4.1.2, 4.2); a plain sigmoid makes no use of it.
DEFAULT_TEMPERATURES = {"sigmoid": 0.9, "sharpened": 0.2, "gumbel": 0.9}


def check_temperature(temperature: float) -> float:
    """Return ``temperature``; raise ValueError unless it is finite and greater than 0."""
    if not (_is_number(temperature) and math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be a finite number > 0, got {temperature!r}")
    return temperature


def check_probability(probability: float, name: str = "probability") -> float:
    """Return ``probability``; raise ValueError, which says its name, unless it is in [0, 1]."""
    if not (_is_number(probability) and 0.0 <= probability <= 1.0):
        raise ValueError(f"{name} must be a number in [0, 1], got {probability!r}")
    return probability


def check_eps(eps: float, name: str = "eps") -> float:
    """Return ``eps``; raise ValueError, which says its name, unless it is finite and >= 0."""
    if not (_is_number(eps) and math.isfinite(eps) and eps >= 0):
        raise ValueError(f"{name} must be a finite number >= 0, got {eps!r}")
    return eps


def check_gate(gate: str) -> str:
    """Return ``gate``; raise ValueError unless it is one of ``GATES``."""
    return check_choice("gate", gate, GATES)


def check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Return ``value``; raise ValueError, which names the setting, unless it is a choice."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value


def _is_number(value: Any) -> bool:
    """No bool; no tensor, whose gradient would be lost in silence."""
    return isinstance(value, float | int | Real) and not isinstance(value, bool)


def logistic_noise(
    shape: tuple[int, ...],
    probability: float = 1.0,
    eps: float = NOISE_EPS,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw ``log(U + eps) - log(1 - U + eps)`` with probability ``probability``, else 0.

    Args:
        shape: shape of the sample; each element gets its own U and its own mask.
        probability: probability p that an element receives noise (authors' code; paper: 0.2).
        eps: constant inside both logarithms (authors' code: 1e-3); bounds the noise at
            ``log((1 + eps) / eps)``, 6.9 by default. 0 gives the logistic distribution itself
            (to the resolution of float32: at most 17.4 in size).
        generator: source of randomness; default: the global one of the device.
        device: where to draw; default: the generator's device, else the current default.

    Returns:
        float32 tensor of ``shape``, whatever the default dtype.

    Raises:
        ValueError: ``probability`` outside [0, 1], or ``eps`` negative or not finite.
    """
    check_eps(eps)
    quantile = partial(_to_logistic, eps=eps)
    return _masked_noise(shape, probability, quantile, generator, device)


def gaussian_noise(
    shape: tuple[int, ...],
    probability: float = 1.0,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw N(0, pi^2 / 3) with probability ``probability``, else 0: a control, not the paper's.

    The variance is that of the logistic distribution, so that a difference between gates trained
    with the one and the other noise is one of shape. (With eps = 1e-3 in its logarithms the
    logistic noise has 4 % less variance, 3.17 instead of 3.29.) The same seed gives both noises the
    same mask, and values of the same rank.

    Args, Returns, Raises: as `logistic_noise`, which has ``eps`` besides.
    """
    return _masked_noise(shape, probability, _to_gaussian, generator, device)


def _masked_noise(
    shape: tuple[int, ...],
    probability: float,
    quantile: Callable[[Tensor], Tensor],
    generator: torch.Generator | None,
    device: torch.device | str | None,
) -> Tensor:
    """``quantile`` (U) with probability ``probability``, else 0."""
    check_probability(probability)
    if device is None and generator is not None:
        device = generator.device
    options = {"dtype": torch.float32, "device": device}
    draw = partial(torch.rand, **options)
    if generator is not None:  # torch's compiler takes no generator, not even None
        draw = partial(draw, generator=generator)
    if probability == 1.0:
        return quantile(draw(shape))
    if is_recorded():  # the draws below are as many as this one shape needs
        chosen = draw(shape) < probability
        return torch.where(chosen, quantile(draw(shape)), 0.0)
    count = math.prod(shape)
    expected = count * probability
    if expected < 1e-9:
        return torch.zeros(shape, **options)
    # Draw only where there is noise, which is much less work when p is small: the gaps between
    # successes of probability p are geometric. 8 standard deviations more than expected are enough.
    draws = int(expected + 8 * math.sqrt(expected) + 16)
    uniform = draw((2, draws))
    gaps = uniform[0].neg_().log1p_().div_(math.log1p(-probability)).floor_().add_(1)
    position = gaps.clamp_(max=count + 1).long().cumsum(0).sub_(1).clamp_(max=count)
    noise = uniform.new_zeros(count + 1)  # the last one takes what lies beyond the end
    noise.index_copy_(0, position, quantile(uniform[1]))
    return noise[:count].view(shape)


def _to_logistic(uniform: Tensor, eps: float) -> Tensor:
    """``log(U + eps) - log(1 - U + eps)``, in place of ``uniform``."""
    uniform.clamp_(min=2.0**-25, max=1 - 2.0**-24)  # keeps the logarithm finite where eps = 0
    return uniform.add(eps).div_(uniform.neg_().add_(1 + eps)).log_()


def _to_gaussian(uniform: Tensor) -> Tensor:
    """The quantile of N(0, pi^2 / 3) at U."""
    uniform.clamp_(min=2.0**-25, max=1 - 2.0**-24)  # keeps it finite
    return torch.special.ndtri(uniform).mul_(math.pi / math.sqrt(3))


def sigmoid_gate(a: Tensor) -> Tensor:
    """Plain LSTM gate ``sigmoid(a)``, the paper's baseline; any shape."""
    return torch.sigmoid(a)


def sharpened_gate(a: Tensor, temperature: float) -> Tensor:
    """Sharpened gate ``sigmoid(a / temperature)``, the paper's second baseline; any shape.

    Raises:
        ValueError: ``temperature`` is not > 0.
    """
    return torch.sigmoid(a / check_temperature(temperature))


def gumbel_gate(a: Tensor, temperature: float, noise: Tensor | None = None) -> Tensor:
    """Gumbel-sigmoid gate ``sigmoid((a + noise) / temperature)`` of training mode.

    Args:
        a: pre-activations, any shape and floating dtype.
        temperature: tau > 0. The division applies to gates without noise too (authors' code).
        noise: sample of `logistic_noise` of the shape of ``a``; default: one drawn with p = 1.

    Returns:
        Gate values in [0, 1], shape and dtype of ``a``; computed in float32 or better.

    Raises:
        ValueError: ``temperature`` is not > 0.
    """
    check_temperature(temperature)
    if noise is None:
        noise = logistic_noise(tuple(a.shape), device=a.device)
    return torch.sigmoid((a + noise) / temperature).to(a.dtype)


def hard_gate(a: Tensor) -> Tensor:
    """1 where ``a >= 0``, else 0: a third mode of evaluation of the authors' translation code.

    Any shape; the type of ``a``. No gradient passes.
    """
    return (a >= 0).to(a.dtype)


@dataclass(frozen=True)
class TemperatureSchedule:
    """Temperature as a function of the training step.

    The paper holds tau constant (the default), and so does the authors' code. The annealed kinds
    are an addition: a published review speaks of a schedule, but the paper has none.

    Args:
        kind: "constant", "linear", "exponential" (geometric) or "cosine" (half a cosine wave).
        start: tau at step 0.
        end: tau from step ``steps`` on; default ``start``. Ignored by "constant".
        steps: number of steps from ``start`` to ``end``, at least 1.

    Raises:
        ValueError: unknown kind, ``steps`` < 1, or a temperature that is not > 0.
    """

    kind: str = "constant"
    start: float = 0.9
    end: float | None = None
    steps: int = 1

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.kind!r}")
        if self.steps < 1:
            raise ValueError(f"steps must be >= 1, got {self.steps!r}")
        check_temperature(self.start)
        if self.end is not None:
            check_temperature(self.end)

    def __call__(self, step: int) -> float:
        """Temperature at ``step`` (0-based); steps outside [0, ``steps``] take the nearer end."""
        if self.kind == "constant" or self.end is None:
            return self.start
        done = min(max(step / self.steps, 0.0), 1.0)
        if self.kind == "linear":
            return self.start + (self.end - self.start) * done
        if self.kind == "exponential":
            return self.start * (self.end / self.start) ** done
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * done)) / 2


class PropositionBounds(NamedTuple):
    """Bounds on P(G >= 1 - eps) (``*_one``) and on P(G <= eps) (``*_zero``)."""

    lower_one: Tensor
    upper_one: Tensor
    lower_zero: Tensor
    upper_zero: Tensor


def proposition_bounds(a: Tensor, temperature: float, eps: float) -> PropositionBounds:
    """The paper's Proposition: how near the Gumbel gate G(a, tau) is to a Bernoulli variable.

    With D ~ Bernoulli(sigmoid(a)) and noise without mask (p = 1) and without eps in the logs::

        P(D=1) - (tau / 4) log(1 / eps) <= P(G >= 1 - eps) <= P(D=1)
        P(D=0) - (tau / 4) log(1 / eps) <= P(G <= eps)     <= P(D=0)

    Args:
        a: pre-activations, any shape.
        temperature: tau > 0.
        eps: distance from 0 or 1 that counts as binary, 0 < eps < 1/2.

    Returns:
        Four tensors of the shape of ``a``; a lower bound may be negative (then it says nothing).

    Raises:
        ValueError: ``temperature`` or ``eps`` out of range.
    """
    check_temperature(temperature)
    if not 0 < eps < 0.5:
        raise ValueError(f"eps must be in (0, 1/2), got {eps!r}")
    slack = temperature / 4 * math.log(1 / eps)
    one, zero = torch.sigmoid(a), torch.sigmoid(-a)
    return PropositionBounds(one - slack, one, zero - slack, zero)
