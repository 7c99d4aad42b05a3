"""What the gates of an LSTM are in training and in evaluation, by the settings of `G2LSTM`.

A `torch.nn.LSTM` has none of these settings: its gates are plain sigmoids in both modes.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from g2lstm.gates import (
    EVALUATION_GATES,
    NOISE_DISTRIBUTIONS,
    NOISE_GATES,
    check_choice,
    check_eps,
    check_gate,
    check_probability,
    check_temperature,
    gaussian_noise,
    logistic_noise,
)

BACKENDS = ("auto", "reference", "fused", "native")


def check_settings(lstm: nn.LSTM) -> None:
    """See that the settings of a `G2LSTM` are in their ranges, at construction and at every call.

    They are plain attributes, which may be set anew. (``temperature`` may be None where the gate
    is a plain sigmoid.)

    Raises:
        ValueError: one is not; names it and its value.
    """
    gate = check_gate(lstm.gate)
    if gate != "sigmoid" or lstm.temperature is not None:
        check_temperature(lstm.temperature)
    check_probability(lstm.noise_probability, "noise_probability")
    check_eps(lstm.noise_eps, "noise_eps")
    check_choice("noise_distribution", lstm.noise_distribution, NOISE_DISTRIBUTIONS)
    check_choice("noise_gates", lstm.noise_gates, NOISE_GATES)
    check_choice("evaluation_gate", lstm.evaluation_gate, EVALUATION_GATES)
    check_probability(lstm.weight_dropout, "weight_dropout")
    check_probability(lstm.dropout, "dropout")
    check_choice("backend", lstm.backend, BACKENDS)


def gates_of(lstm: nn.LSTM, training: bool) -> tuple[float, bool]:
    """The temperature that divides in training or in evaluation, and whether gates are hard.

    Raises:
        ValueError: a setting out of its range, see `check_settings`.
    """
    if not hasattr(lstm, "noise_gates"):
        return 1.0, False
    check_settings(lstm)
    kept = training or lstm.evaluation_gate == "temperature"
    divided = lstm.gate == "sharpened" or (lstm.gate == "gumbel" and kept)
    temperature = lstm.temperature if divided else 1.0
    return temperature, not training and lstm.evaluation_gate == "hard"


def note_gate(lstm: nn.LSTM, state_dict: dict[str, Any], prefix: str) -> None:
    """Put the gate of a `G2LSTM` into the metadata of its state_dict, beside its version.

    `torch.save` keeps the metadata, safetensors does not. The keys stay those of `torch.nn.LSTM`.
    """
    metadata = getattr(state_dict, "_metadata", {}).get(prefix[:-1])
    if metadata is not None:
        check_settings(lstm)
        metadata |= {"gate": lstm.gate, "temperature": float(_sharpness(lstm))}


def warn_of_another_gate(lstm: nn.LSTM, metadata: Mapping[str, Any], prefix: str) -> None:
    """Warn where weights were trained with gates that compute something else in evaluation.

    Plain and Gumbel gates compute the same there, sharpened gates of another temperature do not.

    Args:
        lstm: the `G2LSTM` that they are loaded into.
        metadata: what `note_gate` noted; what has no gate (`torch.nn.LSTM`) is loaded silently.
        prefix: of the layer's keys.
    """
    known = {"gate", "temperature"} <= metadata.keys()
    if known and metadata["temperature"] != _sharpness(lstm):
        pairs = (metadata["gate"], metadata["temperature"]), (lstm.gate, lstm.temperature)
        of_saved, of_layer = (
            f"gate={gate!r}" + (f" of temperature {tau}" if gate == "sharpened" else "")
            for gate, tau in pairs
        )
        name = f" {prefix[:-1]!r}" if prefix else ""
        warnings.warn(
            f"weights trained with {of_saved} are loaded into the G2LSTM{name} with {of_layer}, "
            "which computes something else from them: give the layer the gate and temperature "
            "that they were trained with",
            stacklevel=2,
        )


def _sharpness(lstm: nn.LSTM) -> float:
    """What divides in evaluation, but for the choice of ``evaluation_gate``."""
    return lstm.temperature if lstm.gate == "sharpened" else 1.0


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
