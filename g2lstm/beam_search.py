"""Translation with beam search, batched over sentences and hypotheses.

A hypothesis of n steps, END counted as one, has the score ``log p / n ** length_penalty``: 0 is the
log-probability itself, 1 its mean per step. The translation is the hypothesis of the highest score
among those found that end within ``max_length`` steps; only if none does, one that was cut there.

A sentence is done, and leaves the batch, when nothing better can come: log-probabilities only fall,
so a live hypothesis with log-probability L will never score above ``L / max_length **
length_penalty``. A beam that holds every prefix therefore finds the very best translation.

A hypothesis that ends frees its place in the beam for the next step. Ties go to the one that ended
first, then to the one from the better prefix; the same input gives the same output.

Everything runs on the model's device, in evaluation mode (its own is restored), without gradients.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from g2lstm.batches import pad
from g2lstm.lstm import set_mode
from g2lstm.subwords import BEGIN, END, PAD, UNKNOWN

# Steps allowed by default, n subwords in the source: few translations are twice as long.
LENGTH_FACTOR, LENGTH_CONSTANT = 2, 10
MOST_PENALTY = 10  # a power of the length must stay a number
USUAL_BEAM = 5  # a wider one has fewer sentences a batch, so that memory does not grow with it
SHORT = 16  # shorter sentences fill a batch like ones of this length: the softmax is as large
CUT = torch.finfo(torch.float64).min  # rank of a hypothesis that was cut: below all that ended


@dataclass(frozen=True)
class Hypothesis:
    """A translation found.

    Attributes:
        tokens: its subwords, without END.
        log_probability: natural logarithm of the probability of all its steps, END included.
        score: ``log_probability / steps ** length_penalty``.
        finished: whether it ended; False: it was cut at the maximal length and has no END.
    """

    tokens: list[int]
    log_probability: float
    score: float
    finished: bool


def translate(
    model: nn.Module,
    sources: Sequence[Sequence[int]],
    *,
    beam_size: int = 5,
    length_penalty: float = 1.0,
    max_length: int | None = None,
    batch_tokens: int = 4000,
    allow_unknown: bool = False,
    progress_bar: bool = False,
) -> list[Hypothesis]:
    """The best translation found of every sentence, in the order of ``sources``.

    Sentences of similar length are translated together. Memory holds one batch at a time, and the
    translations.

    Args:
        model: has ``encode``, ``start`` and ``step`` as `TranslationModel` has.
        sources: subwords of each sentence as the encoder takes them, so with END if it is trained
            with it.
        beam_size: hypotheses kept a sentence; 1 is greedy search.
        length_penalty: exponent of the steps in the score, 0 to 10 (authors: 1.0).
        max_length: most steps of a translation, END included; default ``2 * n + 10`` for a sentence
            of n subwords.
        batch_tokens: most source subwords a batch, padding included, where a sentence counts as at
            least 16; a longer sentence has a batch of its own. Beams wider than 5 get as much
            less, in proportion.
        allow_unknown: let UNKNOWN be generated. It stands for no text, so by default the best
            subword that does is taken instead. PAD and BEGIN are never generated.
        progress_bar: show one.

    Raises:
        ValueError: an argument out of its range or an empty sentence, named; or a model that gives
            a sentence no probability (NaN).
    """
    _check(beam_size, length_penalty, max_length, batch_tokens=batch_tokens)
    for index, sentence in enumerate(sources):
        if len(sentence) == 0:
            raise ValueError(f"sentence {index} of {len(sources)} is empty: {sentence!r}")
    translations: list[Any] = [None] * len(sources)
    search, own = (greedy_search, ()) if beam_size == 1 else (beam_search, (beam_size,))
    with tqdm(total=len(sources), unit="sentence", disable=not progress_bar) as bar:
        width = max(beam_size, USUAL_BEAM)
        most = batch_tokens * USUAL_BEAM // width
        for batch in _batches([len(sentence) for sentence in sources], most):
            source = pad([list(sources[i]) for i in batch])
            lengths = torch.tensor([len(sources[i]) for i in batch])
            found = search(model, source, lengths, *own, length_penalty, max_length, allow_unknown)
            for index, hypothesis in zip(batch, found, strict=True):
                translations[index] = hypothesis
            bar.update(len(batch))
    return translations


def greedy_search(
    model: nn.Module,
    source: Tensor,
    lengths: Tensor,
    length_penalty: float = 1.0,
    max_length: int | None = None,
    allow_unknown: bool = False,
) -> list[Hypothesis]:
    """The translations that take the most probable subword at every step.

    The same as `beam_search` with a beam of 1, but faster. The length penalty decides the score
    only. Arguments and errors as of `beam_search`.
    """
    _check(1, length_penalty, max_length, lengths)
    with _evaluating(model) as device:
        memory = model.encode(source.to(device), lengths)
        state = model.start(memory)
        limits = _limits(lengths, max_length).to(device)  # [B]
        sentences = torch.arange(len(limits), device=device)  # those that still run
        totals = torch.zeros(len(limits), dtype=torch.float64, device=device)  # log-probabilities
        steps = torch.zeros_like(limits)
        finished = torch.zeros_like(limits, dtype=torch.bool)
        tokens = torch.full_like(limits, BEGIN)
        trace = []  # [B] tokens of each step
        while len(sentences):
            log_probabilities, state = _step(model, tokens, state, memory, allow_unknown)
            best, tokens = (x[:, 0] for x in log_probabilities.topk(1))  # ties as in the beam
            totals[sentences] += best
            steps[sentences] += 1
            finished[sentences] = tokens == END
            trace.append(torch.zeros_like(limits).index_copy_(0, sentences, tokens))
            running = (tokens != END) & (steps[sentences] < limits[sentences])
            if not running.all():
                keep = running.nonzero()[:, 0]
                memory, state = memory.select(keep), state.select(keep)
                sentences, tokens = sentences[keep], tokens[keep]
        scores = totals / _penalties(len(trace), length_penalty, device)[steps]
        parts = (torch.stack(trace)[:, None], totals[None], scores[None], steps[None])
        return [best for (best,) in _hypotheses(*parts, finished[None])]


def beam_search(
    model: nn.Module,
    source: Tensor,
    lengths: Tensor,
    beam_size: int = 5,
    length_penalty: float = 1.0,
    max_length: int | None = None,
    allow_unknown: bool = False,
) -> list[Hypothesis]:
    """The best translation found of each sentence of a batch.

    Args:
        source: [S, B] int64, padded at the end.
        lengths: [B] subwords of each sentence, at least 1.
        model, beam_size, length_penalty, max_length, allow_unknown: as of `translate`.

    Raises:
        ValueError: as of `translate`.
    """
    settings = (beam_size, length_penalty, max_length, allow_unknown)
    return [best for (best,) in nbest_search(model, source, lengths, 1, *settings)]


def nbest_search(
    model: nn.Module,
    source: Tensor,
    lengths: Tensor,
    nbest: int = 5,
    beam_size: int = 5,
    length_penalty: float = 1.0,
    max_length: int | None = None,
    allow_unknown: bool = False,
) -> list[list[Hypothesis]]:
    """The ``nbest`` best translations found of each sentence, best first.

    Those that were cut come after those that ended. There may be fewer than ``nbest``, but at least
    one. Other arguments and errors as of `beam_search`.
    """
    _check(beam_size, length_penalty, max_length, lengths, nbest=nbest)
    with _evaluating(model) as device:
        memory = model.encode(source.to(device), lengths)
        state = model.start(memory)
        limits = _limits(lengths, max_length).to(device)  # [B]
        penalties = _penalties(int(limits.max()), length_penalty, device)
        batch = len(limits)
        sentences = torch.arange(batch, device=device)  # those that still run
        totals = torch.zeros(1, batch, dtype=torch.float64, device=device)  # [beams, B]
        tokens = torch.full_like(limits, BEGIN)  # [beams * B]
        trace = []  # [2, beam_size, B] of each step: tokens and the beams they continue
        # The best that ended or were cut so far: rank, log-probability, steps, beam. Empty places
        # (rank -inf, 0 steps) come first among equals, so they stay what they are.
        kept = torch.zeros(4, nbest, batch, dtype=torch.float64, device=device)
        kept[0] = -torch.inf
        while len(sentences):
            log_probabilities, state = _step(model, tokens, state, memory, allow_unknown)
            totals, tokens, parents = _extend(totals, log_probabilities, beam_size)
            trace.append(torch.zeros(2, beam_size, batch, dtype=torch.int64, device=device))
            trace[-1][:, : len(tokens), sentences] = torch.stack([tokens, parents])
            step, limit = len(trace), limits[sentences]

            ended = tokens == END
            cut = ~ended & (step == limit)
            if (ended | cut).any():
                rank = torch.full_like(totals, -torch.inf).masked_fill(cut, CUT)
                rank = torch.where(ended, totals / penalties[step], rank)
                beams = torch.arange(len(totals), device=device)[:, None].expand_as(totals)
                new = torch.stack([rank, totals, torch.full_like(totals, step), beams])
                merged = torch.cat([kept[:, :, sentences], new], 1)
                order = merged[0].argsort(dim=0, descending=True, stable=True)[:nbest]
                kept[:, :, sentences] = merged.gather(1, order.expand(4, -1, -1))

            totals = totals.masked_fill(ended, -torch.inf)
            bound = totals.amax(0) / penalties[limit]
            keep = ((bound > kept[0, -1, sentences]) & (step < limit)).nonzero()[:, 0]
            rows = parents * len(sentences) + torch.arange(len(sentences), device=device)
            state = state.select(rows[:, keep].flatten())
            totals, tokens = totals[:, keep], tokens[:, keep].flatten()
            if len(keep) < len(sentences):
                memory, sentences = memory.select(keep), sentences[keep]
        rank, totals, steps, beams = kept
        steps, finished = steps.long(), rank > CUT
        scores = torch.where(finished, rank, totals / penalties[steps])
        return _hypotheses(_trace_back(trace, steps, beams.long()), totals, scores, steps, finished)


def _extend(
    totals: Tensor, log_probabilities: Tensor, beam_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best continuations of hypotheses [beams, B], at most ``beam_size`` a sentence.

    Returns:
        log-probabilities, tokens and the beams continued, each [new beams, B], best first.
    """
    width = min(beam_size, log_probabilities.shape[-1])  # no hypothesis can give more to the beam
    best, tokens = log_probabilities.view(*totals.shape, -1).topk(width)  # [beams, B, width]
    best, tokens = (x.transpose(0, 1).flatten(1) for x in (totals[..., None] + best, tokens))
    best, order = (x[:, :beam_size] for x in best.sort(descending=True, stable=True))
    return best.T, tokens.gather(1, order).T, (order // width).T


def _trace_back(trace: list[Tensor], steps: Tensor, beams: Tensor) -> Tensor:
    """Tokens [T, n, B] of the hypotheses [n, B] whose last of ``steps`` stands in ``beams``."""
    result = torch.zeros(len(trace), *steps.shape, dtype=torch.int64, device=steps.device)
    for t in reversed(range(len(trace))):
        tokens, parents = trace[t]
        result[t] = tokens.gather(0, beams)
        beams = torch.where(t < steps, parents.gather(0, beams), beams)
    return result


def _hypotheses(
    tokens: Tensor, totals: Tensor, scores: Tensor, steps: Tensor, finished: Tensor
) -> list[list[Hypothesis]]:
    """Lists of tokens [T, n, B] and the rest [n, B]; a place with 0 steps holds none."""
    parts = (tokens.movedim(0, -1), totals, scores, steps, finished)
    sentences = zip(*(part.transpose(0, 1).tolist() for part in parts), strict=True)
    found = [
        [
            Hypothesis(row[: count - ended], total, score, ended)
            for row, total, score, count, ended in zip(*sentence, strict=True)
            if count > 0 and math.isfinite(total)
        ]
        for sentence in sentences
    ]
    if [] in found:
        raise ValueError(
            f"no translation of sentence {found.index([])} of the batch has a probability (NaN or "
            "0 at every subword): the model's weights have diverged"
        )
    return found


def _step(
    model: nn.Module, tokens: Tensor, state: Any, memory: Any, allow_unknown: bool
) -> tuple[Tensor, Any]:
    log_probabilities, state = model.step(tokens, state, memory)
    log_probabilities[:, [PAD, BEGIN] if allow_unknown else [PAD, BEGIN, UNKNOWN]] = -torch.inf
    return log_probabilities, state


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode without gradients; yields the model's device, restores its mode."""
    with set_mode(model, training=False), torch.inference_mode():
        yield next(model.parameters()).device


def _limits(lengths: Tensor, max_length: int | None) -> Tensor:
    """Most steps of each sentence [B]."""
    if max_length is None:
        return LENGTH_FACTOR * lengths + LENGTH_CONSTANT
    return torch.full_like(lengths, max_length)


def _penalties(steps: int, length_penalty: float, device: torch.device) -> Tensor:
    """What divides the log-probability of 0, 1, ..., ``steps`` steps."""
    # Python's power is the same for a number whatever the others are, unlike torch's.
    values = [float(n) ** length_penalty for n in range(steps + 1)]
    return torch.tensor(values, dtype=torch.float64, device=device)


def _batches(lengths: list[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of the sentences of each batch, the longest first."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and max(lengths[batch[0]], SHORT) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _check(
    beam_size: int,
    length_penalty: float,
    max_length: int | None,
    lengths: Tensor | None = None,
    **counts: int,
) -> None:
    if not (math.isfinite(length_penalty) and length_penalty >= 0):
        raise ValueError(f"length_penalty must be a finite number >= 0, got {length_penalty!r}")
    if length_penalty > MOST_PENALTY:
        raise ValueError(f"length_penalty must be at most {MOST_PENALTY}, got {length_penalty!r}")
    counts |= {"beam_size": beam_size} | ({} if max_length is None else {"max_length": max_length})
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}")
    if lengths is not None and (lengths < 1).any():
        raise ValueError(f"every sentence needs at least 1 subword, got lengths {lengths.tolist()}")
