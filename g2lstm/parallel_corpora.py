"""Corpora of translated sentences: the embedded one, Multi30k, IWSLT'14, WMT'14, any folder.

A folder holds {train,valid,test}.{language}, UTF-8, one sentence a line; line n of one language
translates line n of the other. The environment variables are those of `g2lstm.corpus_sources`.
"""

import difflib
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from g2lstm import parallel_grammar
from g2lstm.corpus_sources import (
    SPLITS,
    CorpusError,
    cached,
    checksum,
    data_root,
    existing_folder,
    fetch,
    read_lines,
)
from g2lstm.hub import HubText
from g2lstm.text import prepared

STEMS = {  # of files, the usual one first
    "train": ("train", "train_subset"),
    "valid": ("valid", "val"),
    "test": ("test", "test2016", "test_2016_flickr"),
}
Pairs = tuple[list[str], list[str]]


@dataclass(frozen=True)
class ParallelCorpus:
    """Pairs of sentences, as text: white space is single spaces, all else is as it was.

    Attributes:
        name: one of `PARALLEL_NAMES`, or the name of the folder.
        source_language, target_language: as in the names of files, "de".
        train, valid, test: source sentences, target sentences.
        checksums: from "train.de" to sha256 of the file's bytes (from the hub, the stripped lines).
        origin: the folder the text was read from, or "hub: " and its repository and revision.
        counts: of each split, the number of pairs: "pairs" in all, "kept", "empty" (a side was
            empty: dropped), "too_long" (dropped from train, kept in valid and test).
        tokenised: "moses" where the text is as Moses' tokenizer leaves it, with escapes such as
            `&apos;`; None where it is raw.
        clauses: of each test pair, the target text of its reordered subordinate clauses; known
            for the embedded corpus with target "en", else None.
    """

    name: str
    source_language: str
    target_language: str
    train: Pairs
    valid: Pairs
    test: Pairs
    checksums: dict[str, str]
    origin: str
    counts: dict[str, dict[str, int]]
    tokenised: str | None
    clauses: list[tuple[str, ...]] | None = None


@dataclass(frozen=True)
class _Published:
    folders: tuple[str, ...]  # of $G2LSTM_DATA
    text: HubText  # with a pattern for the field of a language
    pairs: dict[str, tuple[int, ...]]  # of a split, in each form it is known in


LANGUAGES = ("de", "en")  # of the published corpora on the hub
_NESTED = ("translation.{}",)
_PUBLISHED = {
    "multi30k": _Published(
        ("multi30k", "multi30k-de-en"),
        HubText("bentrevett/multi30k", "main", "", ("{}",), ("train", "val", "test"), "jsonl"),
        {"train": (29_000,), "valid": (1_014,), "test": (1_000,)},
    ),
    "iwslt14": _Published(
        ("iwslt14", "iwslt14-de-en"),
        # The converted revision, for the main one is a script, which `datasets` refuses to run.
        HubText("bbaaaa/iwslt14-de-en-preprocess", "refs/convert/parquet", "de-en", _NESTED),
        {"train": (160_239,), "valid": (7_283,), "test": (6_750,)},
    ),
    "wmt14": _Published(
        ("wmt14", "wmt14-en-de", "wmt14-en-de-sample"),
        HubText("wmt/wmt14", "main", "de-en", _NESTED),
        # newstest2013, or, as in the paper, newstest2012 and newstest2013; newstest2014.
        {"train": (4_508_785,), "valid": (3_000, 6_003), "test": (3_003,)},
    ),
}
PARALLEL_NAMES = ("grammar", *_PUBLISHED)


