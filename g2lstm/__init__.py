"""G2-LSTM: an LSTM whose input and forget gates are trained towards binary values.

Reference companion to Li et al., "Towards Binary-Valued Gates for Robust LSTM Training", ICML 2018.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from g2lstm.lstm import G2LSTM

__version__ = "0.1.0"
__all__ = ["G2LSTM", "__version__"]


def __getattr__(name: str) -> Any:
    """The layer is imported on first use: the command line's help does without torch."""
    if name == "G2LSTM":
        from g2lstm.lstm import G2LSTM

        return G2LSTM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
