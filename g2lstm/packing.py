"""Storage in as few bits as the values need, and the size and work of a model before and after.

A block of weights that holds few different values, as after `Round` and `RoundClip`, is stored as
their table and a code a weight of ceil(log2(number of values)) bits. That loses nothing: what is
loaded equals what was saved, bit for bit. What is left is float32 or, on demand, int8.
"""

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from g2lstm.checkpoint import (
    CheckpointError,
    check_shapes,
    declared,
    read_tensors,
    write_tensors,
)
from g2lstm.compression import Integers, bits_per_weight, check_finite, check_own_weights
from g2lstm.low_rank_lstm import LowRankLSTM

RESTS = ("float32", "int8")
MOST_BITS = 8  # of a code
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def pack_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes below 2^bits, 1 to 8 bits each, as a gapless array of bytes (the last one padded)."""
    flat = np.asarray(codes, dtype=np.uint8).reshape(-1, 1)
    return np.packbits(np.unpackbits(flat, axis=1)[:, 8 - bits :])


def unpack_bits(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The first ``count`` codes of what `pack_bits` made, uint8."""
    rows = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    return np.packbits(np.pad(rows, ((0, 0), (8 - bits, 0))), axis=1)[:, 0]


def save_packed(model: nn.Module, path: Path | str, rest: str = "float32") -> None:
    """Write the weights of ``model`` to ``path`` (safetensors), atomically, in few bits.

    Matrices of LSTMs are taken apart into their gates' blocks.

    Args:
        model: as `compress` or `factorise` returns it, or any other.
        path: of the file.
        rest: how to store matrices of many values: "float32" (exactly) or "int8" (as `Integers`
            changes them, with a step a row); vectors are always stored exactly.

    Raises:
        ValueError: ``rest`` is neither.
        WeightsError: a weight is NaN or infinite.
        WriteError: the file cannot be written; ``path`` is as it was.
    """
    if rest not in RESTS:
        raise ValueError(f"rest must be one of {', '.join(RESTS)}, got {rest!r}")
    check_finite(type(model).__name__, model.named_parameters())
    tensors: dict[str, Tensor] = {}
    header: dict[str, Any] = {}
    seen: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    lstms = _lstm_matrices(model)
    for name, tensor in state.items():
        if id(tensor) in seen:  # a tied weight is stored once
            header[name] = {"same": seen[id(tensor)]}
            continue
        seen[id(tensor)] = name
        whole = tensor.detach().cpu()
        blocks = whole.chunk(4) if name in lstms else [whole]
        header[name] = {"dtype": str(tensor.dtype).removeprefix("torch."), "blocks": []}
        for index, block in enumerate(blocks):
            key = f"{name}/{index}"
            about, parts = _stored(block.contiguous(), rest)
            header[name]["blocks"].append(about)
            tensors |= {f"{key}{suffix}": part for suffix, part in parts.items()}
    write_tensors(path, tensors, "g2lstm_packed", header)


def load_packed(path: Path | str, model: nn.Module) -> None:
    """Load what `save_packed` wrote into a model of the same architecture.

    Raises:
        CheckpointError: the file is missing, damaged, or of another model.
        WeightsError: a weight is NaN or infinite. The model is left as it was in either case.
    """
    try:
        tensors, header = read_tensors(path, "g2lstm_packed")
        state = {
            name: _joined(
                [
                    _restored(about, lambda suffix, key=f"{name}/{i}": tensors[key + suffix])
                    for i, about in enumerate(entry["blocks"])
                ]
            ).to(getattr(torch, entry["dtype"]))
            for name, entry in header.items()
            if "same" not in entry
        }
        state |= {name: state[e["same"]] for name, e in header.items() if "same" in e}
    except (
        OSError, SafetensorError, LookupError, ValueError, RuntimeError, AttributeError, TypeError,
    ) as error:  # fmt: skip
        raise CheckpointError(f"{path} holds no packed weights: {error}") from error
    check_shapes(path, {name: tuple(tensor.shape) for name, tensor in state.items()}, model)
    check_finite(path, ((name, state[name]) for name, _ in model.named_parameters()))
    model.load_state_dict(state)


