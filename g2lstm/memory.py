"""Memory: what a model needs at least, and what there is."""

import psutil
import torch
from torch import nn

SMALLER = (
    "make the model, its batches or the beam smaller, close other programs, or use a machine with "
    "more memory"
)


class ResourceError(RuntimeError):
    """This machine has too little memory, or too few processors, for what was asked for."""


def parameter_bytes(model: nn.Module) -> int:
    """Memory of the parameters of a model, which may be on the meta device."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def check_memory(needed: int, what: str, device: torch.device | str) -> None:
    """See that there is room before it is taken.

    Args:
        needed: bytes.
        what: takes them, for the message.
        device: where.

    Raises:
        ResourceError: less is available.
    """
    free = available(torch.device(device))
    if needed > free:
        raise ResourceError(
            f"{what} needs at least {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are "
            f"available on {device}: {SMALLER}"
        )


def available(device: torch.device) -> int:
    """Bytes that can be had: of the GPU, or of the machine; limits of a container are not seen."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, or torch's of a processor or a GPU."""
    text = str(error)
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in text or "not enough memory" in text)
    )
