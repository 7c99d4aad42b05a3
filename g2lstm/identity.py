"""Which run a file belongs to: a header in every file of a run, checked wherever one is read.

The files are those of a run directory, of a folder of a model made from one, and of a published
run: records (JSON), metrics (a line an epoch, the header first) and tensors (safetensors). A header
holds::

    format       `FORMAT`
    run          <task>/<corpus>/<preset>/<gate and its settings>/seed-<n>
    fingerprint  of settings, code and data: what decides the run
    file         the name of the file itself
    sha256       of header and content
    files        in summary.json, which a run writes last: sha256 of each of the run's other files

``config.json`` says which run a folder holds, and every other file in it has to name the same one.
Runs of the first format have no headers. A folder is of that format if its ``config.json`` has
none; then a file that has one belongs to another run.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from g2lstm.files import file_checksum, read_json, read_text, write_text

FORMAT = "g2lstm run 2"
CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
SUBFOLDERS = ("state", "measurements")  # of a run's folder
KEYS = ("run", "fingerprint")


def run_of(path: Path | str) -> dict[str, str] | None:
    """The run in whose folder a file lies: ``run`` and ``fingerprint``.

    Returns:
        None where there is no ``config.json``, or one of the first format.

    Raises:
        OSError, ValueError: ``config.json`` cannot be read or is damaged.
    """
    config = _folder(path) / CONFIG
    try:
        header, _ = _parts(read_json(config))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{config}: {error}") from error
    return header and {key: header[key] for key in KEYS}


def new_header(path: Path | str, run: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """The header, but for the checksum, of a file to be written.

    Args:
        path: of the file.
        run: as `run_of` returns it; default: that of the folder.

    Returns:
        None where the folder's files have none.
    """
    run = run or run_of(path)
    return run and {"format": FORMAT, **run, "file": Path(path).name}


def check_header(path: Path | str, header: Any) -> None:
    """See that a file belongs to the run in whose folder it lies.

    Args:
        path: of the file.
        header: as it stands there, None where there is none.

    Raises:
        ValueError: it belongs to another run, or is not the file that the run ended with.
    """
    path, run = Path(path), run_of(path)
    if header is None and run is None:
        return
    if header is None:
        raise ValueError(f"it does not say that it belongs to the run {_name(run)}")
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("its header is of a format that this version of g2lstm does not know")
    if run is None:
        if (_folder(path) / CONFIG).exists():
            raise ValueError(f"it belongs to the run {_name(header)}, {CONFIG} to another one")
        return
    if any(header.get(key) != run[key] for key in KEYS):
        raise ValueError(f"it belongs to the run {_name(header)}, not to {_name(run)}")
    if header.get("file") != path.name:
        raise ValueError(f"it is the run's {header.get('file')}, not its {path.name}")
    sealed = _sealed(path, run)
    if sealed is not None and sealed != file_checksum(path):
        raise ValueError(f"it is not the one that the run ended with, by its sha256 in {SUMMARY}")


def write_record(
    path: Path | str,
    content: dict[str, Any] | Sequence[Any],
    run: Mapping[str, str] | None = None,
    files: Iterable[Path] = (),
    indent: int | None = 2,
) -> None:
    """Write ``content`` as JSON, atomically, with a header where it lies in the folder of a run.

    Args:
        path: of the file.
        content: a JSON object or array; NaN and infinity are refused.
        run: see `new_header`.
        files: the others of the run, for the last one, ``summary.json``.
        indent: None: all in one line.
    """
    header = new_header(path, run)
    if header is not None:
        if files:
            header["files"] = {file.name: file_checksum(file) for file in files}
        content = json.loads(json.dumps(content, allow_nan=False))
        header["sha256"] = _checksum(header, content)
        named = content if isinstance(content, dict) else {"values": content}
        content = {"header": header, **named}
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def write_rows(path: Path | str, rows: Sequence[dict[str, Any]]) -> None:
    """Write a line of JSON a row, atomically; the first one has the header, if there is one."""
    header = new_header(path)
    lines = list(rows)
    if header is not None:
        header["sha256"] = _checksum(header, json.loads(json.dumps(lines)))
        lines.insert(0, {"header": header})
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def read_record(path: Path | str) -> Any:
    """The JSON value in a file, without its header.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError, RecursionError: it is no JSON, changed, or another run's.
    """
    return _checked(path, json.loads(read_text(path)))


def read_rows(path: Path | str) -> list[Any]:
    """The values in a file that has one a line, without the header.

    Raises:
        OSError, ValueError, RecursionError: see `read_record`.
    """
    rows = [json.loads(line) for line in read_text(path).splitlines()]
    if rows and isinstance(rows[0], dict) and "header" in rows[0]:
        return _checked(path, rows[0] | {"values": rows[1:]})
    return _checked(path, rows)


def _checked(path: Path | str, value: Any) -> Any:
    header, content = _parts(value)
    check_header(path, header)
    return content


def _parts(value: Any) -> tuple[Any, Any]:
    """Header and content, the checksum compared."""
    if not isinstance(value, dict) or "header" not in value:
        return None, value
    content = {name: part for name, part in value.items() if name != "header"}
    content = content["values"] if content.keys() == {"values"} else content
    header = value["header"]
    if not isinstance(header, dict) or not all(isinstance(header.get(key), str) for key in KEYS):
        raise ValueError("its header is damaged")
    known = header.get("sha256")
    if known != _checksum({k: part for k, part in header.items() if k != "sha256"}, content):
        raise ValueError("its content does not match its checksum: it was changed")
    return header, content


def _checksum(header: Mapping[str, Any], content: Any) -> str:
    return hashlib.sha256(json.dumps([header, content], sort_keys=True).encode()).hexdigest()


def _sealed(path: Path, run: Mapping[str, str]) -> str | None:
    """What the run's summary says of a file; None where there is none, or none to be believed."""
    folder = _folder(path)
    if path.parent != folder or path.name == SUMMARY:
        return None
    try:
        header, _ = _parts(read_json(folder / SUMMARY))
        own = all(header[key] == run[key] for key in KEYS) and header["file"] == SUMMARY
        return header["files"].get(path.name) if own else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # whoever reads the summary is told


def _folder(path: Path | str) -> Path:
    parent = Path(path).parent
    return parent.parent if parent.name in SUBFOLDERS else parent


def _name(run: Mapping[str, Any]) -> str:
    return f"{run.get('run')} (fingerprint {str(run.get('fingerprint'))[:12]})"
