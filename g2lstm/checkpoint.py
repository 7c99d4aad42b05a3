"""Checkpoints of a training run in one safetensors file each: nothing is pickled.

One file holds the parameters, the optimiser's state and the random states as tensors, and all the
rest as JSON in the file's header, so that a checkpoint is replaced in one rename. The header also
says which run the file belongs to, see `identity`, and holds a sha256 of all of it: safetensors has
none, and would load a flipped bit as another weight. Files of earlier versions, which lack it, are
read without that check.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from g2lstm.files import check_regular, replacing
from g2lstm.identity import check_header, new_header


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read or does not fit."""


def save_checkpoint(
    path: Path | str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    progress: dict[str, Any] | None = None,
) -> None:
    """Write model, optimiser, random states and ``progress`` (JSON) to ``path``, atomically.

    Raises:
        WriteError: it cannot be written, for want of room for example; ``path`` is as it was.
    """
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
    write_tensors(path, tensors, "g2lstm", header)


def load_checkpoint(
    path: Path | str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, Any]:
    """Load what `save_checkpoint` wrote into ``model`` (and ``optimizer``); return ``progress``.

    With an optimiser the random states are restored too, so that training goes on exactly.

    Raises:
        CheckpointError: the file is missing, damaged, or of another run, model or optimiser.
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
            torch.set_rng_state(tensors["random.cpu"])
            if torch.cuda.is_available():  # perhaps fewer GPUs than when it was saved
                names = [f"random.cuda.{index}" for index in range(torch.cuda.device_count())]
                torch.cuda.set_rng_state_all([tensors[name] for name in names if name in tensors])
        except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{path} holds no state for this optimiser: {error}") from error
    return header["progress"]


def read_progress(path: Path | str, *needed: str) -> dict[str, Any]:
    """The ``progress`` of a checkpoint, without a model.

    Args:
        path: of the file.
        needed: entries without which it is of no use.

    Raises:
        CheckpointError: the file is missing or damaged, or lacks one of these entries.
    """
    progress = _read(path)[1]["progress"]
    absent = [name for name in needed if name not in progress]
    if absent:
        raise CheckpointError(
            f"{path} is a checkpoint of another kind: it notes no {', no '.join(absent)}; "
            "delete it to start the run anew, or put back a good copy"
        )
    return progress


def _cuda_states() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _read(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        tensors, header = read_tensors(path, "g2lstm")
        if not header.keys() <= {"progress", "optimizer"} or "progress" not in header:
            raise ValueError(f"its header holds {', '.join(header)}")
        return tensors, header
    except FileNotFoundError as error:
        raise CheckpointError(
            f"checkpoint {path} does not exist; run the experiment again to make it"
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({error.strerror}); make it readable, or "
            "move it away to start the run anew"
        ) from error
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged, another run's or no checkpoint ({error}); "
            "delete it to start the run anew, or put back a good copy"
        ) from error


def declared(path: Path | str) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """What the header of a safetensors file says: shapes of its tensors, and its metadata.

    No tensor is read. The library compares the header with the size of the file.

    Raises:
        CheckpointError: the file is missing, cannot be read or is no such file.
    """
    try:
        check_regular(path)
        with safe_open(str(path), framework="pt") as file:
            names, metadata = file.keys(), file.metadata() or {}
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}, metadata
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is damaged or no file of weights ({error}): put back a good copy"
        ) from error


def check_shapes(path: Path | str, shapes: Mapping[str, tuple[int, ...]], model: nn.Module) -> None:
    """Compare the shapes in a file with those of a model, which may be on the meta device.

    Raises:
        CheckpointError: they differ; names the first parameter that does.
    """
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    odd = sorted(n for n in own.keys() | shapes.keys() if own.get(n) != shapes.get(n))
    if odd:
        raise CheckpointError(
            f"{path} holds weights of another model: {odd[0]} is {shapes.get(odd[0])} there, "
            f"{own.get(odd[0])} here"
        )


def check_weights(path: Path | str, model: nn.Module) -> None:
    """Compare what a file that `save_checkpoint` wrote declares with a model, reading no weight.

    Raises:
        CheckpointError: it is missing, no such file, or of another model.
    """
    shapes, _ = declared(path)
    prefix = "model."
    own = {k.removeprefix(prefix): shape for k, shape in shapes.items() if k.startswith(prefix)}
    check_shapes(path, own, model)


def write_tensors(
    path: Path | str, tensors: dict[str, torch.Tensor], name: str, header: dict[str, Any]
) -> None:
    """Write a safetensors file with ``header`` (JSON), its run and a checksum, atomically.

    Args:
        path: of the file.
        tensors: on the CPU, contiguous, none sharing memory with another.
        name: of the metadata.
        header: without entries "header" and "sha256".

    Raises:
        WriteError: it cannot be written; ``path`` is as it was.
    """
    run = new_header(path)
    if run is not None:
        header = header | {"header": run}
    text = json.dumps(header | {"sha256": _checksum(tensors, header)})
    size = len(text) + sum(tensor.nbytes + len(key) for key, tensor in tensors.items())
    with replacing(path, size) as temporary:
        try:
            save_file(tensors, temporary, metadata={name: text})
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def read_tensors(path: Path | str, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of a file that `write_tensors` wrote, or an earlier version of it.

    Raises:
        OSError: the file is missing or cannot be read.
        SafetensorError, LookupError, ValueError, TypeError, AttributeError: it is damaged, of
            another run than the others in its folder, or something else.
    """
    check_regular(path)
    open(path, "rb").close()  # safetensors takes what may not be read for missing
    with safe_open(str(path), framework="pt") as file:
        header = json.loads((file.metadata() or {})[name])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    known = header.pop("sha256", None)
    if known is not None and known != _checksum(tensors, header):
        raise ValueError("its content does not match its checksum")
    check_header(path, header.pop("header", None))
    return tensors, header


def _checksum(tensors: Mapping[str, torch.Tensor], header: dict[str, Any]) -> str:
    """sha256 of header, names, types, shapes and values."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
