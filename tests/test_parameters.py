"""Parameters of notebooks: the known are returned, others refused with a hint."""

import json

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from g2lstm.parameters import ParameterError, check_parameters


def test_check_parameters_returns_the_known_and_refuses_others():
    namespace = {"_": 1, "__name__": "x", "In": [], "Out": {}, "seed": 1, "json": json, "f": len}
    assert check_parameters(namespace, ["seed"]) == {"seed": 1}
    with pytest.raises(ParameterError, match=r"unknown parameter 'sede'; did you mean 'seed'\?"):
        check_parameters(namespace | {"sede": 3}, ["seed"])
    with pytest.raises(ParameterError, match="unknown parameter 'zzz'"):
        check_parameters(namespace | {"zzz": None}, ["seed"])


CHECK = "from g2lstm.parameters import check_parameters\ncheck_parameters(globals(), ['seed'])"


@pytest.fixture
def run(tmp_path):
    """Runs cells in a kernel of this test, and gives the error of each."""
    quiet = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell(ipython_dir=str(tmp_path), config=quiet)
    return lambda *cells: [shell.run_cell(c, store_history=True).error_in_exec for c in cells]


def test_a_notebook_runs_again_in_the_same_kernel(run):
    assert run("seed = 1", CHECK, "rows = []", "seed = 2", CHECK) == [None] * 5
    assert run(CHECK) == [None], "the check alone"
    (_, error) = run("seed = 3\nsede = 4", CHECK)
    assert isinstance(error, ParameterError)
    assert "unknown parameter 'sede'; did you mean 'seed'? Known: seed." in str(error)
    assert run("seed = 3", CHECK) == [None, None], "mended"


def test_a_cell_with_a_slip_in_it_has_set_nothing(run):
    (*_, error) = run("seed = 1", CHECK, "sede = = 4", CHECK)
    assert error is None


def test_in_its_first_run_every_name_counts(run):
    (*_, error) = run("seed = 1", "zzz = 2", CHECK)  # papermill's cell is the second
    assert str(error) == "unknown parameter 'zzz'. Known: seed."