def load_parallel(
    name_or_path: str | os.PathLike, source: str = "de", target: str = "en", max_length: int = 100
) -> ParallelCorpus:
    """Load a corpus of translated sentences by name, or from a folder.

    "grammar" is generated on its first use and kept in the cache. The others are taken from a
    folder of `$G2LSTM_DATA` (`multi30k/`, `iwslt14/`, `wmt14/`) if it exists, else from the local
    hub cache, else from the hub. The paper validates WMT'14 on newstest2012 and newstest2013: a
    folder may hold both in its files ``valid``, the hub has the latter alone. Files of a published
    corpus that are not as many pairs as it has are used with a warning.

    Args:
        name_or_path: one of `PARALLEL_NAMES`, or a folder with a file per split and language.
        source: language to translate from.
        target: language to translate into.
        max_length: training pairs with more words (between white space) on a side are dropped.

    Raises:
        CorpusError: the name or a language is unknown, the languages are equal, or max_length is
            below 1; a file is missing, not UTF-8 or out of step with the other language's; a split
            has no pair left; the hub is not reachable (found out in seconds); the cache cannot be
            written.
    """
    name, languages = os.fspath(name_or_path), (source, target)
    if source == target:
        raise CorpusError(f"source and target are both {source!r}: give two languages.")
    if max_length < 1:
        raise CorpusError(f"max_length is {max_length!r}: it should be at least 1.")
    origin, splits = _read(name, languages)
    texts, counts, checksums, clauses = {}, {}, {}, None
    for split, sides in splits.items():
        texts[split], counts[split] = _select(split, sides, max_length)
        for language, side in zip(languages, sides, strict=True):
            checksums[f"{split}.{language}"] = side.checksum
    if name == "grammar" and target == "en":
        clauses = [pair.clauses for pair in parallel_grammar.read_pairs(origin, "test")]
    corpus = ParallelCorpus(
        name if name in PARALLEL_NAMES else Path(origin).name,
        *languages,
        **texts,
        checksums=checksums,
        origin=origin,
        counts=counts,
        tokenised=_tokenised(texts["test"]),
        clauses=clauses,
    )
    for doubt in _doubts(corpus, _PUBLISHED[name].pairs if name in _PUBLISHED else {}):
        warnings.warn(f"{corpus.name} {doubt}", stacklevel=2)
    return corpus


def describe(corpus: ParallelCorpus) -> pd.DataFrame:
    """A row a split: `counts`, and the words of the pairs that are kept, a column a language."""
    rows = []
    for split in SPLITS:
        source, target = (sum(len(s.split()) for s in side) for side in getattr(corpus, split))
        words = {
            f"words {corpus.source_language}": source,
            f"words {corpus.target_language}": target,
        }
        rows.append({"split": split, **corpus.counts[split], **words})
    return pd.DataFrame(rows).set_index("split")


def local_files(
    name_or_path: str | os.PathLike, source: str = "de", target: str = "en"
) -> list[Path]:
    """The files that `load_parallel` would read; none for a corpus from a cache or from the hub."""
    folder = _local_folder(os.fspath(name_or_path))
    if folder is None:
        return []
    paths = [_path(folder, split, language) for split in SPLITS for language in (source, target)]
    return [path for path in paths if path.is_file()]


class _Side(NamedTuple):
    """One language of a split."""

    place: str
    lines: list[str]
    checksum: str


def _read(name: str, languages: tuple[str, str]) -> tuple[str, dict[str, list[_Side]]]:
    """The origin of a corpus, and the two sides of each split."""
    if name == "grammar":
        kinds = ("de", "en", "clauses.jsonl")
        files = [f"{split}.{kind}" for split in SPLITS for kind in kinds]
        folder = cached(
            f"parallel-grammar-{parallel_grammar.fingerprint()}",
            [*files, "manifest.json"],
            parallel_grammar.write_corpus,
        )
        return _read_folder(folder, languages)
    folder = _local_folder(name)
    if folder is not None:
        return _read_folder(folder, languages)
    if name in _PUBLISHED:
        also = "".join(f"; {folder} does not exist" for folder in _data_folders(name))
        return _read_hub(name, languages, also)
    close = difflib.get_close_matches(name.lower(), PARALLEL_NAMES, n=1)
    raise CorpusError(
        f"unknown corpus {name!r}: neither a name nor a folder."
        + (f" Did you mean {close[0]!r}?" if close else "")
        + f" Names: {', '.join(PARALLEL_NAMES)}; or give a folder with {_files(languages)}."
    )


def _data_folders(name: str) -> list[Path]:
    root = data_root()
    return [root / folder for folder in _PUBLISHED[name].folders] if root else []


def _local_folder(name: str) -> Path | None:
    """The folder of a published corpus or of a user's own; None where there is none."""
    if name == "grammar":
        return None
    if name not in _PUBLISHED:
        return existing_folder(name)
    return next((folder for folder in _data_folders(name) if folder.is_dir()), None)


