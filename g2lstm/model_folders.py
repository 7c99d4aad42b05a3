"""Folders of models: written whole or not at all, read with errors that name the file."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from g2lstm.files import FULL, explained, name_aside, remove
from g2lstm.identity import read_record
from g2lstm.manifest import MANIFEST
from g2lstm.records import CONFIG


class ModelError(RuntimeError):
    """A folder holds no model, or one that does not fit what it is asked for."""


@contextmanager
def new_folder(out: Path | str, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes ``out`` if all goes well, and is removed otherwise.

    A model that is replaced is kept until then. Where the process is killed between the two last
    steps, which take no time, it is still there as ``<out>.replaced-<date>-<n>``.

    Raises:
        ModelError: ``out`` is there, and ``force`` is not set or it holds no model.
        WriteError: the disk is full.
    """
    out = Path(out)
    if out.exists() or out.is_symlink():
        ours = out.is_dir() and (out / CONFIG).exists() and (out / MANIFEST).exists()
        if not ours:
            raise ModelError(f"{out} is there and holds no model of g2lstm: choose another name")
        if not force:
            raise ModelError(f"{out} is there: choose another name, or replace it with --force")
    out.parent.mkdir(parents=True, exist_ok=True)
    old = name_aside(out)  # not in the scratch folder, with which it would go
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        folder = Path(scratch) / "new"
        folder.mkdir()
        try:
            yield folder
        except OSError as error:
            if error.errno in FULL:  # whatever file was copied there
                raise explained(error, out) from error
            raise
        try:
            if out.exists():
                out.rename(old)
            folder.rename(out)
        except BaseException:  # Ctrl-C too
            if old.exists() and not out.exists():
                old.rename(out)
            raise
    remove(old)


def read_part(directory: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a model's folder.

    Raises:
        ModelError: it is missing, damaged, another run's or something else; says what to do.
    """
    try:
        part = read_record(directory / name)
        if not isinstance(part, dict):
            raise ValueError(f"it is no JSON object, but of type {type(part).__name__}")
        return part
    except FileNotFoundError as error:
        raise ModelError(
            f"{directory} holds no model, for there is no {name} in it: name a run directory, such "
            "as runs/<task>/<corpus>/<preset>/<gate>/seed-1 (g2lstm runs lists them), or a model's "
            "folder"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{directory / name} cannot be read ({error}): put back a good copy of it, or of the "
            "whole folder"
        ) from error


@contextmanager
def describing(path: Path, what: str, but: type[Exception] | tuple = ()) -> Iterator[None]:
    """Turn what a file of the wrong content raises into a `ModelError`, ``but`` for this."""
    try:
        yield
    except but:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{path} describes no {what}: {type(error).__name__}: {error}") from error
