"""The project's own files: one truth about dependencies, layers, notebooks and the grid."""

import re
import subprocess
import sys
import tomllib

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

import g2lstm
from sources import MODULES, NOTEBOOKS, ROOT, imports, own_imports, text

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Data flows from top to bottom: a module imports only from modules above it.
LAYERS = (
    "exit_codes",
    "text",
    "streams",
    "files",
    "memory",
    "identity",
    "manifest",
    "transforms",
    "products",
    "provenance",
    "gates",
    "gate_modes",
    "gate_rates",
    "steps",
    "recurrence",
    "layer_inputs",
    "lstm",
    "compression",
    "low_rank_inference",
    "low_rank_lstm",
    "inspection",
    "alignment",
    "language_model",
    "onnx_export",
    "attention",
    "translation",
    "grammar_symbols",
    "grammar_rules",
    "grammar",
    "parallel_grammar_rules",
    "parallel_lexicon",
    "parallel_derivation",
    "parallel_grammar",
    "hub",
    "corpus_sources",
    "corpora",
    "parallel_corpora",
    "subwords",
    "data_parallel",
    "batches",
    "beam_search",
    "scoring",
    "checkpoint",
    "packing",
    "evaluation",
    "options",
    "training",
    "objectives",
    "presets",
    "parameters",
    "settings",
    "experiments",
    "records",
    "language_model_task",
    "translation_task",
    "runs",
    "measurements",
    "robustness",
    "gate_profile",
    "case_study",
    "sensitivity",
    "paper",
    "sentence_gates",
    "verdict_rule",
    "verdicts",
    "plots",
    "results",
    "claims",
    "forest",
    "analysis",
    "gate_tables",
    "analysis_plots",
    "gate_plots",
    "studies",
    "trials",
    "verdict_tables",
    "report",
    "feedback",
    "exercises",
    "tuning",
    "rebuilding",
    "record_checks",
    "model_folders",
    "saved_models",
    "verification",
    "release",
    "listing",
    "commands",
    "command_line",
    "__main__",
)

# Where conda's name is not that of pip.
CONDA_NAMES = {"huggingface-hub": "huggingface_hub", "torch": "pytorch"}


def requirements(*extras: str) -> dict[str, SpecifierSet]:
    """Name -> bounds of the runtime dependencies and of these extras."""
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {
        canonicalize_name((requirement := Requirement(line)).name): requirement.specifier
        for line in lines
    }


EVERYTHING = requirements("notebooks", "onnx", "reproduce", "test")


def conda_specs() -> list[str]:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    return [line for line in environment["dependencies"] if isinstance(line, str) and line != "pip"]


# Dependencies


def test_environment_yml_names_what_pyproject_names():
    conda = {}
    for line in conda_specs():
        name, _, bounds = line.partition(" ")
        conda[name] = SpecifierSet(bounds)
    assert conda.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert conda == {CONDA_NAMES.get(name, name): bounds for name, bounds in EVERYTHING.items()}


@pytest.mark.parametrize("line", conda_specs())
def test_environment_yml_speaks_conda(line):
    spec = MatchSpec(line, strict=True)
    assert str(spec).split()[0] == line.split()[0]
    assert spec.version is not None


def test_every_extra_states_the_same_bounds():
    for extra in ("notebooks", "reproduce", "test"):
        for name, bounds in requirements(extra).items():
            assert EVERYTHING[name] == bounds, f"{name} in extra {extra}"
    assert PROJECT["optional-dependencies"]["all"] == ["g2lstm[notebooks,onnx,reproduce,test]"]


def test_constraints_pin_every_dependency_within_its_bounds():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {}
    for line in lines:
        if not line.startswith("#"):
            name, version = line.split("==")
            assert "+" not in version, f"{line}: a local version is not on other machines"
            pins[canonicalize_name(name)] = version
    for name, bounds in EVERYTHING.items():
        assert bounds.contains(pins[name]), f"{name}=={pins[name]} is not {bounds}"


def test_package_imports_exactly_the_declared_dependencies():
    found = {name.split(".")[0] for path in MODULES.values() for name in imports(text(path))}
    third_party = found - set(sys.stdlib_module_names) - {"g2lstm"}
    assert third_party == {name.replace("-", "_") for name in requirements("onnx")}


# The package


def test_modules_import_only_from_layers_above():
    assert set(MODULES) == set(LAYERS)
    for name, path in MODULES.items():
        above = set(LAYERS[: LAYERS.index(name)])
        below = own_imports(text(path)) - above
        assert not below, f"{name} imports {', '.join(sorted(below))}, not above it"


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert g2lstm.__version__ == PROJECT["version"] == citation["version"]


def test_citation_names_this_software_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license"} <= citation.keys()
    (paper,) = citation["references"]
    assert paper["title"] == "Towards Binary-Valued Gates for Robust LSTM Training"
    assert [author["family-names"] for author in paper["authors"]] == [
        *("Li", "He", "Tian", "Chen", "Qin", "Wang", "Liu")
    ]
    assert (paper["year"], paper["volume"]) == (2018, 80)
    assert "1806.02988" in paper["identifiers"][0]["value"]


# Notebooks


def test_the_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == [
        "00_gumbel_gates",
        "01_language_model",
        "02_language_model_results",
        "03_translation",
        "04_translation_results",
        "05_compression",
        "06_gate_values",
        "07_case_study",
        "08_sensitivity",
        "09_report",
        "10_exercises",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_fit_to_run_and_to_keep(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info.name == "python"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1, "exactly one cell is tagged `parameters`"
    following = code[code.index(tagged[0]) + 1]
    assert "check_parameters(" in following.source, "the next cell checks the parameters"
    for cell in code:
        assert "injected-parameters" not in cell.metadata.get("tags", []), "papermill's output"
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source
            assert not re.search(r"/(home|root|tmp|Users|work)/\w", str(output)), cell.source
        if "NBVAL_CHECK_OUTPUT" in cell.source:
            assert cell.outputs, f"nothing to compare with:\n{cell.source}"


# Makefile


def test_make_names_what_is_missing_when_there_is_no_python(tmp_path):
    venv = f"VENV={tmp_path / 'venv'}"
    command = ["make", "PYTHON=python-that-is-not-there", venv, f"{tmp_path / 'venv'}/.installed"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode != 0
    assert "python-that-is-not-there is not there. Install Python 3.11" in made.stderr
