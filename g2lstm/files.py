"""Atomic writes, reads that end, and locks.

A reader sees the old file or the new one, never half of it. Devices and pipes are not read.
"""

import errno
import hashlib
import itertools
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

from filelock import FileLock

ASIDE = ".replaced-"  # in the names of folders that were kept aside
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PART_SECONDS = 60  # after which a temporary file that nobody wrote to is a killed process's


class WriteError(OSError):
    """A file cannot be written or deleted; says why and what to do.

    What a file held is intact; a folder that cannot be deleted may have lost a part.
    """


class NotAFileError(OSError):
    """What should be read is a device, a pipe or a socket: it may never end."""


def check_regular(path: Path | str) -> None:
    """See that reading ``path`` ends.

    Raises:
        NotAFileError: it is a device, a pipe or a socket. A folder fails when it is opened.
        OSError: there is nothing of this name, or it cannot be looked at.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise NotAFileError(
            f"{path} is a device, a pipe or a socket, which may never end: put what it gives into "
            "a file"
        )


def read_bytes(path: Path | str) -> bytes:
    """The content of a file.

    Raises:
        OSError: it is missing, cannot be read or is no file; see `check_regular`.
    """
    check_regular(path)
    return Path(path).read_bytes()


def read_text(path: Path | str) -> str:
    """The text of a file in UTF-8, with ``\\n`` line ends.

    Raises:
        OSError: see `read_bytes`.
        UnicodeDecodeError: it is not UTF-8.
    """
    check_regular(path)
    return Path(path).read_text(encoding="utf-8")


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
        raise explained(error, path, size) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8 with ``\\n`` line ends to ``path``, atomically.

    Half a character, as in a file's name that is no text, is written as an escape.
    """
    data = text.encode("utf-8", "backslashreplace")
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
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is no JSON object, but of type {type(value).__name__}")
    return value


def file_checksum(path: Path | str) -> str:
    """sha256 of a file's bytes.

    Raises:
        OSError: it is missing, cannot be read or is no file; see `check_regular`.
    """
    check_regular(path)
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def copy(source: Path | str, target: Path | str) -> None:
    """Copy a file, atomically; an error names the file that cannot be read or written.

    Raises:
        WriteError: ``target`` cannot be written.
        OSError: ``source`` cannot be read.
    """
    data = read_bytes(source)
    with replacing(target, len(data)) as temporary:
        temporary.write_bytes(data)


def remove_stale_parts(folder: Path) -> None:
    """Delete the temporary files that killed processes left in a folder, if it can be written."""
    for part in folder.glob(".*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > PART_SECONDS:
                part.unlink()


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


def name_aside(path: Path) -> Path:
    """A free name beside ``path`` for what is replaced: <name>.replaced-<date>-<n>."""
    names = (f"{path.name}{ASIDE}{date.today()}-{n}" for n in itertools.count(1))
    return next(free for free in map(path.with_name, names) if not os.path.lexists(free))


@contextmanager
def locked(path: Path | str, wait: bool = False) -> Iterator[None]:
    """Hold the lock ``path``, an empty file; it is made with its folder, and stays.

    A process that ends gives its locks back, killed or not.

    Args:
        path: of the file.
        wait: for another process that holds it.

    Raises:
        filelock.Timeout: another process holds it, and ``wait`` is not set.
        WriteError: what is there is no lock; it is left as it is.
        OSError: it cannot be made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_size:
            raise WriteError(
                f"{path} should be a lock, which is an empty file, but it is a link, a pipe, a "
                "folder or a file with content: delete it, or move it away"
            )
    with FileLock(path, timeout=-1 if wait else 0):
        yield


def explained(error: OSError, path: Path, size: int | None = None) -> WriteError:
    """The error of a write to ``path``, with what to do."""
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
