"""The exercises run unsolved, as they are committed, and with the solutions that they hold."""

import json
import re

import nbformat
import pytest

from execution import NOTEBOOKS, execute, shown

SMALL = {"seeds": [1, 2], "train_tokens": 2_000, "units": 8}
TASKS = ["1a", "1b", "2a", "2b", "3", "4", "5a", "5b", "5c", "6a", "6b"]
DECISION = r"(LSTM|G2-LSTM): effects (-?\d\.\d\d, -?\d\.\d\d): (.+)"

UNDECIDED = DECISION.replace("-?\\d\\.\\d\\d, -?\\d\\.\\d\\d", "[^:]*")


def verdicts(notebook):
    return re.findall(r"^Exercise (\w+): (right|wrong|not solved yet)\.", shown(notebook), re.M)


def test_its_own_solutions_are_right_and_decide_from_what_is_measured(tmp_path):
    notebook = execute("10_exercises", tmp_path, SMALL | {"solutions": True})
    assert verdicts(notebook) == [(task, "right") for task in TASKS]
    assert "11 of 11 tasks are right" in shown(notebook)
    decisions = re.findall(DECISION, shown(notebook))
    assert [name for name, _, _ in decisions] == ["LSTM", "G2-LSTM"]
    for _, effects, decision in decisions:
        first, second = map(float, effects.split(", "))
        # With two seeds the interval reaches 12.7 times half their difference to both sides.
        reach = 12.706 * abs(first - second) / 2
        mean = (first + second) / 2
        sure = abs(mean) - reach
        if abs(sure) > 0.1:  # far enough from where rounding to two digits matters
            expected = "drops" if mean < 0 else "does not drop"
            assert decision == (expected if sure > 0 else "not enough evidence")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"solution": True}, "unknown parameter 'solution'; did you mean 'solutions'"),
        ({"solutions": "yes"}, "solutions must be True or False, got 'yes'"),
        ({"seeds": []}, r"got seeds=\[\]"),
        ({"units": 0}, "units=0"),
    ],
)
def test_a_wrong_parameter_is_refused_by_the_cell_that_checks_them(parameters, message):
    cells = {cell.id: cell for cell in nbformat.read(NOTEBOOKS / "10_exercises.ipynb", 4).cells}
    names = {}
    exec(cells["parameters"].source, names)
    exec(cells["check-parameters"].source, names)
    with pytest.raises(ValueError, match=message):
        exec(cells["check-parameters"].source, names | parameters)


def test_the_committed_notebook_is_unsolved_and_was_run_in_order():
    notebook = nbformat.read(NOTEBOOKS / "10_exercises.ipynb", 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert verdicts(notebook) == [(task, "not solved yet") for task in TASKS]
    assert "0 of 11 tasks are right" in shown(notebook)
    assert [found[2] for found in re.findall(UNDECIDED, shown(notebook))] == ["solve 6b to see"] * 2
    starters = [cell.source for cell in cells if "exercise" in cell.metadata.get("tags", [])]
    assert len(starters) == len(TASKS)
    assert all(source.endswith("\n    raise NotImplementedError") for source in starters)


def test_everything_that_folds_is_closed():
    text = json.dumps(nbformat.read(NOTEBOOKS / "10_exercises.ipynb", 4))
    assert text.count("<details>") == text.count("</details>") > len(TASKS)
