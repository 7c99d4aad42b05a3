"""The project's sources and what they import, for tests about the project itself."""

import ast
import os
import shutil
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = {path.stem: path for path in (ROOT / "g2lstm").glob("*.py") if path.stem != "__init__"}


def imports(source: str) -> set[str]:
    """Full names of all modules, and of all names from modules, that Python source imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(source: str) -> set[str]:
    """Modules of the package that Python source imports."""
    parts = [name.split(".") for name in imports(source)]
    return {part[1] for part in parts if part[0] == "g2lstm" and len(part) > 1} & MODULES.keys()


def text(path: Path) -> str:
    """Python source of a module, or of the code cells of a notebook without their magics."""
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return "\n".join(line for line in code.splitlines() if not line.startswith(("%", "!")))


def copy_project(folder: Path, *names: str) -> None:
    """Copy these files and folders of the project to a folder."""
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, folder)


def users_environment() -> dict[str, str]:
    """The environment without what the tests set for the project."""
    return {name: value for name, value in os.environ.items() if not name.startswith("G2LSTM_")}
