"""Where the gates of a trained model stand: by layer, by mode, on a text and on one sentence."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

from g2lstm.batches import collate
from g2lstm.corpora import END
from g2lstm.evaluation import batchify
from g2lstm.inspection import gate_summary, recorded
from g2lstm.language_model_task import GATE_STEPS, GATE_STRANDS
from g2lstm.measurements import Measurement, Trained
from g2lstm.translation_task import GATE_PAIRS

LEAST_WORDS = 10  # of the one sentence


def measure_gate_profile(trained: Trained) -> dict[str, Any]:
    """Histograms, saturation and mean of the gates on the test text.

    Returns:
        By "evaluation", "training" and "sentence" (evaluation mode, alone the first test sentence
        of ten words, or target subwords, or more; where there is none, the longest): a list with a
        dict for all layers together and for each layer and direction: ``module``, ``layer``,
        ``reverse`` (all None for all together), "input" and "forget" as `inspection.gate_summary`
        has them.
    """
    text, sentence = _calls(trained)
    return {
        "evaluation": _profile(trained, False, text),
        "training": _profile(trained, True, text),
        "sentence": _profile(trained, False, sentence),
    }


def _profile(trained: Trained, training: bool, call: Callable[[], None]) -> list[dict[str, Any]]:
    records = recorded(trained.model, training, call)
    together = {"module": None, "layer": None, "reverse": None}
    rows = [together | gate_summary(records)]
    for key in dict.fromkeys((r.module, r.layer, r.reverse) for r in records):
        module, layer, reverse = key
        mine = [r for r in records if (r.module, r.layer, r.reverse) == key]
        rows.append({"module": module, "layer": layer, "reverse": reverse} | gate_summary(mine))
    return rows


def _calls(trained: Trained) -> tuple[Callable[[], None], Callable[[], None]]:
    """Two calls of the model: on much of the test text, and on one sentence."""
    model, task = trained.model, trained.task
    if trained.configuration.task == "translation":
        pairs = task.pairs["test"]
        device = model.output_bias.device

        def run(indices: list[int]) -> None:
            batch = collate(pairs, indices, device)
            model(batch.source, batch.source_lengths, batch.inputs, batch.target_lengths)

        one = _long(pairs.targets)
        return lambda: run(list(range(min(GATE_PAIRS, len(pairs))))), lambda: run([one])

    device = model.embedding.weight.device
    strands = batchify(task.corpus.test[: GATE_STRANDS * GATE_STEPS], GATE_STRANDS).to(device)
    end = task.corpus.vocabulary.index[END]
    tokens = task.corpus.test.tolist()
    ends = [-1, *(place for place, token in enumerate(tokens) if token == end)]
    sentences = [tokens[before + 1 : place] for before, place in pairwise(ends)]
    sentence = torch.tensor([end, *sentences[_long(sentences)]], device=device)[:, None]
    return lambda: model(strands), lambda: model(sentence)


def _long(sentences: Sequence[Sequence[int]]) -> int:
    """Index of the first sentence of `LEAST_WORDS` or more; where there is none, of the longest."""
    long = (i for i, sentence in enumerate(sentences) if len(sentence) >= LEAST_WORDS)
    return next(long, max(range(len(sentences)), key=lambda i: len(sentences[i])))


GATE_PROFILE = Measurement(
    "gate_profile", measure_gate_profile, ("batches", "evaluation", "inspection", "gate_profile")
)
