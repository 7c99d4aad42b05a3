"""Where corpora come from: files, `$G2LSTM_DATA`, the cache of generated ones, the hub.

Environment variables:
    G2LSTM_DATA: folder with a folder per corpus, `ptb/train.txt`, `multi30k/train.de` and so on;
        looked up before the hub.
    G2LSTM_CACHE: where embedded corpora are kept; default `~/.cache/g2lstm`.
    HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT: as everywhere in the Hugging Face libraries.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from g2lstm.files import (
    NotAFileError,
    file_checksum,
    read_bytes,
    read_json,
    remove_stale_parts,
    write_json,
)
from g2lstm.hub import HubError, HubText, fetch_columns
from g2lstm.text import CorpusError, lines_of

SPLITS = ("train", "valid", "test")
DIGESTS = "sha256.json"  # in a folder of the cache: of each of its files


def read_lines(path: Path, expected: str) -> tuple[list[str], str]:
    """The lines of a text file and the sha256 of its bytes.

    Raises:
        CorpusError: the file is missing (`expected` says what should be there), cannot be read, is
            a device or a pipe, or is not UTF-8.
    """
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing: {expected}.") from None
    except NotAFileError as error:
        raise CorpusError(str(error)) from None
    except OSError as error:
        raise CorpusError(
            f"cannot read {path}: {error.strerror}. Check its permissions."
        ) from error
    return lines_of(data, path), hashlib.sha256(data).hexdigest()


def data_root() -> Path | None:
    """The folder that `$G2LSTM_DATA` names, None where it is not set.

    Raises:
        CorpusError: it is no folder.
    """
    root = os.environ.get("G2LSTM_DATA")
    folder = existing_folder(root) if root else None
    if root and folder is None:
        raise CorpusError(f"G2LSTM_DATA is {root!r}, which is not a folder: correct or unset it.")
    return folder


def existing_folder(name: str) -> Path | None:
    """The folder of this name, in which "~" is the user's own; None where there is none."""
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # a name too long; "~nobody"
        return None


def cached(name: str, files: Collection[str], write: Callable[[Path], object]) -> Path:
    """The folder `name` of the cache, written anew where it is not intact.

    The sha256 of each of its files is kept beside them. Where one has changed since there is a
    warning.

    Args:
        name: of the folder.
        files: names of all that it should hold.
        write: writes the folder.

    Raises:
        CorpusError: the cache cannot be written.
    """
    try:
        root = os.environ.get("G2LSTM_CACHE") or Path.home() / ".cache" / "g2lstm"
        folder = Path(root).expanduser() / name
    except RuntimeError as error:
        raise CorpusError(
            f"the embedded corpus has no place: {error} Set G2LSTM_CACHE to a folder that can be "
            "written."
        ) from error
    remove_stale_parts(folder)
    if harmed := _harmed(folder, files):
        if os.path.lexists(folder / DIGESTS):  # else it was never written to its end
            warnings.warn(
                f"the embedded corpus in {folder} is not as it was written, it is made anew: "
                f"{', '.join(harmed)}",
                stacklevel=4,
            )
        try:
            write(folder)
            write_json(folder / DIGESTS, {file: file_checksum(folder / file) for file in files})
        except OSError as error:
            raise CorpusError(
                f"cannot keep the embedded corpus in {folder}: {error}. "
                "Set G2LSTM_CACHE to a folder that can be written."
            ) from error
    return folder


def _harmed(folder: Path, files: Iterable[str]) -> list[str]:
    """The files that are not as they were written."""
    try:
        known = read_json(folder / DIGESTS)
    except (OSError, ValueError):
        return [DIGESTS]
    harmed = []
    for file in files:
        try:
            intact = file_checksum(folder / file) == known.get(file)
        except OSError:
            intact = False
        harmed += [] if intact else [file]
    return harmed


def fetch(name: str, text: HubText, files: str, also: str) -> dict[str, list[list[str]]]:
    """The columns of each of `SPLITS` of a published corpus, from the hub.

    Args:
        name: of the corpus, and of the folder that would hold it.
        files: what that folder should hold, for the message of an error.
        also: what else was tried, for that message.

    Raises:
        CorpusError: the hub does not give it.
    """
    try:
        columns = fetch_columns(text)
    except HubError as error:
        raise CorpusError(
            f"cannot load {name!r} from the hub ({text}): {error}{also}. "
            f"Put {files}, one sentence a line, into a folder {name}/ "
            f"and set G2LSTM_DATA to the folder that holds {name}/; or connect to the hub once."
        ) from error
    return dict(zip(SPLITS, columns.values(), strict=True))


def checksum(lines: list[str]) -> str:
    """sha256 of the lines, stripped, as a file would hold them."""
    return hashlib.sha256("".join(f"{line.strip()}\n" for line in lines).encode()).hexdigest()
