"""Perplexity of a language model with carried state or a cache pointer, and of a translation."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from g2lstm.batches import Pairs, collate, token_batches
from g2lstm.language_model import LanguageModel, State, detach
from g2lstm.lstm import set_mode
from g2lstm.translation import TranslationModel


class CacheRecipe(NamedTuple):
    """Settings of the cache pointer, see `evaluate_with_cache`."""

    window: int
    theta: float
    cache_lambda: float


# AWD-LSTM's settings by the corpus that its README gives them for. Those of WikiText-2 are the
# defaults of its `pointer.py`; which of the two the paper's numbers were made with is not known.
CACHE_RECIPES = {
    "penn-treebank": CacheRecipe(500, 1.0, 0.1),
    "wikitext-2": CacheRecipe(3785, 0.6625523432485668, 0.12785920428335693),
}


@dataclass(frozen=True)
class Perplexity:
    """Mean negative log-likelihood ``loss`` in nats a token, over ``tokens`` predictions."""

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        return math.inf if self.loss >= 700 else math.exp(self.loss)  # NaN stays NaN


def batchify(tokens: Tensor, batch_size: int) -> Tensor:
    """Cut a text into ``batch_size`` parallel strands.

    Args:
        tokens: one-dimensional text.
        batch_size: number of strands B.

    Returns:
        [L, B] with L = len(tokens) // B; the remainder (less than B tokens) is dropped.

    Raises:
        ValueError: fewer than two tokens a strand, so that there is nothing to predict.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size!r}")
    length = len(tokens) // batch_size
    if length < 2:
        raise ValueError(
            f"{len(tokens)} tokens are too few for batch_size={batch_size}: "
            "at least two tokens a strand are needed; use a longer text or a smaller batch"
        )
    return tokens[: length * batch_size].view(batch_size, length).T.contiguous()


