"""Every test runs on one thread and offline, and writes below temporary folders only.

pytest-socket, set up in pyproject.toml, turns connections to other machines into errors.
"""

import http.server
import os
import socket
import threading

import pytest
import torch
from hypothesis import settings

from hub_stand_in import StandIn

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, later
os.environ["OMP_NUM_THREADS"] = "1"  # for processes that a test starts
torch.set_num_threads(1)
settings.register_profile("project", deadline=None, derandomize=True)
settings.register_profile("nightly", deadline=None, max_examples=20_000, print_blob=True)
settings.load_profile("project")

# Files that take longest come first: last, they would leave a worker without work.
SLOW = (
    "test_slurm", "test_grid", "test_lab", "test_faults", "test_translation_notebooks",
    "test_analysis_notebooks", "test_language_model_notebooks", "test_exercises_notebook",
    "test_readme", "test_guide", "test_training",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory):
    """Cache, runs and results of this session; no corpora but the embedded one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cache", "runs", "results"):
            patch.setenv(f"G2LSTM_{name.upper()}", str(tmp_path_factory.mktemp(name)))
        patch.delenv("G2LSTM_DATA", raising=False)
        yield


@pytest.fixture
def no_network(monkeypatch):
    """Not even this machine is to be reached."""

    def refuse(*arguments, **keywords):
        raise AssertionError(f"the network was touched: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def hub_cache(monkeypatch, tmp_path):
    """An empty cache for the hub's libraries, which are online."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return huggingface_hub.constants


@pytest.fixture
def hub_server(hub_cache, monkeypatch):
    """A hub on this machine: set its `files`, see what was `asked`."""
    handler = type("Handler", (StandIn,), {"files": {}, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    template = hub_cache.HUGGINGFACE_CO_URL_TEMPLATE.replace(hub_cache.ENDPOINT, endpoint)
    monkeypatch.setattr(hub_cache, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(hub_cache, "ENDPOINT", endpoint)
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def corpora():
    """Small embedded corpora, and runs on them, for a module; see `tiny_runs`."""
    from tiny_runs import few_sentences  # after HF_HUB_OFFLINE is set

    with few_sentences():
        yield


@pytest.fixture(autouse=True)
def _denormal_numbers():
    """Runs flush denormal numbers to zero, for the whole thread; hypothesis needs them."""
    yield
    torch.set_flush_denormal(False)
