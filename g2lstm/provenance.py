"""Where a result comes from: commit, versions, hardware, command, time."""

import ast
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from g2lstm.products import about_processor, library

PACKAGE = Path(__file__).resolve().parent
LIBRARIES = (
    "torch", "numpy", "pandas", "safetensors", "datasets", "tokenizers", "sacrebleu", "sacremoses",
)  # fmt: skip


def provenance(command: str, **details: Any) -> dict[str, Any]:
    """Commit, versions, hardware and time of now, with ``command`` and ``details`` (JSON values).

    ``commit`` is None outside a git checkout; ``modified`` says whether the package, a benchmark
    or a notebook differed from the commit.
    """
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    # A copy of the package inside somebody else's repository has no commit of its own.
    ours = _git("ls-files", "--error-unmatch", "g2lstm/provenance.py") is not None
    commit = _git("rev-parse", "HEAD") if ours else None
    paths = ("g2lstm", "benchmarks/*.py", "notebooks/*.ipynb", "Snakefile")
    changes = _git("status", "--porcelain", "--", *paths)
    return {
        "command": command,
        "commit": commit,
        "modified": None if commit is None else bool(changes),
        "versions": versions,
        "hardware": hardware(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **details,
    }


def in_words(record: dict[str, Any]) -> str:
    """What `provenance` made, with the load of the machine as ``load``, as one line of text."""
    machine, state = record["hardware"], " with changes" if record["modified"] else ""
    processors = f"{machine['gpu']}, " if machine["gpu"] else ""
    processors += f"{machine['processor']}, {machine['cores']} cores"
    if machine.get("products") == "onednn":
        processors += ", products by oneDNN"
    return (
        f"Commit {record['commit']}{state}, torch {record['versions']['torch']}, Python "
        f"{record['versions']['python']}, {processors} "
        f"(load at the start {record['load']}), {record['time']}: `{record['command']}`"
    )


def hardware() -> dict[str, Any]:
    """Processor, cores, GPU (None: no GPU), and what torch uses of them.

    ``products`` is the library of the large float32 products on the CPU, see `products.library`.
    """
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "products": library(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def processor() -> str:
    """Name of the processor."""
    return about_processor("model name") or platform.processor() or platform.machine()


def code_checksum(modules: tuple[str, ...]) -> str:
    """sha256 over ``modules`` of this package as parsed: comments and docstrings do not count."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(_essence((PACKAGE / f"{module}.py").read_text(encoding="utf-8")).encode())
    return digest.hexdigest()


@cache
def _essence(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            first = body[0].value
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                first.value = ""
    return ast.dump(tree)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=PACKAGE.parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
