"""The benchmark of how cost grows runs and draws what it measured."""

import importlib
from pathlib import Path

import pandas as pd
import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    yield importlib.import_module("growth")
    torch.set_num_threads(threads)


def test_writes_its_figure(benchmark, monkeypatch, tmp_path):
    sizes = {"steps": [(2, 3, 4), (4, 3, 4)], "batch": [(2, 5, 4)], "units": [(2, 3, 8)]}
    monkeypatch.setattr(benchmark, "SERIES", sizes)
    benchmark.main(["--seconds", "0.01", "--output", str(tmp_path / "growth")])
    table = pd.read_csv(tmp_path / "growth.csv")
    assert table["size"].tolist() == [2, 2, 4, 4, 5, 5, 8, 8]
    assert table.layer.tolist() == 4 * ["nn.LSTM", "G2LSTM"]
    assert (table.microseconds_a_token > 0).all()
    assert (table.peak_mib.notna() == (table.grows == "steps")).all()
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert "(growth.png)" in (tmp_path / "growth.md").read_text(encoding="utf-8")


def test_the_memory_is_that_of_the_steps(benchmark):
    """Twenty thousand steps keep at least the gates and states of each: 4 H + 2 H numbers."""
    size = (20_000, 4, 16)
    assert benchmark.peak_apart("G2LSTM", size) > 20_000 * 4 * 6 * 16 * 4 / 2**20
