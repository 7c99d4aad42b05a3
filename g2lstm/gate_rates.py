"""Initial scale and learning rate of the input and forget gates' weights, apart from all others.

The paper says of the sharpened sigmoid ``sigmoid((W x + b) / tau)`` that it equals rescaling the
weights, W' = W / tau, and their gradients (section 3.2). At the start it has the values of an LSTM
whose gates' weights are 1 / tau as large, and in training it keeps them

- under Adam, which takes the same step for gradients of any size, if the LSTM's gates' weights have
  1 / tau of the learning rate: a step s of W moves W' by s / tau;
- under plain SGD, if they have 1 / tau^2 of it: the gradient of W is also 1 / tau that of W'.

Weight decay (AdamW's is in proportion to the rate), Adam's eps and the clip of the gradient's norm
act on the two differently. So a comparison with the sharpened sigmoid is fair only if the LSTM is
tuned with another scale and another rate of its gates' weights too.

"Gates' weights" are the rows of the input and forget gates, the first half, of every matrix and
bias of every LSTM.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


def scale_gates(model: nn.Module, scale: float) -> None:
    """Multiply weights and biases of the input and forget gates by ``scale``, in place."""
    for parameter in _stacked(model):
        parameter.detach()[: len(parameter) // 2].mul_(scale)


def with_gate_rate(
    build: Callable[[Iterable[Any]], torch.optim.Optimizer], model: nn.Module, factor: float
) -> torch.optim.Optimizer:
    """An optimiser in which the gates' weights have ``factor`` times the learning rate.

    To the optimiser both halves of a stacked matrix are parameters of their own, views of the
    model's, so that any optimiser does with them what it does with separate parameters. The groups
    of its parameters have ``learning_rate_factor``, by which who sets ``lr`` has to multiply.

    Args:
        build: makes the optimiser of parameters or groups of them.
        model: its parameters must stay where they are in memory as long as the optimiser is used;
            `torch.optim.Optimizer.zero_grad` does not reach them all, `torch.nn.Module.zero_grad`
            does.
        factor: 1 gives the optimiser of the parameters as they are.
    """
    if factor == 1:
        return build(model.parameters())
    halves = []
    for parameter in _stacked(model):
        for rows, value in enumerate(parameter.detach().chunk(2)):
            halves.append((parameter, rows, nn.Parameter(value)))
    stacked = {id(parameter) for parameter, _, _ in halves}
    others = [parameter for parameter in model.parameters() if id(parameter) not in stacked]
    gates, rest = ([half for _, rows, half in halves if rows == k] for k in (0, 1))
    optimizer = build(
        [
            {"params": others + rest, "learning_rate_factor": 1.0},
            {"params": gates, "learning_rate_factor": factor},
        ]
    )

    def hand_on(*_: Any) -> None:
        for parameter, rows, half in halves:
            gradient = parameter.grad
            half.grad = None if gradient is None else gradient.chunk(2)[rows]

    optimizer.register_step_pre_hook(hand_on)
    return optimizer


def _stacked(model: nn.Module) -> list[nn.Parameter]:
    """Matrices and biases of every LSTM, in which i, f, g and o are stacked."""
    lstms = [part for part in model.modules() if isinstance(part, nn.LSTM)]
    return [parameter for lstm in lstms for parameter in lstm.parameters()]
