"""Subwords: byte-pair encoding (Sennrich et al., 2016), learnt by `tokenizers`.

Text is taken as `text.prepared` leaves it, in Unicode's NFC form: the space before a word is the
first character of its piece, so the pieces put together are that text again. Merges stay within a
word or an escape such as `&apos;`, and every other punctuation mark is a piece of its own.

Environment variables:
    TOKENIZERS_PARALLELISM: "false" unless set, for several threads at work here and a fork later
        (a `DataLoader`'s workers) do not go together.
"""

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from g2lstm.identity import read_record, write_record
from g2lstm.text import prepared, words_of

PAD, UNKNOWN, BEGIN, END = 0, 1, 2, 3
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
FORMAT = "g2lstm subwords 1"

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_WORDS = Regex(r" ?&(?:\w+|#\d+);| ?\w+| ?[^\w ]| ")


class Subwords:
    """Pieces of words and their indices 0, 1, ...; the specials come first.

    Args:
        pieces: `SPECIALS`, then characters and what merges make of them, all different.
        merges: pairs of pieces, in the order in which they are joined.
        words: of the text they were learnt from (see `text.words_of`), where they are known.

    Raises:
        ValueError: the specials do not come first, a piece appears twice, or a merge is none.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        merges: Sequence[Sequence[str]],
        words: Iterable[str] | None = None,
    ):
        self.pieces = list(pieces)
        self.merges = [(left, right) for left, right in merges]
        self.words = None if words is None else frozenset(words)
        index = {piece: i for i, piece in enumerate(self.pieces)}
        if tuple(self.pieces[: len(SPECIALS)]) != SPECIALS:
            raise ValueError(f"subwords start with {' '.join(SPECIALS)}: {self.pieces[:4]}")
        if len(index) < len(self.pieces):
            double = next(p for p, count in Counter(self.pieces).items() if count > 1)
            raise ValueError(f"{double!r} appears twice among the pieces")
        for left, right in self.merges:
            if not {left, right, left + right} <= index.keys():
                raise ValueError(f"the merge of {left!r} and {right!r} is not among the pieces")
        # No special is known to this tokenizer: a "<s>" in a sentence is three characters.
        model = models.BPE(index, self.merges, unk_token=SPECIALS[UNKNOWN])
        self._tokenizer = _tokenizer(model)

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Indices of each sentence's pieces, `UNKNOWN` for a character not met in training.

        White space counts as in training, see `text.prepared`.

        Raises:
            ValueError: a sentence holds half a character (a lone surrogate).
        """
        if isinstance(sentences, str):
            raise TypeError(f"encode takes a list of sentences, got the string {sentences!r}")
        texts = [prepared(sentence) for sentence in sentences]
        for text in texts:
            if not _is_text(text):
                raise ValueError(f"the sentence {text!r} holds a lone surrogate, half a character")
        batch = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def decode(self, indices: Iterable[Sequence[int]]) -> list[str]:
        """The text of each sentence's indices; specials are left out."""
        return [
            "".join(self.pieces[i] for i in row if i > END).removeprefix(" ") for row in indices
        ]

    def unseen_words(self, sentence: str) -> list[str]:
        """The words of a sentence that the training text lacks; none where that is not known."""
        return [] if self.words is None else [w for w in words_of(sentence) if w not in self.words]

    def tokens(self, sentence: str) -> list[str]:
        """The pieces of a sentence for people to read: a space is shown as `▁`."""
        return self.readable(self.encode([sentence])[0])

    def readable(self, indices: Iterable[int]) -> list[str]:
        """The pieces of indices, specials too, for people to read: a space is shown as `▁`."""
        return [self.pieces[i].replace(" ", "▁") for i in indices]

    def save(self, path: Path | str) -> None:
        """Write one JSON file, atomically."""
        content = {"format": FORMAT, "pieces": self.pieces, "merges": self.merges}
        if self.words is not None:
            content["words"] = sorted(self.words)
        write_record(path, content)

    @classmethod
    def load(cls, path: Path | str) -> "Subwords":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else, or belongs to another run.
        """
        try:
            content = read_record(path)
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}")
            pieces, merges, words = content["pieces"], content["merges"], content.get("words")
            for name, texts in (("piece", pieces), ("word", words or [])):
                if not isinstance(texts, list) or not all(map(_is_text, texts)):
                    raise ValueError(f"a {name} is no text")
            return cls(pieces, merges, words)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path} is not a file of subwords ({type(error).__name__}: {error}): "
                "learn them again."
            ) from error


def learn_subwords(
    corpus_train: tuple[Sequence[str], Sequence[str]], merges: int, joint: bool
) -> tuple[Subwords, Subwords]:
    """Learn subwords from the training side of a corpus only.

    Args:
        corpus_train: source sentences, target sentences.
        merges: how many pairs of pieces are joined at most, 0 for characters; pairs that occur
            once are never joined. The vocabulary is the 4 specials, all characters and the merges.
        joint: learn from both languages together.

    Returns:
        Those of the source and of the target language, one and the same if joint.

    Raises:
        ValueError: merges is not an integer of at least 0, or there is no text.
    """
    if isinstance(merges, bool) or not isinstance(merges, int) or merges < 0:
        raise ValueError(f"merges is {merges!r}, should be an integer of at least 0")
    source, target = corpus_train
    if joint:
        both = _learn([*source, *target], merges, "source and target")
        return both, both
    return _learn(source, merges, "source"), _learn(target, merges, "target")


def _learn(sentences: Sequence[str], merges: int, side: str) -> Subwords:
    sentences = [prepared(sentence) for sentence in sentences]
    tokenizer = _tokenizer(models.BPE())
    normalised = map(tokenizer.normalizer.normalize_str, sentences)
    alphabet = {" ", *itertools.chain.from_iterable(normalised)}
    if len(alphabet) == 1:
        raise ValueError(f"no text to learn subwords from on the {side} side")
    most = sum(map(len, sentences))  # of merges; the library sets memory aside for all it is asked
    trainer = trainers.BpeTrainer(
        vocab_size=len(SPECIALS) + len(alphabet) + min(merges, most),
        special_tokens=list(SPECIALS),
        initial_alphabet=[" "],
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    words = {word for sentence in sentences for word in words_of(sentence)}
    return Subwords(sorted(learnt["vocab"], key=learnt["vocab"].get), learnt["merges"], words)


def _is_text(text: object) -> bool:
    """Whether it is text of whole characters."""
    try:
        str.encode(text, "utf-8")
    except (UnicodeEncodeError, TypeError):
        return False
    return True


def _tokenizer(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Prepend(" ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_WORDS, "isolated")
    return tokenizer
