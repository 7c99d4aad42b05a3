"""What the gates of an LSTM are in training and in evaluation, by the settings of `G2LSTM`.

A `torch.nn.LSTM` has none of these settings: its gates are plain sigmoids in both modes.
"""

import torch
from torch import Tensor, nn

from g2lstm.gates import (
    EVALUATION_GATES,
    check_choice,
    check_temperature,
    gaussian_noise,
    logistic_noise,
)


def gates_of(lstm: nn.LSTM, training: bool) -> tuple[float, bool]:
    """The temperature that divides in training or in evaluation, and whether gates are hard.

    Raises:
        ValueError: a temperature or ``evaluation_gate`` out of its range was set.
    """
    gate = getattr(lstm, "gate", "sigmoid")
    evaluation_gate = getattr(lstm, "evaluation_gate", "plain")
    check_choice("evaluation_gate", evaluation_gate, EVALUATION_GATES)
    kept = training or evaluation_gate == "temperature"
    divided = gate == "sharpened" or (gate == "gumbel" and kept)
    temperature = check_temperature(lstm.temperature) if divided else 1.0
    return temperature, not training and evaluation_gate == "hard"


def has_binary_output(lstm: nn.LSTM) -> bool:
    """Whether the output gate is a Gumbel gate as the input and forget gates are."""
    gumbel = getattr(lstm, "gate", "sigmoid") == "gumbel"
    return gumbel and lstm.noise_gates == "input-forget-output"


def draw_noise(lstm: nn.LSTM, steps: int, batch: int, device: torch.device) -> Tensor | None:
    """Noise [T, B, 2H or 3H] of one layer and direction in the present mode; None without."""
    if getattr(lstm, "gate", "sigmoid") != "gumbel" or not lstm.training:
        return None
    if lstm.noise_probability == 0:
        return None
    shape = (steps, batch, (3 if has_binary_output(lstm) else 2) * lstm.hidden_size)
    if lstm.noise_distribution == "gaussian":
        return gaussian_noise(shape, lstm.noise_probability, device=device)
    return logistic_noise(shape, lstm.noise_probability, lstm.noise_eps, device=device)


def set_evaluation_gate(module: nn.Module, evaluation_gate: str) -> None:
    """Set the ``evaluation_gate`` of every `G2LSTM` inside ``module``, itself included.

    Raises:
        ValueError: there is no such choice, or no `G2LSTM` to take it.
    """
    check_choice("evaluation_gate", evaluation_gate, EVALUATION_GATES)
    lstms = [part for part in module.modules() if hasattr(part, "noise_gates")]
    if not lstms:
        raise ValueError(
            f"{type(module).__name__} holds no G2LSTM: a factored LSTM keeps the evaluation_gate "
            "of the layer it was made of, so set it there"
        )
    for lstm in lstms:
        lstm.evaluation_gate = evaluation_gate
