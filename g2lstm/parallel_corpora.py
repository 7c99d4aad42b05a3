"""Corpora of translated sentences: the embedded one, Multi30k, IWSLT'14, WMT'14, any folder.

A folder holds {train,valid,test}.{language}, UTF-8, one sentence a line; line n of one language
translates line n of the other. The environment variables are those of `g2lstm.corpora`.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from g2lstm.corpora import SPLITS, CorpusError, data_root, read_lines

STEMS = {  # of files, the usual one first
    "train": ("train", "train_subset"),
    "valid": ("valid", "val"),
    "test": ("test", "test2016", "test_2016_flickr"),
}


@dataclass(frozen=True)
class ParallelCorpus:
    """Pairs of sentences, as text: white space is single spaces, all else as it was.

    Attributes:
        name: one of `PARALLEL_NAMES`, or the name of the folder.
        source_language, target_language: as in the names of files, "de".
        train, valid, test: source sentences, target sentences.
        checksums: from "train.de" to sha256 of the file's bytes (from the hub, of the lines).
        origin: the folder the text was read from, or "hub: " and its repository and revision.
        counts: of each split: "pairs" as read, "kept", "empty" (dropped), "too_long" (dropped
            from train, kept in valid and test).
        tokenised: "moses" where the text is as Moses' tokenizer leaves it, with escapes such as
            `&apos;`; None where it is raw.
        clauses: of each test pair, the target text of its reordered subordinate clauses; known
            for the embedded corpus with target "en", else None.
    """

    name: str
    source_language: str
    target_language: str
    train: tuple[list[str], list[str]]
    valid: tuple[list[str], list[str]]
    test: tuple[list[str], list[str]]
    checksums: dict[str, str]
    origin: str
    counts: dict[str, dict[str, int]]
    tokenised: str | None = None
    clauses: list[tuple[str, ...]] | None = None


@dataclass(frozen=True)
class _Published:
    folders: tuple[str, ...]  # of $G2LSTM_DATA
    pairs: dict[str, int]


_PUBLISHED = {
    "multi30k": _Published(
        ("multi30k", "multi30k-de-en"), {"train": 29_000, "valid": 1_014, "test": 1_000}
    ),
    "iwslt14": _Published(
        ("iwslt14", "iwslt14-de-en"), {"train": 160_239, "valid": 7_283, "test": 6_750}
    ),
    "wmt14": _Published(
        ("wmt14", "wmt14-en-de", "wmt14-en-de-sample"),
        {"train": 4_508_785, "valid": 3_000, "test": 3_003},
    ),
}
PARALLEL_NAMES = ("grammar", *_PUBLISHED)


def load_parallel(
    name_or_path: str | os.PathLike, source: str = "de", target: str = "en", max_length: int = 100
) -> ParallelCorpus:
    """Load a corpus of translated sentences by name or from a folder."""
    name = os.fspath(name_or_path)
    if name in _PUBLISHED:
        root = data_root()
        folders = [root / folder for folder in _PUBLISHED[name].folders] if root else []
        folder = next((folder for folder in folders if folder.is_dir()), None)
    else:
        folder = Path(name).expanduser()
    if folder is None or not folder.is_dir():
        raise CorpusError(f"unknown corpus {name!r}")
    lines, checksums = {}, {}
    for split in SPLITS:
        for language in (source, target):
            lines[split, language], checksums[f"{split}.{language}"] = read_lines(
                _file(folder, split, language), "a folder"
            )
    texts, counts = {}, {}
    for split in SPLITS:
        pairs = [
            (" ".join(a.split()), " ".join(b.split()))
            for a, b in zip(lines[split, source], lines[split, target], strict=True)
        ]
        full = [pair for pair in pairs if all(pair)]
        short = [p for p in full if max(len(s.split()) for s in p) <= max_length]
        kept = short if split == "train" else full
        texts[split] = tuple(map(list, zip(*kept, strict=True)))
        counts[split] = {
            "pairs": len(pairs),
            "kept": len(kept),
            "empty": len(pairs) - len(full),
            "too_long": len(full) - len(short),
        }
    return ParallelCorpus(
        name if name in _PUBLISHED else folder.resolve().name,
        source,
        target,
        **texts,
        checksums=checksums,
        origin=str(folder.resolve()),
        counts=counts,
        tokenised=_tokenised(texts),
    )


def _file(folder: Path, split: str, language: str) -> Path:
    paths = [folder / f"{stem}.{language}" for stem in STEMS[split]]
    return next((path for path in paths if path.exists()), paths[0])


def _tokenised(texts: dict[str, tuple[list[str], list[str]]]) -> str | None:
    """Moses' tokenizer leaves (almost) no quote without an escape."""
    sentences = [sentence for side in texts["test"] for sentence in side]
    escaped = sum(re.search("&(?:apos|quot);", sentence) is not None for sentence in sentences)
    plain = sum(re.search("['\"]", sentence) is not None for sentence in sentences)
    return "moses" if escaped > plain else None
