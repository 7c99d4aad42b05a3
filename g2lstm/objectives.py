"""What the models are trained for: the next word, and the translation.

Of several processes (see `data_parallel`) each trains on its share of a batch: whole strands of
text, whole sentence pairs.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from g2lstm.batches import Pairs, collate, token_batches
from g2lstm.data_parallel import rank, sum_over_processes, world_size
from g2lstm.evaluation import batchify, evaluate, evaluate_translation
from g2lstm.language_model import LanguageModel, State, detach
from g2lstm.options import LanguageModelOptions, TranslationOptions
from g2lstm.training import Step
from g2lstm.translation import TranslationModel


class LanguageModelObjective:
    """Cross-entropy of the next word by truncated back-propagation, as in AWD-LSTM.

    Args:
        train_tokens, valid_tokens: one-dimensional texts.
        vocabulary_size: number of words.
        options: see `LanguageModelOptions`.
        seed: of the segment lengths.
        device: of the model.

    Raises:
        ValueError: a text too short for the batch size, or strands that cannot be shared out.
    """

    def __init__(
        self,
        train_tokens: Tensor,
        valid_tokens: Tensor,
        vocabulary_size: int,
        options: LanguageModelOptions,
        seed: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if options.batch_size % world_size():
            raise ValueError(
                f"batch_size {options.batch_size} cannot be shared out evenly among "
                f"{world_size()} processes: choose a multiple of it"
            )
        strands = batchify(train_tokens, options.batch_size)
        self.strands = strands[:, rank() :: world_size()].to(device)
        self.valid_tokens = valid_tokens
        self.options = options
        self.seed = seed
        self.epoch_tokens = (len(self.strands) - 1) * options.batch_size
        self.guessing = math.log(vocabulary_size)
        self.state: State | None = None

    def steps(self, epoch: int) -> list[Step]:
        self.state = None
        options, length = self.options, len(self.strands) - 1
        return [
            Step(
                batch=(start, end),
                tokens=(end - start) * options.batch_size,
                done=start / length,
                scale=(end - start) / options.bptt if options.optimizer == "sgd" else 1.0,
            )
            for start, end in jittered_bounds(length, options.bptt, self.seed, epoch)
        ]

    def losses(self, model: LanguageModel, batch: tuple[int, int]) -> tuple[Tensor, Tensor]:
        start, end = batch
        output = model(self.strands[start:end], self.state)
        loss = model.loss(output.hidden.flatten(0, 1), self.strands[start + 1 : end + 1].flatten())
        self.state = detach(output.state)
        objective = loss
        if self.options.alpha:
            objective = objective + self.options.alpha * output.hidden.float().pow(2).mean()
        if self.options.beta and end - start > 1:
            change = output.raw[1:].float() - output.raw[:-1].float()
            objective = objective + self.options.beta * change.pow(2).mean()
        share = 1 / world_size()
        return share * objective, sum_over_processes(share * loss)

    def validate(self, model: LanguageModel) -> float:
        options = self.options
        return evaluate(model, self.valid_tokens, options.eval_batch_size, options.bptt).loss


def jittered_bounds(length: int, bptt: int, seed: int, epoch: int) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of segments that cover ``length`` steps, of random size around ``bptt``.

    AWD-LSTM's jitter: the mean is ``bptt``, or half of it in 5 % of the cases; the standard
    deviation is 5, the least size 5. Depends on ``seed`` and ``epoch`` alone.
    """
    random = np.random.default_rng([seed, epoch])
    start = 0
    while start < length:
        mean = bptt if random.random() < 0.95 else bptt / 2
        end = min(length, start + max(5, int(random.normal(mean, 5))))
        yield start, end
        start = end


class TranslationObjective:
    """Cross-entropy of the next subword of the translation, with label smoothing.

    Args:
        train_pairs, valid_pairs: encoded pairs.
        target_size: number of target subwords.
        options: see `TranslationOptions`.
        seed: of the batches and their order.
        device: of the model.
    """

    def __init__(
        self,
        train_pairs: Pairs,
        valid_pairs: Pairs,
        target_size: int,
        options: TranslationOptions,
        seed: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.train_pairs = train_pairs
        self.valid_pairs = valid_pairs
        self.options = options
        self.seed = seed
        self.device = device
        self.epoch_tokens = train_pairs.target_tokens
        self.guessing = math.log(target_size)

    def steps(self, epoch: int) -> list[Step]:
        steps, done = [], 0
        random = np.random.default_rng([self.seed, epoch])
        options = self.options
        for sentences in token_batches(
            self.train_pairs, options.batch_tokens, random, options.batch_sentences
        ):
            tokens = self._tokens(sentences)
            steps.append(Step(sentences, tokens, done / self.epoch_tokens))
            done += tokens
        return steps

    def losses(self, model: TranslationModel, batch: list[int]) -> tuple[Tensor, Tensor]:
        part = batch[rank() :: world_size()]
        if not part:  # a batch of few, long sentences: this process adds nothing
            nothing = 0.0 * model.output_bias.sum()
            return nothing, sum_over_processes(nothing)
        pairs = collate(self.train_pairs, part, self.device)
        output = model(pairs.source, pairs.source_lengths, pairs.inputs)
        objective, loss = model.losses(output.hidden, pairs.targets, self.options.label_smoothing)
        share = self._tokens(part) / self._tokens(batch)
        return share * objective, sum_over_processes(share * loss)

    def validate(self, model: TranslationModel) -> float:
        return evaluate_translation(model, self.valid_pairs).loss

    def _tokens(self, sentences: list[int]) -> int:
        return sum(len(self.train_pairs.targets[i]) + 1 for i in sentences)
