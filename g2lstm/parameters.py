"""Parameters of notebooks: unknown names are refused, with the nearest known one."""

import ast
import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class ParameterError(ValueError):
    """A parameter of a notebook or an experiment is unknown or of the wrong kind."""


def check_parameters(namespace: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Refuse unknown notebook parameters; to be called right after the parameters cell.

    papermill passes a misspelt parameter on with a warning only. Here every name in ``namespace``
    (the notebook's ``globals()``) that holds plain data counts as a parameter. When a notebook is
    run again in the same kernel, only the names of the cell that ran before this one do, for the
    others may be from further down.

    Returns:
        The known parameters with their values.

    Raises:
        ParameterError: names the unknown parameter and the nearest known one.
    """
    known = list(known)
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    ignored = {"In", "Out"}
    for name in candidates(namespace, known):
        if name.startswith("_") or name in {*ignored, *known}:
            continue
        if isinstance(namespace.get(name), plain):
            close = hint(name, known) or "."
            raise ParameterError(
                f"unknown parameter {name!r}{close} Known: {', '.join(sorted(known))}."
            )
    return {name: namespace[name] for name in known}


def candidates(namespace: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Names that may be parameters: all, but in a run again those of a parameters cell only."""
    cells = namespace.get("In", [])  # sources of the cells so far, the running one last
    if not any("check_parameters(" in cell for cell in cells[:-1]):
        return list(namespace)
    try:
        nodes = ast.walk(ast.parse(cells[-2]))
    except SyntaxError:  # it did not run, so it has set nothing
        return []
    names = [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return names if set(names) & set(known) else []


def hint(name: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?" where a known name is near, else nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
