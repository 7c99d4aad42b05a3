"""Parameters of notebooks: unknown names are refused, with the nearest known one."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class ParameterError(ValueError):
    """A parameter of a notebook or an experiment is unknown or of the wrong kind."""


def check_parameters(namespace: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Refuse unknown notebook parameters; to be called right after the parameters cell.

    papermill passes a misspelt parameter on with a warning only. Here every name in ``namespace``
    (the notebook's ``globals()``) that holds plain data counts as a parameter.

    Returns:
        The known parameters with their values.

    Raises:
        ParameterError: names the unknown parameter and the nearest known one.
    """
    known = list(known)
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    ignored = {"In", "Out"}
    for name, value in namespace.items():
        if name.startswith("_") or name in {*ignored, *known} or not isinstance(value, plain):
            continue
        raise ParameterError(
            f"unknown parameter {name!r}{hint(name, known)} "
            f"Known: {', '.join(sorted(known))}. (In a running "
            "notebook a name that a later cell has set counts too: restart the kernel.)"
        )
    return {name: namespace[name] for name in known}


def hint(name: str, known: Iterable[str]) -> str:
    """ "; did you mean ...?" where a known name is near, else nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
