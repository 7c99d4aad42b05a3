"""Corpora for language modelling: the embedded one, Penn Treebank, WikiText-2, any folder.

A line is a sentence: its tokens are what stands between white space, and `<eos>` is appended. A
blank line is an `<eos>` alone, as in the authors' code (`data.py` of awd-lstm-lm); WikiText-2's
published token counts include these, Penn Treebank has none.

The environment variables are those of `g2lstm.corpus_sources`.
"""

import difflib
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from g2lstm import grammar
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
from g2lstm.files import read_json
from g2lstm.hub import HubText
from g2lstm.text import prepared

UNKNOWN, END = "<unk>", "<eos>"
FLOOR = "floor.json"  # of the embedded corpus: its entropy


class Vocabulary:
    """Tokens and their indices 0, 1, ...; holds `<unk>` and `<eos>`.

    Attributes:
        tokens: list of the tokens, as given.
        index: dict from token to index.

    Raises:
        ValueError: a token appears twice, or `<unk>` or `<eos>` is missing.
    """

    def __init__(self, tokens: Iterable[str]):
        self.tokens = list(tokens)
        self.index = {token: i for i, token in enumerate(self.tokens)}
        if len(self.index) < len(self.tokens):
            double = next(t for t, count in Counter(self.tokens).items() if count > 1)
            raise ValueError(f"token {double!r} appears twice in the vocabulary")
        for special in (UNKNOWN, END):
            if special not in self.index:
                raise ValueError(f"the vocabulary lacks {special}")

    @classmethod
    def from_sentences(cls, sentences: Iterable[Sequence[str]]) -> "Vocabulary":
        """All tokens, `<eos>` once per sentence, by falling frequency, ties by first appearance.

        `<unk>` has its place by frequency where the text holds it, else the last one.
        """
        counts: Counter[str] = Counter()
        for sentence in sentences:
            counts.update(sentence)
            counts[END] += 1
        counts[UNKNOWN] += 0
        counts[END] += 0
        return cls(token for token, _ in counts.most_common())

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, tokens: Sequence[str]) -> list[int]:
        """Indices of tokens, that of `<unk>` for those it does not hold."""
        if isinstance(tokens, str):
            raise TypeError(f"encode takes a list of tokens, got the string {tokens!r}: split it")
        unknown = self.index[UNKNOWN]
        return [self.index.get(token, unknown) for token in tokens]

    def decode(self, indices: Iterable[int]) -> list[str]:
        """Tokens of indices (a list, or a 1-D integer tensor)."""
        return [self.tokens[i] for i in indices]


@dataclass(frozen=True)
class Corpus:
    """A corpus, encoded.

    Attributes:
        name: "grammar", "ptb", "wikitext-2", or the name of the folder.
        vocabulary: of the training split.
        train, valid, test: 1-D int64 tensors of indices, an `<eos>` after each sentence.
        checksums: sha256 of each split's text (a file's bytes; from the hub, the stripped lines).
        source: the folder the text was read from, or "hub: " and its repository and revision.
        unseen: of each split, the number of tokens that the training split lacks; they are encoded
            as `<unk>`. Where the training split has no `<unk>` that one is never trained.
        entropy_floor: nats per token (`<eos>` counted) of the true model on the test split, which
            no other is expected to beat; known for the embedded corpus, else None.
    """

    name: str
    vocabulary: Vocabulary
    train: torch.Tensor
    valid: torch.Tensor
    test: torch.Tensor
    checksums: dict[str, str]
    source: str
    unseen: dict[str, int]
    entropy_floor: float | None = None

    @property
    def knows_unknown(self) -> bool:
        """Whether `<unk>` stands in the training split, so that it means something."""
        return bool((self.train == self.vocabulary.index[UNKNOWN]).any())


@dataclass(frozen=True)
class _Published:
    text: HubText
    tokens: dict[str, int]  # of each split, with <eos>
    checksums: dict[str, str]  # of each split's file, where one form of it is the usual one


_PUBLISHED = {
    "ptb": _Published(
        # The converted revision, for the main one is a script, which `datasets` refuses to run.
        HubText(
            "ptb-text-only/ptb_text_only", "refs/convert/parquet", "penn_treebank", ("sentence",)
        ),
        tokens={"train": 929_589, "valid": 73_760, "test": 82_430},
        checksums={  # Mikolov's ptb.train.txt, ptb.valid.txt, ptb.test.txt
            "train": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            "valid": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            "test": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        },
    ),
    "wikitext-2": _Published(
        HubText("Salesforce/wikitext", "main", "wikitext-2-v1", ("text",)),
        tokens={"train": 2_088_628, "valid": 217_646, "test": 245_569},
        checksums={},
    ),
}
NAMES = ("grammar", *_PUBLISHED)


