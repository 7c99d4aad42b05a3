"""Checkpoints of a training run in one safetensors file each: nothing is pickled.

One file holds the parameters, the optimiser's state and the random states as tensors, and all the
rest as JSON in the file's header, so that a checkpoint is replaced in one rename.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from g2lstm.files import replacing


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or does not fit."""


def save_checkpoint(
    path: Path | str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    progress: dict[str, Any] | None = None,
) -> None:
    """Write model, optimiser, random states and ``progress`` (JSON) to ``path``, atomically."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    header: dict[str, Any] = {"progress": progress or {}}
    if optimizer is not None:
        state = optimizer.state_dict()
        scalars: dict[str, dict[str, Any]] = {}
        for index, entries in state["state"].items():
            for key, value in entries.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimizer.{index}.{key}"] = value
                else:
                    scalars.setdefault(str(index), {})[key] = value
        header["optimizer"] = {"param_groups": state["param_groups"], "scalars": scalars}
        tensors["random.cpu"] = torch.get_rng_state()
        for index, value in enumerate(_cuda_states()):
            tensors[f"random.cuda.{index}"] = value
    # Copies: a file may not hold two tensors that share memory.
    tensors = {name: value.detach().cpu().clone() for name, value in tensors.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"g2lstm": json.dumps(header)})


def load_checkpoint(
    path: Path | str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, Any]:
    """Load what `save_checkpoint` wrote into ``model`` (and ``optimizer``); return ``progress``.

    With an optimiser the random states are restored too, so that training goes on exactly.

    Raises:
        CheckpointError: the file is missing, damaged, or of another model or optimiser.
    """
    tensors, header = _read(path)
    weights = {
        name.removeprefix("model."): value
        for name, value in tensors.items()
        if name.startswith("model.")
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} is of another model: {error}") from error
    if optimizer is not None:
        try:
            saved = header["optimizer"]
            state: dict[int, dict[str, Any]] = {}
            for index, entries in saved["scalars"].items():
                state.setdefault(int(index), {}).update(entries)
            for name, value in tensors.items():
                if name.startswith("optimizer."):
                    _, index, key = name.split(".", 2)
                    state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{path} holds no state for this optimiser: {error}") from error
        torch.set_rng_state(tensors["random.cpu"])
        states = [value for name, value in tensors.items() if name.startswith("random.cuda.")]
        if states and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(states)
    return header["progress"]


def read_progress(path: Path | str) -> dict[str, Any]:
    """The ``progress`` of a checkpoint, without a model.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    return _read(path)[1]["progress"]


def _cuda_states() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _read(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(metadata["g2lstm"])
    except FileNotFoundError as error:
        raise CheckpointError(
            f"checkpoint {path} does not exist; run the experiment again to make it"
        ) from error
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged or not a checkpoint ({error}); "
            "delete it to start the run anew, or put back a good copy"
        ) from error