def segments(strands: Tensor, bptt: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield successive inputs and targets, each [<= bptt, B], that cover ``strands`` [L, B]."""
    for start in range(0, len(strands) - 1, bptt):
        end = min(start + bptt, len(strands) - 1)
        yield strands[start:end], strands[start + 1 : end + 1]


@torch.no_grad()
def evaluate(
    model: LanguageModel, tokens: Tensor, batch_size: int = 1, bptt: int = 70
) -> Perplexity:
    """Perplexity of ``model`` on ``tokens``, in evaluation mode, state carried over the whole text.

    The first token of each strand is not predicted. With ``batch_size`` 1 (the protocol for
    reported numbers) nothing else is left out, and ``bptt`` does not change the result.

    Args:
        model: the language model; its mode is restored.
        tokens: one-dimensional text.
        batch_size: number of parallel strands; more is faster and, cut into more pieces, a little
            pessimistic.
        bptt: tokens of a strand a forward pass.

    Raises:
        ValueError: a text too short for ``batch_size``.
    """
    device = model.embedding.weight.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    for hidden, targets in _hidden_states(model, tokens, batch_size, bptt):
        total += model.loss(hidden.flatten(0, 1), targets.flatten(), reduction="sum").double()
        count += targets.numel()
    return Perplexity(float(total) / count, count)


@torch.no_grad()
def evaluate_with_cache(
    model: LanguageModel,
    tokens: Tensor,
    window: int = CACHE_RECIPES["penn-treebank"].window,
    theta: float = CACHE_RECIPES["penn-treebank"].theta,
    cache_lambda: float = CACHE_RECIPES["penn-treebank"].cache_lambda,
    bptt: int = 70,
) -> Perplexity:
    """Perplexity with the continuous cache pointer (Grave et al., 2017).

    The defaults are AWD-LSTM's for Penn Treebank; `CACHE_RECIPES` has those for WikiText-2 too.

    Every hidden state h_i is remembered with the word w_{i+1} that followed it. The next word has::

        p(w) = (1 - lambda) softmax(...)(w)
               + lambda sum over the last `window` pairs of softmax_i(theta h_t . h_i) [w_{i+1} = w]

    The cache is used from the second token on, with as many pairs as there are; AWD-LSTM's
    ``pointer.py`` uses the model's own distribution until ``window`` pairs are there.

    Args:
        model, tokens, bptt: as in `evaluate`; one strand, state carried.
        window: number of pairs remembered.
        theta: sharpness of the cache.
        cache_lambda: weight of the cache.

    Raises:
        ValueError: ``window`` < 1, ``cache_lambda`` outside [0, 1], or a text too short.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window!r}")
    if not 0 <= cache_lambda <= 1:
        raise ValueError(f"cache_lambda must be in [0, 1], got {cache_lambda!r}")
    total, count = 0.0, 0
    keys = values = None
    for hidden, targets in _hidden_states(model, tokens, 1, bptt):
        hidden, targets = hidden[:, 0], targets[:, 0]  # [n, E], [n]
        log_probability = model.log_probabilities(hidden)
        hidden = hidden.float()
        probability = log_probability.gather(1, targets[:, None])[:, 0].double().exp()
        past = 0 if keys is None else len(keys)
        keys = hidden if keys is None else torch.cat([keys, hidden])
        values = targets if values is None else torch.cat([values, targets])
        position = past + torch.arange(len(hidden), device=hidden.device)[:, None]  # [n, 1]
        index = torch.arange(len(keys), device=hidden.device)[None, :]  # [1, m]
        visible = (index < position) & (index >= position - window)
        scores = (theta * hidden @ keys.T).masked_fill(~visible, -torch.inf)
        attention = torch.softmax(scores, -1).nan_to_num(0.0)
        cache = (attention * (values[None, :] == targets[:, None])).sum(1).double()
        mixed = (1 - cache_lambda) * probability + cache_lambda * cache
        mixed = torch.where(visible.any(1), mixed, probability)
        total -= float(mixed.log().sum())
        count += len(targets)
        keys, values = keys[-window:], values[-window:]
    return Perplexity(total / count, count)


@torch.no_grad()
def evaluate_translation(
    model: TranslationModel, pairs: Pairs, batch_tokens: int = 2000
) -> Perplexity:
    """Perplexity of the references given the sources, by teacher forcing, in evaluation mode.

    Args:
        model: the translation model; its mode is restored.
        pairs: encoded pairs; every subword of the targets and every end mark is predicted.
        batch_tokens: see `batches.token_batches`; does not change the result.
    """
    device = model.output_bias.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    with set_mode(model, training=False):
        for indices in token_batches(pairs, batch_tokens):
            batch = collate(pairs, indices, device)
            output = model(batch.source, batch.source_lengths, batch.inputs)
            _, loss = model.losses(output.hidden, batch.targets)
            total += loss.double() * int(batch.target_lengths.sum())
    return Perplexity(float(total) / pairs.target_tokens, pairs.target_tokens)


def unigram_perplexity(train: Tensor, test: Tensor, vocabulary_size: int) -> float:
    """Perplexity on ``test`` of word frequencies counted in ``train`` with add-one smoothing."""
    counts = torch.bincount(train, minlength=vocabulary_size).double() + 1
    return float(torch.exp(-(counts / counts.sum()).log()[test].mean()))


def _hidden_states(
    model: LanguageModel, tokens: Tensor, batch_size: int, bptt: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (hidden [n, B, E], targets [n, B]) over the text; restores the model's mode."""
    if bptt < 1:
        raise ValueError(f"bptt must be at least 1, got {bptt!r}")
    device = model.embedding.weight.device
    strands = batchify(tokens, batch_size).to(device)
    state: State | None = None
    with set_mode(model, training=False):
        for inputs, targets in segments(strands, bptt):
            output = model(inputs, state)
            state = detach(output.state)
            yield output.hidden, targets