def load_corpus(name_or_path: str | os.PathLike) -> Corpus:
    """Load a corpus by name, or from a folder with train.txt, valid.txt and test.txt (UTF-8).

    "grammar" is generated on its first use and kept in the cache. "ptb" and "wikitext-2" are taken
    from `$G2LSTM_DATA/<name>/` if that folder exists, else from the local hub cache, else from the
    hub. Files of a published corpus that are not the published ones are used with a warning.

    Raises:
        CorpusError: the name is unknown; a folder or file is missing, empty, not UTF-8 or holds
            `<eos>` itself; the hub is not reachable (found out in seconds); the cache cannot be
            written.
    """
    name = os.fspath(name_or_path)
    if name == "grammar":
        return _load_grammar()
    if name in _PUBLISHED:
        return _load_published(name)
    folder = existing_folder(name)
    if folder:
        return _load_folder(folder.resolve().name, folder)
    close = difflib.get_close_matches(name.lower(), NAMES, n=1)
    raise CorpusError(
        f"unknown corpus {name!r}: neither a name nor a folder."
        + (f" Did you mean {close[0]!r}?" if close else "")
        + f" Names: {', '.join(NAMES)}; or give a folder with train.txt, valid.txt and test.txt."
    )


def _load_grammar() -> Corpus:
    files = [f"{split}.{kind}" for split in SPLITS for kind in ("txt", "annotations.jsonl")]
    folder = cached(f"grammar-{grammar.fingerprint()}", [*files, FLOOR], grammar.write_corpus)
    floor = read_json(folder / FLOOR)["splits"]["test"]["cross_entropy"]
    return _load_folder("grammar", folder, floor)


def _load_folder(name: str, folder: Path, entropy_floor: float | None = None) -> Corpus:
    lines, checksums = {}, {}
    for split in SPLITS:
        lines[split], checksums[split] = read_lines(
            folder / f"{split}.txt",
            "a corpus folder holds train.txt, valid.txt and test.txt, UTF-8, one sentence a line",
        )
    places = {split: str(folder / f"{split}.txt") for split in SPLITS}
    corpus = _encode(name, lines, places, checksums, str(folder.resolve()))
    return replace(corpus, entropy_floor=entropy_floor)


def _encode(
    name: str,
    lines: dict[str, list[str]],
    places: dict[str, str],
    checksums: dict[str, str],
    source: str,
) -> Corpus:
    sentences = {split: [prepared(line).split() for line in lines[split]] for split in SPLITS}
    for split, place in places.items():
        if not any(sentences[split]):
            raise CorpusError(f"{place} is empty: it needs at least one line with a token.")
        for number, sentence in enumerate(sentences[split], start=1):
            if END in sentence:
                raise CorpusError(
                    f"line {number} of {place} holds {END}, which is appended to every line on "
                    "loading: remove it from the text."
                )
    vocabulary = Vocabulary.from_sentences(sentences["train"])
    encoded, unseen = {}, {}
    for split in SPLITS:
        flat = [token for sentence in sentences[split] for token in (*sentence, END)]
        encoded[split] = torch.tensor(vocabulary.encode(flat), dtype=torch.int64)
        unseen[split] = sum(token not in vocabulary.index for token in flat)
    corpus = Corpus(name, vocabulary, **encoded, checksums=checksums, source=source, unseen=unseen)
    if any(unseen.values()) and not corpus.knows_unknown:
        counts = ", ".join(
            f"{unseen[split]} of {len(encoded[split])} tokens of {split}"
            for split in SPLITS
            if unseen[split]
        )
        warnings.warn(
            f"{counts} were never seen in training, in {name} from {source}. They are taken for "
            f"{UNKNOWN}, which the training text never holds either: what the model says of them "
            f"means nothing. Put {UNKNOWN} in the place of rare words in all three files.",
            stacklevel=4,
        )
    return corpus


def _load_published(name: str) -> Corpus:
    published = _PUBLISHED[name]
    root = data_root()
    folder = root / name if root else None
    if folder and folder.is_dir():
        corpus = _load_folder(name, folder)
        _compare(corpus, published.tokens, published.checksums)
    else:
        corpus = _load_hub(name, published.text, f"; {folder} does not exist" if folder else "")
        _compare(corpus, published.tokens, {})
    return corpus


def _load_hub(name: str, text: HubText, also: str) -> Corpus:
    columns = fetch(name, text, "train.txt, valid.txt and test.txt", also)
    lines = {split: only for split, (only,) in columns.items()}
    checksums = {split: checksum(lines[split]) for split in SPLITS}
    places = {split: f"the {split} split of {text}" for split in SPLITS}
    return _encode(name, lines, places, checksums, f"hub: {text}")


def _compare(corpus: Corpus, tokens: dict[str, int], checksums: dict[str, str]) -> None:
    """Warn where a corpus differs from the one that published perplexities are about."""
    differences = []
    for split in SPLITS:
        count, checksum = len(getattr(corpus, split)), corpus.checksums[split]
        if count != tokens[split]:
            differences.append(f"{split} has {count} tokens with {END}, published {tokens[split]}")
        elif checksum != checksums.get(split, checksum):
            differences.append(f"{split} has sha256 {checksum}, published {checksums[split]}")
    if differences:
        warnings.warn(
            f"{corpus.name} from {corpus.source} is not the published text: "
            f"{'; '.join(differences)}. Perplexities cannot be compared with published ones.",
            stacklevel=4,
        )
