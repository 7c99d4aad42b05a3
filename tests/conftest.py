"""Every test runs on one thread and offline, and writes below temporary folders only.

pytest-socket, set up in pyproject.toml, turns connections to other machines into errors.
"""

import os

import pytest
import torch
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, later
os.environ["OMP_NUM_THREADS"] = "1"  # for processes that a test starts
torch.set_num_threads(1)
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory):
    """Cache, runs and results of this session; no corpora but the embedded one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cache", "runs", "results"):
            patch.setenv(f"G2LSTM_{name.upper()}", str(tmp_path_factory.mktemp(name)))
        patch.delenv("G2LSTM_DATA", raising=False)
        yield
