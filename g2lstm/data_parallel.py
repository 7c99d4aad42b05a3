"""Training in several processes, each with its share of every batch.

torchrun starts the processes; each has the whole model. The gradient of a step is the sum over the
processes, so that a step is that of one process with the same batch, but for dropout and gate
noise, of which each draws its own. In a process of its own all of this does nothing.

Environment variables:
    G2LSTM_RENDEZVOUS: an empty folder, in which the processes find each other, which then speak
        over the loopback interface alone. Without it they meet at the port that torchrun opens, to
        other machines too.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


class ProcessesError(RuntimeError):
    """There are more processes on this machine than it has GPUs."""


def world_size() -> int:
    """Number of the processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def joined(backend: str | None = None) -> Iterator[None]:
    """Join the other processes within the context, if torchrun has started this one.

    Args:
        backend: of torch.distributed; default: "nccl" where there is a GPU, otherwise "gloo".

    Raises:
        ProcessesError: there are fewer GPUs than processes on this machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise ProcessesError(
                f"{os.environ['WORLD_SIZE']} processes need a GPU each, this machine has {gpus}: "
                f"start {gpus}, with the setting processes={gpus}"
            )
        torch.cuda.set_device(local)
    backend = backend or ("nccl" if torch.cuda.is_available() else "gloo")
    if folder := os.environ.get("G2LSTM_RENDEZVOUS"):
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
        dist.init_process_group(
            backend,
            init_method=f"file://{os.path.abspath(folder)}/processes",
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
    else:
        dist.init_process_group(backend)
    try:
        yield
    finally:
        dist.destroy_process_group()


def sum_gradients(model: nn.Module) -> None:
    """Replace each gradient by its sum over the processes, in one exchange."""
    if world_size() == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    total = torch.cat([parameter.grad.flatten() for parameter in parameters])
    dist.all_reduce(total)
    parts = total.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad.copy_(part.view_as(parameter))


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a tensor over the processes, without gradient; one process gets it back."""
    if world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def computed_by_first(function: Callable[[], float], model: nn.Module) -> float:
    """What ``function`` returns in the first process, for all of them.

    So no decision that hangs on it can differ between the processes.
    """
    if world_size() == 1:
        return function()
    device = next(model.parameters()).device
    value = torch.zeros(1, dtype=torch.float64, device=device)
    if rank() == 0:
        value[0] = function()
    dist.broadcast(value, src=0)
    return value.item()


def reseed(seed: int, epoch: int) -> None:
    """Give each of several processes its own dropout and noise, the same after a resume."""
    if world_size() > 1:
        state = np.random.SeedSequence([seed, epoch, rank()]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0] >> np.uint64(1)))
