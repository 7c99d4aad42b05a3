"""The walkthrough runs with small parameters, its numbers are right, and it refuses wrong ones."""

import json
import math
import re
from pathlib import Path

import nbformat
import papermill
import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_gumbel_gates.ipynb"
SMALL = {"samples": 20_000, "toy_steps": 400, "toy_units": 4}
FIGURES = ["densities", "sample", "proposition", "mask", "modes", "robustness", "pushing"]


def execute(folder, parameters):
    papermill.execute_notebook(
        NOTEBOOK, folder / "out.ipynb", parameters, cwd=folder, progress_bar=False
    )


def printed(notebook, cell):
    """What the cell with this id printed."""
    (cell,) = (c for c in notebook.cells if c.id == cell)
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gumbel_gates")
    execute(folder, {**SMALL, "seed": 3, "figures": str(folder / "figures")})
    return folder, nbformat.read(folder / "out.ipynb", 4)


def test_every_figure_is_shown_once_and_saved_with_its_provenance(executed):
    folder, notebook = executed
    pictures = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == len(FIGURES)
    saved = folder / "figures"
    endings = (".png", ".svg", ".provenance.json")
    assert {file.name for file in saved.iterdir()} == {
        f"gumbel_gates_{figure}{end}" for figure in FIGURES for end in endings
    }
    provenance = json.loads((saved / "gumbel_gates_pushing.provenance.json").read_text())
    assert "notebooks/00_gumbel_gates.ipynb" in provenance["command"]
    assert provenance["versions"]["torch"]
    assert {name: provenance[name] for name in SMALL} == SMALL


def test_the_gate_is_open_as_often_as_the_sigmoid_says(executed):
    _, notebook = executed
    rows = printed(notebook, "median-check").splitlines()[1:]
    assert len(rows) == 4
    for row in rows:
        a, exact, *shares = map(float, row.split())
        assert exact == pytest.approx(1 / (1 + math.exp(-a)), abs=0.005)
        assert len(shares) == 4
        # Five standard errors, and rounding to two digits.
        assert shares == pytest.approx([exact] * 4, abs=0.025)


def test_the_proposition_is_checked_on_its_whole_grid(executed):
    _, notebook = executed
    text = printed(notebook, "proposition-assert")
    assert text == "600 cases: 0 below the lower bound, 0 above the upper\n"


def test_the_mask_is_a_mixture(executed):
    _, notebook = executed
    rows = printed(notebook, "mask-check").splitlines()[1:]
    assert len(rows) == 3
    for row in rows:
        p, open_half, near_one = map(float, re.findall(r"= ([\d.]+\d)", row))
        a, shift = 0.25, 0.1 * math.log(0.95 / 0.05)
        assert open_half == pytest.approx(1 - p + p / (1 + math.exp(-a)), abs=0.025)
        # Without noise the gate is sigmoid(a / 0.1) = 0.92, below 0.95.
        assert near_one == pytest.approx(p / (1 + math.exp(shift - a)), abs=0.025)


def test_less_noise_is_left_the_larger_the_pre_activations(executed):
    _, notebook = executed
    rows = printed(notebook, "toy-loss").splitlines()
    a, some_noise, full_noise = zip(
        *(map(float, re.findall(r"(?:= |: )([\d.]+\d)(?=\s|$)", row)) for row in rows), strict=True
    )
    assert a == (0.25, 1.0, 2.0, 4.0, 6.0)
    for left in (some_noise, full_noise):
        assert list(left) == sorted(left, reverse=True)
        assert left[0] > 0.7
        assert left[-1] < 0.03
    assert all(some <= full for some, full in zip(some_noise, full_noise, strict=True))


def test_noise_pushes_the_pre_activations_outwards(executed):
    _, notebook = executed
    assert re.findall(r": (True|False)$", printed(notebook, "toy-assert"), re.MULTILINE) == [
        "True",
        "True",
    ]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperatur": 0.5}, "temperatur"),
        ({"temperatures": [0.5, 0.0]}, "temperature must be a finite number > 0, got 0.0"),
        ({"noise_probability": 1.5}, "probability must be a number in [0, 1], got 1.5"),
    ],
)
def test_a_wrong_parameter_stops_it_before_anything_runs(tmp_path, parameters, message):
    with pytest.raises(papermill.PapermillExecutionError, match=re.escape(message)):
        execute(tmp_path, parameters)
    cells = [c for c in nbformat.read(tmp_path / "out.ipynb", 4).cells if c.cell_type == "code"]
    ran = [cell.id for cell in cells if cell.execution_count is not None]
    assert ran[-1] == "check-parameters"


def test_the_committed_notebook_has_been_executed_in_order():
    notebook = nbformat.read(NOTEBOOK, 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    tagged = [c.id for c in cells if "parameters" in c.metadata.get("tags", [])]
    assert tagged == ["parameters"]
    assert cells[1].id == "check-parameters"
    checked = [c for c in cells if c.source.startswith("# NBVAL_CHECK_OUTPUT")]
    assert len(checked) >= 9
    assert all(cell.outputs for cell in checked)
