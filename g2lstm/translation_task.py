"""The translation experiment: its data, model, training objective and measurements."""

import hashlib
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from g2lstm.batches import Pairs, at_most, collate, encode_pairs
from g2lstm.beam_search import Hypothesis, translate
from g2lstm.corpora import SPLITS
from g2lstm.evaluation import evaluate_translation
from g2lstm.experiments import Configuration, build_model
from g2lstm.identity import write_record
from g2lstm.inspection import gate_summary, recorded
from g2lstm.lstm import set_mode
from g2lstm.objectives import TranslationObjective
from g2lstm.parallel_corpora import load_parallel
from g2lstm.parallel_grammar import Pair, clause_accuracy
from g2lstm.records import BLEU_STATISTICS, SOURCE_SUBWORDS, TARGET_SUBWORDS, TRANSLATIONS
from g2lstm.scoring import Scores, bleu_statistics, score
from g2lstm.subwords import END, UNKNOWN, learn_subwords

GATE_PAIRS = 100  # pairs on which gates are recorded
PROBE_PAIRS = 2000  # most validation pairs that are translated after each epoch


class TranslationTask:
    """A translation run made ready; see `runs.Task`.

    Attributes:
        corpus: the `ParallelCorpus`.
        source_subwords, target_subwords: learnt on its training side.
        pairs: its splits, encoded.

    Raises:
        CorpusError: the corpus cannot be loaded.
    """

    # What decides the outcome of a run, beside `runs` itself.
    modules = (
        "gates", "gate_modes", "gate_rates", "products", "steps", "recurrence", "lstm",
        "inspection", "language_model", "attention", "translation", "parallel_grammar", "text",
        "parallel_corpora", "subwords", "batches", "scoring", "beam_search", "evaluation",
        "options", "training", "objectives", "data_parallel", "translation_task",
    )  # fmt: skip

    def __init__(self, configuration: Configuration, device: str) -> None:
        self.configuration = configuration
        data = configuration.data
        languages = configuration.languages.split("-")
        self.corpus = load_parallel(configuration.corpus, *languages, data["max_length"])
        self.source, self.checksums = self.corpus.origin, self.corpus.checksums
        self.source_subwords, self.target_subwords = learn_subwords(
            self.corpus.train, data["merges"], data["joint"]
        )
        # Another version of the library may learn other subwords.
        self.determinants = {
            "subwords": [
                hashlib.sha256("\n".join(subwords.pieces).encode()).hexdigest()
                for subwords in (self.source_subwords, self.target_subwords)
            ],
            "clauses": self.corpus.clauses,
        }
        self.pairs = {split: self._encode(getattr(self.corpus, split)) for split in SPLITS}
        self.unseen = self._unseen()
        most = data.get("max_subwords", 0)
        trained_on = at_most(self.pairs["train"], most) if most else self.pairs["train"]
        sizes = len(self.source_subwords), len(self.target_subwords)
        torch.manual_seed(configuration.seed)
        self.model = build_model(configuration, *sizes, device=device)
        self.objective = TranslationObjective(
            trained_on,
            self.pairs["valid"],
            sizes[1],
            configuration.training,
            configuration.seed,
            device,
        )

    def translate(
        self, sources: list[list[int]], beam_size: int | None = None, progress_bar: bool = False
    ) -> tuple[list[str], list[Hypothesis]]:
        """Text and hypotheses of encoded sentences, by the configuration's beam search."""
        settings = self.configuration.evaluation
        found = translate(
            self.model,
            sources,
            beam_size=settings["beam_size"] if beam_size is None else beam_size,
            length_penalty=settings["length_penalty"],
            progress_bar=progress_bar,
        )
        return self.target_subwords.decode([hypothesis.tokens for hypothesis in found]), found

    @torch.no_grad()
    def attention(self, source: list[int]) -> tuple[np.ndarray, list[str], list[str]]:
        """Attention of the model reading its own translation of an encoded sentence.

        Returns:
            Weights [T, S], and the source and target subwords they belong to, end marks included.
        """
        _, (hypothesis,) = self.translate([source])
        pairs = Pairs([source], [hypothesis.tokens])
        batch = collate(pairs, [0], self.model.output_bias.device)
        with set_mode(self.model, training=False):
            output = self.model(batch.source, batch.source_lengths, batch.inputs)
        weights = output.attention[:, :, 0]
        return (
            weights.float().cpu().numpy(),
            self.source_subwords.readable(source),
            self.target_subwords.readable([*hypothesis.tokens, END]),
        )

    def probe(self) -> dict[str, float]:
        """BLEU of greedy search and saturation of the gates on the first validation pairs."""
        texts, _ = self.translate(self.pairs["valid"].sources[:PROBE_PAIRS], beam_size=1)
        gates = self._gates(self.pairs["valid"], training=False)
        return {
            "valid_bleu_greedy": self.score(texts, self.corpus.valid[1][:PROBE_PAIRS]).bleu,
            **{f"{kind}_gate_saturation": gates[kind]["saturation"] for kind in gates},
        }

    def summarise(self, directory: Path) -> dict[str, Any]:
        """Measurements on the test pairs; see the notebook for what each entry means.

        Writes the translations and what BLEU needs to know of them to ``directory``.
        """
        model, corpus, pairs = self.model, self.corpus, self.pairs
        size = len(pairs["test"])
        # As many training pairs as there are test pairs, spread evenly over the training text.
        number = min(size, len(pairs["train"]))
        chosen = [i * len(pairs["train"]) // number for i in range(number)]
        seen = Pairs(
            *(
                [side[i] for i in chosen]
                for side in (pairs["train"].sources, pairs["train"].targets)
            )
        )
        started = time.perf_counter()
        texts, hypotheses = self.translate(pairs["test"].sources)
        seconds = time.perf_counter() - started
        references = corpus.test[1]
        scores = self.score(texts, references)
        greedy = texts
        if self.configuration.evaluation["beam_size"] > 1:
            greedy, _ = self.translate(pairs["test"].sources, beam_size=1)
        valid, _ = self.translate(pairs["valid"].sources)
        seen_texts, _ = self.translate(seen.sources)
        seen_references = [corpus.train[1][i] for i in chosen]
        statistics = bleu_statistics(texts, references, corpus.tokenised, corpus.target_language)
        write_record(directory / BLEU_STATISTICS, statistics.tolist(), indent=None)
        write_record(directory / TRANSLATIONS, texts)
        self.source_subwords.save(directory / SOURCE_SUBWORDS)
        self.target_subwords.save(directory / TARGET_SUBWORDS)
        summary = {
            **{f"test_{name}": value for name, value in asdict(scores).items()},
            "test_bleu_greedy": self.score(greedy, references).bleu,
            "valid_bleu": self.score(valid, corpus.valid[1]).bleu,
            "train_bleu": self.score(seen_texts, seen_references).bleu,
            "test_perplexity": evaluate_translation(model, pairs["test"]).perplexity,
            "valid_perplexity": evaluate_translation(model, pairs["valid"]).perplexity,
            "train_perplexity": evaluate_translation(model, seen).perplexity,
            "train_pairs": len(self.objective.train_pairs),
            "unfinished": sum(not hypothesis.finished for hypothesis in hypotheses),
            "sentences_per_second": size / seconds,
            "source_subwords": len(self.source_subwords),
            "target_subwords": len(self.target_subwords),
            "protocol": "beam search over the whole test set, detokenised, sacreBLEU, cased",
            "gates": {
                mode: self._gates(pairs["test"], training=mode == "training")
                for mode in ("evaluation", "training")
            },
        }
        if corpus.clauses is not None:
            known = map(Pair, *corpus.test, corpus.clauses)
            accuracy = clause_accuracy(texts, list(known))
            summary |= {
                "reordered_clauses": accuracy.clauses,
                "clause_accuracy": accuracy.correct,
                "exact_with_clauses": accuracy.exact_with,
                "exact_without_clauses": accuracy.exact_without,
            }
        return summary

    def _unseen(self) -> dict[str, int]:
        """Characters of each split and language that the training pairs lack; warns of them."""
        names = (self.corpus.source_language, self.corpus.target_language)
        unseen = {
            f"{split}.{name}": sum(row.count(UNKNOWN) for row in side)
            for split, pairs in self.pairs.items()
            for name, side in zip(names, (pairs.sources, pairs.targets), strict=True)
        }
        found = ", ".join(f"{count} in {place}" for place, count in unseen.items() if count)
        if found:
            warnings.warn(
                f"{self.corpus.name} has characters that were never seen in training: {found}. "
                "Each is the unknown subword to the model, which is never trained.",
                stacklevel=3,
            )
        return unseen

    def _encode(self, sentences: tuple[list[str], list[str]]) -> Pairs:
        return encode_pairs(self.source_subwords, self.target_subwords, sentences)

    def score(self, texts: list[str], references: list[str]) -> Scores:
        """BLEU and chrF of detokenised text, as the corpus asks for."""
        return score(texts, references, self.corpus.tokenised, self.corpus.target_language)

    def _gates(self, pairs: Pairs, training: bool) -> dict[str, Any]:
        """Gates of every layer on the first pairs, encoder and decoder, by teacher forcing."""
        first = list(range(min(GATE_PAIRS, len(pairs))))
        batch = collate(pairs, first, self.model.output_bias.device)
        given = batch.source, batch.source_lengths, batch.inputs, batch.target_lengths
        return gate_summary(recorded(self.model, training, lambda: self.model(*given)))
