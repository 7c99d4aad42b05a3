"""The language-model experiment: its data, model, training objective and measurements."""

import math
from pathlib import Path
from typing import Any

import torch

from g2lstm.corpora import load_corpus
from g2lstm.evaluation import (
    CACHE_RECIPES,
    batchify,
    evaluate,
    evaluate_with_cache,
    unigram_perplexity,
)
from g2lstm.experiments import Configuration, build_model
from g2lstm.inspection import gate_summary, recorded
from g2lstm.objectives import LanguageModelObjective
from g2lstm.records import RunError

GATE_STRANDS, GATE_STEPS = 20, 71  # strands of text on which gates are recorded, and tokens of each


class LanguageModelTask:
    """A language-model run made ready; see `runs.Task`.

    Raises:
        CorpusError: the corpus cannot be loaded.
        RunError: a split is too short to be measured.
    """

    # What decides the outcome of a run, beside `runs` itself.
    modules = (
        "gates", "gate_modes", "gate_rates", "products", "steps", "recurrence", "lstm",
        "inspection", "language_model", "text", "corpora", "evaluation", "options", "training",
        "objectives", "data_parallel", "language_model_task",
    )  # fmt: skip

    def __init__(self, configuration: Configuration, device: str) -> None:
        self.configuration = configuration
        self.corpus = load_corpus(configuration.corpus)
        options = configuration.training
        needed = 2 * max(GATE_STRANDS, options.eval_batch_size)
        for split in ("valid", "test"):
            if len(getattr(self.corpus, split)) < needed:
                raise RunError(
                    f"the {split} text of {self.corpus.name} has "
                    f"{len(getattr(self.corpus, split))} tokens; "
                    f"at least {needed} are needed: use a longer text"
                )
        self.source, self.checksums = self.corpus.source, self.corpus.checksums
        self.unseen = self.corpus.unseen
        self.determinants = {"entropy_floor": self.corpus.entropy_floor}
        size = len(self.corpus.vocabulary)
        torch.manual_seed(configuration.seed)
        self.model = build_model(configuration, size, device=device)
        self.objective = LanguageModelObjective(
            self.corpus.train, self.corpus.valid, size, options, configuration.seed, device
        )

    def probe(self) -> dict[str, float]:
        """Saturation of the gates on the validation text."""
        gates = self._gates(self.corpus.valid, training=False)
        return {f"{kind}_gate_saturation": gates[kind]["saturation"] for kind in gates}

    def summarise(self, directory: Path) -> dict[str, Any]:
        """Measurements on the test text; see the notebook for what each entry means."""
        model, corpus = self.model, self.corpus
        test = evaluate(model, corpus.test)
        valid = evaluate(model, corpus.valid)
        # As much training text as there is test text, without dropout or noise.
        seen = evaluate(model, corpus.train[: len(corpus.test)])
        floor = corpus.entropy_floor
        summary = {
            "test_loss": test.loss,
            "test_perplexity": test.perplexity,
            "valid_perplexity": valid.perplexity,
            "train_perplexity": seen.perplexity,
            "unigram_perplexity": unigram_perplexity(
                corpus.train, corpus.test, len(corpus.vocabulary)
            ),
            "entropy_floor": floor,
            "floor_perplexity": None if floor is None else math.exp(floor),
            "protocol": "one strand, state carried over the whole text, every token but the first",
            "gates": {
                mode: self._gates(corpus.test, training=mode == "training")
                for mode in ("evaluation", "training")
            },
        }
        if self.configuration.evaluation["cache_pointer"]:
            recipe = self.configuration.evaluation["cache_recipe"]
            with_cache = evaluate_with_cache(model, corpus.test, *CACHE_RECIPES[recipe])
            summary["test_perplexity_with_cache"] = with_cache.perplexity
            summary["cache_recipe"] = recipe
        return summary

    def _gates(self, tokens: torch.Tensor, training: bool) -> dict[str, Any]:
        """Gates of every layer on the first 1,400 tokens, or so."""
        strands = batchify(tokens[: GATE_STEPS * GATE_STRANDS], GATE_STRANDS)
        strands = strands.to(self.model.embedding.weight.device)
        return gate_summary(recorded(self.model, training, lambda: self.model(strands)))
