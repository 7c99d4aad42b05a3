"""A folder's manifest: size and sha256 of every file in it, so that a change is seen."""

import hashlib
from pathlib import Path
from typing import Any

from g2lstm.files import read_json, write_json

MANIFEST = "manifest.json"
# Not listed: the manifest itself, and what `make report` leaves beside the results.
UNSEALED = {MANIFEST, "report.html"}
FORMAT = "g2lstm manifest 1"


def is_hidden(path: Path) -> bool:
    """Whether a relative path is one that tools leave: of a name that begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def listed_files(folder: Path | str) -> dict[str, dict[str, Any]]:
    """``bytes`` and ``sha256`` of every file in the folder, by its path in it with "/".

    Hidden files and those named by `UNSEALED` are left out.
    """
    folder = Path(folder)
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not is_hidden(name) and name.as_posix() not in UNSEALED:
            content = path.read_bytes()
            found[name.as_posix()] = {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
    return found


def write_manifest(folder: Path | str) -> int:
    """Write ``manifest.json`` of the folder, atomically; the same files give the same manifest.

    Returns:
        The number of files it lists.

    Raises:
        FileNotFoundError: there is no such folder, or no file in it.
    """
    files = listed_files(folder)
    if not files:
        raise FileNotFoundError(f"{folder} holds no files: name a folder of results or of a model")
    write_json(Path(folder) / MANIFEST, {"format": FORMAT, "files": files})
    return len(files)


def differences(folder: Path | str) -> list[tuple[str, str]]:
    """Files that are not as the manifest of the folder lists them: (path, what is wrong).

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: it is damaged.
    """
    path = Path(folder) / MANIFEST
    try:
        content = read_json(path)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        wanted = {
            name: (entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no manifest ({type(error).__name__}: {error})") from error
    there = {
        name: (entry["bytes"], entry["sha256"]) for name, entry in listed_files(folder).items()
    }
    found = []
    for name in sorted(wanted.keys() | there.keys()):
        if name not in there:
            found.append((name, "is missing"))
        elif name not in wanted:
            found.append((name, "is not listed in the manifest"))
        elif there[name] != wanted[name]:
            found.append((name, "was changed: its sha256 is not the one in the manifest"))
    return found