def check_packed(path: Path | str, model: nn.Module) -> None:
    """Compare what a file that `save_packed` wrote declares with a model, reading no weight.

    Args:
        path: of the file.
        model: of any device, the meta device too.

    Raises:
        CheckpointError: it is missing, no such file, or of another model.
    """
    shapes, metadata = declared(path)
    try:
        header = json.loads(metadata["g2lstm_packed"])
        for about_file in ("sha256", "header"):  # as `read_tensors` takes them off
            header.pop(about_file, None)
        whole = {
            name: _whole_shape(
                [
                    tuple(about.get("shape", shapes[f"{name}/{index}"]))
                    for index, about in enumerate(entry["blocks"])
                ]
            )
            for name, entry in header.items()
            if "same" not in entry
        }
        whole |= {name: whole[e["same"]] for name, e in header.items() if "same" in e}
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} holds no packed weights: {error}") from error
    check_shapes(path, whole, model)


def disk_bytes(model: nn.Module, rest: str = "float32") -> int:
    """Size of the file that `save_packed` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_packed(model, path, rest)
        return path.stat().st_size


def flops_per_step(model: nn.Module) -> int:
    """Floating-point operations of the LSTMs' products for one step of one sequence.

    A multiplication and an addition a weight; what is done a unit (gates, states) is left out.

    Raises:
        ReparametrisedError: see `compression.check_own_weights`.
    """
    check_own_weights(model)
    total = 0
    for lstm in model.modules():
        if isinstance(lstm, nn.LSTM):
            parts = lstm.named_parameters(recurse=False)
            total += sum(2 * part.numel() for name, part in parts if not name.startswith("bias"))
    return total


def compression_report(models: Mapping[str, nn.Module], rest: str = "float32") -> pd.DataFrame:
    """Parameters, bytes on disk and FLOPs a step of each model, and as shares of the first one's.

    Args:
        models: by name, the uncompressed one first.
        rest: see `save_packed`.

    Returns:
        Columns model, parameters, megabytes (10^6 bytes), flops_per_step, and for the last two
        size and work relative to the first row.
    """
    rows = []
    for name, model in models.items():
        rows.append(
            {
                "model": name,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "megabytes": disk_bytes(model, rest) / 1e6,
                "flops_per_step": flops_per_step(model),
            }
        )
    frame = pd.DataFrame(rows)
    frame["relative size"] = frame["megabytes"] / frame["megabytes"].iloc[0]
    frame["relative work"] = frame["flops_per_step"] / frame["flops_per_step"].iloc[0]
    return frame


def _lstm_matrices(model: nn.Module) -> set[str]:
    """Names of the parameters that hold four gates' blocks of one size."""
    return {
        f"{module}.{name}" if module else name
        for module, lstm in model.named_modules()
        if isinstance(lstm, nn.LSTM) and not isinstance(lstm, LowRankLSTM)
        for name, _ in lstm.named_parameters(recurse=False)
    }


def _stored(block: Tensor, rest: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """How a block is stored, and the tensors that hold it."""
    if not block.is_floating_point():
        return {}, {"": block}
    raw = block.view(INTEGERS[block.element_size()])  # 0 and -0 are equal, their bits are not
    bits = bits_per_weight(raw)
    if bits <= MOST_BITS and block.numel() > 2**bits:
        values, codes = torch.unique(raw, return_inverse=True)
        packed = torch.from_numpy(pack_bits(codes.numpy(), bits))
        table = values.view(block.dtype)
        return {"bits": bits, "shape": list(block.shape)}, {"": packed, ".values": table}
    if rest == "int8" and block.dim() >= 2:
        codes, step = Integers(8).codes(block)
        return {"int8": True}, {"": codes, ".step": step}
    return {}, {"": block}


def _whole_shape(blocks: list[tuple[int, ...]]) -> tuple[int, ...]:
    return blocks[0] if len(blocks) == 1 else (sum(b[0] for b in blocks), *blocks[0][1:])


def _joined(blocks: list[Tensor]) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)  # a number cannot be concatenated


def _restored(about: Mapping[str, Any], tensor: Callable[[str], Tensor]) -> Tensor:
    """A block from what holds it; what it declares is compared with that first."""
    if "bits" in about:
        packed, values, bits, shape = tensor(""), tensor(".values"), about["bits"], about["shape"]
        count = math.prod(shape)
        if bits not in range(MOST_BITS + 1) or packed.shape != (-(-count * bits // 8),):
            raise ValueError(f"{len(packed)} bytes are not {shape} codes of {bits} bits")
        if values.dim() != 1:
            raise ValueError(f"a table of values has the shape {tuple(values.shape)}")
        codes = unpack_bits(packed.numpy(), bits, count)
        return values[torch.from_numpy(codes).long()].view(shape)
    if "int8" in about:
        codes, step = tensor(""), tensor(".step")
        if step.shape != (*codes.shape[:-1], 1):
            raise ValueError(f"steps {tuple(step.shape)} for codes {tuple(codes.shape)}")
        return codes.to(step.dtype) * step
    return tensor("")
