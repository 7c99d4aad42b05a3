"""Cheat sheet and instructor's notes name what is there, and say what is so."""

import importlib
import inspect
import json
import re

import pytest

from g2lstm import G2LSTM
from sources import NOTEBOOKS, ROOT

CHEATSHEET = (ROOT / "docs" / "cheatsheet.md").read_text(encoding="utf-8")
TEACHING = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in CHEATSHEET.splitlines()
    if line.startswith("|")
]
# `module:name`, `module:Class.method`, `module:name(argument=..., ...)`
NAME = re.compile(r"`(\w+):([\w.]+)(?:\(([^`]*)\))?`")
NAMES = [(row, *match) for row in ROWS for cell in row for match in NAME.findall(cell)]
DEFAULT = re.compile(r"`(\w+)=([^`]+)`")


def named(module, path):
    found = importlib.import_module(f"g2lstm.{module}")
    for part in path.split("."):
        found = getattr(found, part)
    return found


def test_the_cheat_sheet_fits_a_page():
    assert len(CHEATSHEET.splitlines()) <= 60


@pytest.mark.parametrize(("row", "module", "path", "arguments"), NAMES)
def test_names_on_the_cheat_sheet_exist_with_their_arguments_and_defaults(
    row, module, path, arguments
):
    parameters = inspect.signature(named(module, path)).parameters
    given = re.findall(r"(\w+)=", arguments)
    assert set(given) <= set(parameters)
    defaults = dict(DEFAULT.findall(row[2]))
    for name in given:
        assert parameters[name].default == eval(defaults[name]), f"default of {name}"


def test_every_default_on_the_cheat_sheet_is_one_of_the_names_beside_it():
    stated = [name for row in ROWS if len(row) == 3 for name, _ in DEFAULT.findall(row[2])]
    tested = [name for _, _, _, arguments in NAMES for name in re.findall(r"(\w+)=", arguments)]
    assert sorted(stated) == sorted(tested)
    assert len(tested) >= 8


def test_no_name_on_the_cheat_sheet_is_left_untested():
    spans = [span for span in re.findall(r"`[^`]+`", CHEATSHEET) if ":" in span]
    assert [span for span in spans if not NAME.fullmatch(span)] == []
    assert len(spans) == len(NAMES) > 20


def test_parameters_of_the_layer_are_named_with_their_shapes():
    (row,) = (row for row in ROWS if "`weight_ih_l0`" in row[1])
    names, shapes = re.findall(r"`(\w+)`", row[1]), re.findall(r"\[([^]]+)\]", row[2])
    state = G2LSTM(3, 5).state_dict()
    assert set(names) == set(state)
    symbols = {"4H": 20, "D": 3, "H": 5}
    for name, shape in zip(names, [*shapes, shapes[-1]], strict=True):
        assert tuple(state[name].shape) == tuple(symbols[s] for s in shape.split(", "))


def test_commands_and_files_on_the_cheat_sheet_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"`make (\w+)", CHEATSHEET)
    assert len(targets) >= 5
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in re.findall(r"notebooks/(\w+)\.ipynb", CHEATSHEET + TEACHING):
        assert name in {path.stem for path in NOTEBOOKS}
    records = {"config.json", "metrics.jsonl", "summary.json"}
    folder = next((ROOT / "results/quick/runs").glob("*/*/*/*/seed-*"))
    assert records <= {path.name for path in folder.iterdir()}
    (row,) = (row for row in ROWS if row[0].startswith("`runs/"))
    assert records | {"model.safetensors"} == set(re.findall(r"`([\w.]+)`", row[1]))


def test_the_verdicts_in_the_notes_are_those_of_the_report():
    claims = json.loads((ROOT / "results/quick/claims.json").read_text(encoding="utf-8"))
    part = TEACHING[TEACHING.index("## Honest negatives") :]
    table = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", part, re.MULTILINE)[1:]
    stated = {
        (name, task): verdict
        for name, *verdicts in table
        for task, verdict in zip(("language-model", "translation"), verdicts, strict=True)
    }
    assert stated == {
        (row["name"], row["task"]): row["verdict"]
        for row in claims["statistics"]
        if "verdict" in row and row["noise"] == 0.2
    }


def test_minutes_of_the_two_plans_add_up():
    for length, *titles in ((60, "A session of 60", "A lab of 90"), (90, "A lab of 90", "## On a")):
        part = TEACHING[TEACHING.index(titles[0]) : TEACHING.index(titles[1])]
        assert sum(map(int, re.findall(r"^\| (\d+) \|", part, re.MULTILINE))) == length


def test_the_exercises_take_as_long_as_the_plan_says():
    text = (ROOT / "notebooks/10_exercises.ipynb").read_text(encoding="utf-8")
    planned = re.findall(r"^\| (\d+) \| exercise \d", TEACHING, re.MULTILINE)
    assert re.findall(r"(\d+) minutes\.\)\*", text) == planned


@pytest.mark.parametrize("text", [CHEATSHEET, TEACHING], ids=["cheatsheet", "teaching"])
def test_links_lead_somewhere(text):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (ROOT / "docs" / target).exists(), target
