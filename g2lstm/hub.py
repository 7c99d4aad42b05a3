"""Text from parquet data sets of the Hugging Face hub: the local hub cache first, then the hub.

`datasets` and `huggingface_hub` are imported on use only: local corpora do without them.
"""

import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROBE_SECONDS = 4.0


class HubError(Exception):
    """A data set is neither in the local hub cache nor to be had from the hub; says why."""


@dataclass(frozen=True)
class HubText:
    """Where a data set of text keeps its lines.

    Attributes:
        repository: "owner/name".
        revision: branch, tag or commit.
        folder: of the repository, with parquet files whose paths hold the name of their split.
        field: the column with one line of text a row.
        splits: names of the splits there.
    """

    repository: str
    revision: str
    folder: str
    field: str
    splits: Sequence[str] = ("train", "validation", "test")

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}/{self.folder}"


def fetch_lines(text: HubText) -> dict[str, list[str]]:
    """The lines of each split.

    What is in the local hub cache is used without asking the hub. Before anything is downloaded,
    a probe of a few seconds finds out whether the hub answers, for the libraries retry for half a
    minute. Only parquet is read, no code from the hub is ever run.

    Raises:
        HubError: a library is missing; the hub is not reachable, or offline mode is on, or the
            download fails; the data set is not as described.
    """
    try:
        import datasets
        import huggingface_hub
    except ImportError as error:
        raise HubError(f"package {error.name!r} is missing (pip install datasets)") from error
    files = _parquet_files(text, local_files_only=True)
    if files is None:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise HubError("it is not in the local hub cache, and HF_HUB_OFFLINE is set")
        _probe(huggingface_hub.constants.ENDPOINT)
        try:
            files = _parquet_files(text, local_files_only=False)
        except Exception as error:  # the libraries raise errors of many kinds
            raise HubError(f"download failed with {type(error).__name__}: {error}") from error
    if files is None:
        raise HubError(f"{text} lacks parquet files of {', '.join(text.splits)}")
    rows = datasets.load_dataset("parquet", data_files=files)
    if text.field not in rows[text.splits[0]].column_names:
        found = ", ".join(rows[text.splits[0]].column_names)
        raise HubError(f"{text} has no field {text.field!r}; its fields are: {found}")
    return {split: list(rows[split][text.field]) for split in text.splits}


def _parquet_files(text: HubText, local_files_only: bool) -> dict[str, list[str]] | None:
    """Paths in the hub cache by split, None where a split has none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(
            text.repository,
            repo_type="dataset",
            revision=text.revision,
            allow_patterns=f"{text.folder}/*.parquet",
            local_files_only=local_files_only,
        )
    except LocalEntryNotFoundError:
        if local_files_only:
            return None
        raise
    folder = Path(snapshot) / text.folder
    paths = sorted(folder.rglob("*.parquet"))
    files = {
        split: [str(p) for p in paths if split in p.relative_to(folder).as_posix()]
        for split in text.splits
    }
    return files if all(files.values()) else None


def _probe(endpoint: str) -> None:
    """Raises HubError unless the endpoint answers, with whatever status, in `PROBE_SECONDS`."""
    failures: list[str] = []  # one entry as soon as it is known: "" where the endpoint answered

    def ask() -> None:
        try:
            request = urllib.request.Request(endpoint, method="HEAD")
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
            failures.append("")
        except urllib.error.HTTPError:
            failures.append("")
        except OSError as error:
            failures.append(str(getattr(error, "reason", error)))

    # In a thread, because the time-out of a socket does not cover the look-up of the name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    failure = failures[0] if failures else f"no answer in {PROBE_SECONDS:g} s"
    if failure:
        raise HubError(
            f"it is not in the local hub cache, and {endpoint} is not reachable ({failure})"
        )
