"""Executing notebooks for tests, by papermill, with their outputs below a test's folder."""

from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from g2lstm.corpora import CorpusError
from g2lstm.parameters import ParameterError

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def execute(name: str, folder: Path, parameters: dict[str, Any]) -> nbformat.NotebookNode:
    """The executed notebook, also left in the folder."""
    output = folder / f"{name}.ipynb"
    papermill.execute_notebook(
        NOTEBOOKS / f"{name}.ipynb", output, parameters, cwd=folder, progress_bar=False
    )
    return nbformat.read(output, 4)


def assert_refused(
    name: str, folder: Path, parameters: dict[str, Any], message: str, patch: pytest.MonkeyPatch
) -> None:
    """The notebook ends with an error that says ``message``, before it has written anything.

    Its cells run here, with the parameters where papermill puts them: no kernel has to start.
    """
    patch.chdir(folder)
    patch.setenv("G2LSTM_RUNS", str(folder / "runs"))
    patch.setenv("G2LSTM_RESULTS", str(folder / "results"))
    source = load_notebook_node(str(NOTEBOOKS / f"{name}.ipynb"))
    cells = parameterize_notebook(source, parameters).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    with pytest.raises((ParameterError, CorpusError), match=message):
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
    assert not list(folder.iterdir())


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


def pictures(notebook: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def shown(notebook: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in outputs(notebook))
