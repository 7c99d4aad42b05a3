"""What torch may do with a model besides running it, and how the layer takes part.

The hand-written passes of this package write into their results and know one derivative of one
call. So where torch transforms or records a call, plain operations take their place: under
`torch.func` (grad, vmap, jacrev, ...), forward-mode differentiation, `torch.export` and
`torch.jit.trace`. `torch.compile` leaves the whole layer out, and `torch.fx` takes it as one node:
so they do with `torch.nn.LSTM`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx import Proxy

# Older versions of torch cannot tell an export from a compilation; there the layer is compiled.
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: True)


def is_transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is at work."""
    # Both private to torch, which has no public question for them.
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_batched(*tensors: Tensor) -> bool:
    """Whether one is a batch, as ``is_grads_batched`` of `torch.autograd.grad` makes."""
    return any(torch._C._functorch.is_legacy_batchedtensor(tensor) for tensor in tensors)


def is_recorded() -> bool:
    """Whether the operations are recorded for later calls, by a compiler, export or tracer."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The type of products under autocast; None where it is off or does not know the device."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return None


def autocast_to(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Autocast to ``dtype`` within the context, none if it is None; for every device."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def one_call(forward: Callable) -> Callable:
    """Make ``forward`` (self, input, hx) of a module one node of torch.fx, and never compiled."""

    @wraps(forward)
    def wrapped(self, input, hx=None):
        if isinstance(input, Proxy):
            tracer = input.tracer
            path = tracer.path_of_module(self)
            return tracer.create_proxy("call_module", path, (input, hx), {})
        if torch.compiler.is_compiling() and not _is_exporting():
            return torch.compiler.disable(forward)(self, input, hx)
        return forward(self, input, hx)

    return wrapped