def _read_folder(folder: Path, languages: tuple[str, str]) -> tuple[str, dict[str, list[_Side]]]:
    try:
        present = {path.suffix[1:] for path in folder.iterdir() if path.stem in STEMS["train"]}
    except OSError as error:
        raise CorpusError(
            f"cannot read {folder}: {error.strerror}. Check its permissions."
        ) from error
    for language in languages:
        if present and language not in present:
            raise CorpusError(
                f"{folder} has no training text in {language!r}; languages there: "
                f"{', '.join(sorted(present))}."
            )
    expected = f"a folder of translated sentences holds {_files(languages)}, UTF-8"
    splits = {}
    for split in SPLITS:
        paths = [_path(folder, split, language) for language in languages]
        splits[split] = [_Side(str(path), *read_lines(path, expected)) for path in paths]
    return str(folder.resolve()), splits


def _path(folder: Path, split: str, language: str) -> Path:
    paths = [folder / f"{stem}.{language}" for stem in STEMS[split]]
    return next((path for path in paths if path.exists()), paths[0])


def _files(languages: tuple[str, str]) -> str:
    return f"{{{','.join(SPLITS)}}}.{{{','.join(languages)}}}"


def _read_hub(
    name: str, languages: tuple[str, str], also: str
) -> tuple[str, dict[str, list[_Side]]]:
    for language in languages:
        if language not in LANGUAGES:
            raise CorpusError(f"{name} has no {language!r}; its languages: {', '.join(LANGUAGES)}.")
    text = _PUBLISHED[name].text
    text = replace(text, fields=tuple(map(text.fields[0].format, languages)))
    splits = {}
    for split, columns in fetch(name, text, _files(languages), also).items():
        places = [f"{language} of the {split} split of {text}" for language in languages]
        splits[split] = [_Side(*p, checksum(p[1])) for p in zip(places, columns, strict=True)]
    return f"hub: {text}", splits


def _select(split: str, sides: list[_Side], max_length: int) -> tuple[Pairs, dict[str, int]]:
    """The pairs of a split that are of use, and how many are not."""
    source, target = sides
    for side in sides:
        if not any(map(str.strip, side.lines)):
            raise CorpusError(f"{side.place} is empty: it needs at least one line with a word.")
    total = len(source.lines)
    if total != len(target.lines):
        raise CorpusError(
            f"{source.place} has {total} lines, {target.place} has {len(target.lines)}: line n of "
            "one has to translate line n of the other."
        )
    full, short = [], []
    for pair in zip(source.lines, target.lines, strict=True):
        a, b = map(prepared, pair)
        if a and b:
            full.append((a, b))
            if max(a.count(" "), b.count(" ")) < max_length:
                short.append((a, b))
    # Over-long sentences stay in valid and test: without them the score would be flattered.
    kept = short if split == "train" else full
    empty, too_long = total - len(full), len(full) - len(short)
    if not kept:
        raise CorpusError(
            f"{split} has no pair left of {total}: {empty} with an empty side, {too_long} with "
            f"more than {max_length} words on a side ({source.place} and {target.place})."
        )
    counts = {"pairs": total, "kept": len(kept), "empty": empty, "too_long": too_long}
    return tuple(map(list, zip(*kept, strict=True))), counts


def _doubts(corpus: ParallelCorpus, published: dict[str, tuple[int, ...]]) -> Iterator[str]:
    """What a user should know about the scores."""
    empty = [f"{corpus.counts[s]['empty']} of {s}" for s in SPLITS[1:] if corpus.counts[s]["empty"]]
    if empty:
        yield f"has pairs with an empty side, left out: {', '.join(empty)}. Scores lack them."
    differences = [
        f"{split} has {corpus.counts[split]['pairs']} pairs, published "
        + " or ".join(map(str, known))
        for split, known in published.items()
        if corpus.counts[split]["pairs"] not in known
    ]
    if differences:
        yield (
            f"is not the published corpus: {'; '.join(differences)}. "
            "BLEU cannot be compared with published numbers."
        )


def _tokenised(pairs: Pairs) -> str | None:
    """From the text: Moses' tokenizer leaves (almost) no quotation mark without an escape."""
    sentences = [sentence for side in pairs for sentence in side]
    escaped = sum(re.search("&(apos|quot);", sentence) is not None for sentence in sentences)
    plain = sum(re.search("['\"]", sentence) is not None for sentence in sentences)
    return "moses" if escaped > plain else None
