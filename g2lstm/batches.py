"""Encoded sentence pairs in batches of pairs of like length."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from g2lstm.subwords import BEGIN, END, PAD, Subwords


@dataclass(frozen=True)
class Pairs:
    """Sentence pairs as lists of subword indices.

    Attributes:
        sources: each with its end mark.
        targets: each without begin and end mark.
    """

    sources: list[list[int]]
    targets: list[list[int]]

    def __len__(self) -> int:
        return len(self.sources)

    @cached_property
    def target_tokens(self) -> int:
        """Subwords to be predicted, end marks included."""
        return sum(len(target) + 1 for target in self.targets)


def encode_pairs(
    source_subwords: Subwords, target_subwords: Subwords, sentences: tuple[list[str], list[str]]
) -> Pairs:
    """Encode (source sentences, target sentences), one list each, in step."""
    sources, targets = sentences
    encoded = [[*source, END] for source in source_subwords.encode(sources)]
    return Pairs(encoded, target_subwords.encode(targets))


class Batch(NamedTuple):
    """Pairs of a batch, padded at the end: S and T subwords, B sentences."""

    source: Tensor  # [S, B]
    source_lengths: Tensor  # [B], on the CPU
    inputs: Tensor  # [T, B] of the decoder: begin mark, then the target
    targets: Tensor  # [T, B] what it is to predict: the target, then the end mark
    target_lengths: Tensor  # [B], on the CPU, end mark included


def collate(pairs: Pairs, indices: list[int], device: torch.device | str = "cpu") -> Batch:
    """The pairs with these indices as one batch."""
    sources = [pairs.sources[i] for i in indices]
    targets = [pairs.targets[i] for i in indices]
    return Batch(
        pad(sources).to(device),
        torch.tensor([len(source) for source in sources]),
        pad([[BEGIN, *target] for target in targets]).to(device),
        pad([[*target, END] for target in targets]).to(device),
        torch.tensor([len(target) + 1 for target in targets]),
    )


def pad(sequences: list[list[int]]) -> Tensor:
    """[longest, B] int64, padded at the end."""
    return pad_sequence([torch.tensor(s, dtype=torch.int64) for s in sequences], padding_value=PAD)


def at_most(pairs: Pairs, subwords: int) -> Pairs:
    """The pairs with at most so many subwords on each side, end marks not counted.

    Raises:
        ValueError: there is none.
    """
    kept = [
        (source, target)
        for source, target in zip(pairs.sources, pairs.targets, strict=True)
        if max(len(source) - 1, len(target)) <= subwords
    ]
    if not kept:
        raise ValueError(f"no pair has at most {subwords} subwords on each side: allow more")
    return Pairs(*map(list, zip(*kept, strict=True)))


def token_batches(
    pairs: Pairs,
    batch_tokens: int,
    random: np.random.Generator | None = None,
    batch_sentences: int = 0,
) -> list[list[int]]:
    """Indices of batches of pairs of like length.

    A batch has at most ``batch_tokens`` subwords with padding (sentences times the longest side),
    or a single pair; or, where ``batch_sentences`` is not 0, so many pairs, the last one the rest.

    Args:
        pairs: to be batched; every pair is in one batch.
        batch_tokens: at least 1.
        batch_sentences: at least 0.
        random: shuffles pairs of equal lengths and the order of the batches; without it batches
            come in order of length.
    """
    lengths = np.array(
        [(len(t) + 1, len(s)) for s, t in zip(pairs.sources, pairs.targets, strict=True)]
    )
    tie = np.arange(len(lengths)) if random is None else random.permutation(len(lengths))
    batches: list[list[int]] = []
    longest = 0
    for index in np.lexsort((tie, lengths[:, 1], lengths[:, 0])).tolist():
        longest = max(longest, *lengths[index].tolist())
        number = len(batches[-1]) + 1 if batches else math.inf
        if number <= batch_sentences if batch_sentences else longest * number <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = int(lengths[index].max())
    if random is not None:
        batches = [batches[i] for i in random.permutation(len(batches))]
    return batches
