"""G2-LSTM: an LSTM whose input and forget gates are trained towards binary values.

Reference companion to Li et al., "Towards Binary-Valued Gates for Robust LSTM Training", ICML 2018.
"""

from g2lstm.lstm import G2LSTM

__version__ = "0.1.0"
__all__ = ["G2LSTM", "__version__"]
