"""Text from data sets of the Hugging Face hub: the local hub cache first, then the hub.

`datasets` and `huggingface_hub` are imported on use only: local corpora do without them.
"""

import re
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
        folder: of the repository ("" for all of it), with files whose paths hold the name of
            their split.
        fields: the columns with one line of text a row; "translation.de" is a field in a field.
        splits: names of the splits there.
        suffix: of the files, "parquet" or "jsonl".
    """

    repository: str
    revision: str
    folder: str
    fields: tuple[str, ...]
    splits: Sequence[str] = ("train", "validation", "test")
    suffix: str = "parquet"

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}/{self.folder}".removesuffix("/")

    @property
    def pattern(self) -> str:
        """Of the paths of its files."""
        return f"{self.folder}/*.{self.suffix}".removeprefix("/")


def fetch_columns(text: HubText) -> dict[str, list[list[str]]]:
    """The lines of each field, in the order of `text.fields`, of each split.

    What is in the local hub cache is used without asking the hub. Before anything is downloaded,
    a probe of a few seconds finds out whether the hub answers, for the libraries retry for half a
    minute. Only data files are read, no code from the hub is ever run.

    Raises:
        HubError: a library is missing; the hub is not reachable, or offline mode is on, or the
            download fails; the data set is not as described.
    """
    try:
        import datasets
        import huggingface_hub
    except ImportError as error:
        raise HubError(f"package {error.name!r} is missing (pip install datasets)") from error
    files = _data_files(text, local_files_only=True)
    if files is None:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise HubError("it is not in the local hub cache, and HF_HUB_OFFLINE is set")
        _probe(huggingface_hub.constants.ENDPOINT)
        try:
            files = _data_files(text, local_files_only=False)
        except Exception as error:  # the libraries raise errors of many kinds
            raise HubError(f"download failed with {type(error).__name__}: {error}") from error
    if files is None:
        raise HubError(f"{text} lacks {text.suffix} files of {', '.join(text.splits)}")
    builder = "json" if text.suffix == "jsonl" else text.suffix
    try:
        rows = datasets.load_dataset(builder, data_files=files).flatten()
    except datasets.exceptions.DatasetGenerationError as error:
        raise HubError(f"files of {text} cannot be read: {error.__cause__ or error}") from error
    found = rows[text.splits[0]].column_names
    for field in text.fields:
        if field not in found:
            raise HubError(f"{text} has no field {field!r}; its fields are: {', '.join(found)}")
    return {
        # A value that is missing is an empty line.
        split: [[line or "" for line in rows[split][field]] for field in text.fields]
        for split in text.splits
    }


def _data_files(text: HubText, local_files_only: bool) -> dict[str, list[str]] | None:
    """Paths in the hub cache by split, None where a split has none or not all of its parts."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(
            text.repository,
            repo_type="dataset",
            revision=text.revision,
            allow_patterns=text.pattern,
            local_files_only=local_files_only,
        )
    except LocalEntryNotFoundError:
        if local_files_only:
            return None
        raise
    folder = Path(snapshot) / text.folder
    paths = sorted(folder.rglob(f"*.{text.suffix}"))
    files = {
        split: [str(p) for p in paths if split in p.relative_to(folder).as_posix()]
        for split in text.splits
    }
    return files if all(map(_complete, files.values())) else None


def _complete(paths: Sequence[str]) -> bool:
    """Whether there are files, and as many as "train-00000-of-00003.parquet" speaks of."""
    parts = re.search(r"-of-(\d+)", Path(paths[0]).name) if paths else None
    return len(paths) >= (int(parts[1]) if parts else 1)


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
