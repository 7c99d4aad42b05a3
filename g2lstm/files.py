"""Atomic writes: a reader sees the old file or the new one, never half of it."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WriteError(OSError):
    """A file cannot be written or deleted; says why and what to do.

    What a file held is intact; a folder that cannot be deleted may have lost a part.
    """


@contextmanager
def replacing(path: Path | str, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success it takes the place of ``path``.

    Folders are made as needed. On an exception the temporary file is removed and ``path`` is left
    as it was.

    Args:
        path: of the file.
        size: in bytes, for the message where there is no room for it.

    Raises:
        WriteError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files for the owner alone
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            temporary.unlink(missing_ok=True)  # now, so that its room counts as free
        raise _explained(error, path, size) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8 with ``\\n`` line ends to ``path``, atomically."""
    data = text.encode("utf-8")
    with replacing(path, len(data)) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it holds something else; names it.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is no JSON object, but of type {type(value).__name__}")
    return value


def remove(path: Path | str) -> None:
    """Delete a file or a folder with all it holds, if it is there.

    Raises:
        WriteError: it cannot be deleted; a part of a folder may be gone.
    """
    path = Path(path)
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(
            f"cannot delete {path}: {error.strerror or error}. Delete it yourself, or make its "
            "folder writable."
        ) from error


def _explained(error: OSError, path: Path, size: int | None) -> WriteError:
    if isinstance(error, WriteError):
        return error
    remedy = (
        "Make its folder writable, or choose another one (G2LSTM_RUNS, G2LSTM_RESULTS, "
        "G2LSTM_CACHE)"
    )
    if error.errno in FULL:
        needed = "" if size is None else f"{size / 1e6:.3f} MB are needed, "
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        free = shutil.disk_usage(folder).free
        remedy = f"{needed}{free / 1e6:.3f} MB are free: make room and run it again"
    elif path.is_dir():
        remedy = "It is a folder: move it away"
    explained = WriteError(
        f"cannot write {path}: {error.strerror or error}. {remedy}; what was there is intact."
    )
    explained.errno = error.errno
    return explained
