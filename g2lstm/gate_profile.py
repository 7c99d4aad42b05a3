"""Where the gates of a trained model stand: by layer, by mode, on a text and on one sentence."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from g2lstm.batches import Pairs, collate, token_batches
from g2lstm.corpora import END
from g2lstm.evaluation import batchify
from g2lstm.inspection import gate_summary, record_gates, recorded
from g2lstm.language_model_task import GATE_STEPS, GATE_STRANDS
from g2lstm.lstm import set_mode
from g2lstm.measurements import Measurement, Trained
from g2lstm.presets import PRESETS
from g2lstm.translation_task import GATE_PAIRS

LEAST_WORDS = 10  # of the one sentence
BATCH_TOKENS = 2000  # most subwords at once of the training pairs
TRAINING_PAIRS = "training pairs"
ALL_LAYERS = "all layers"
# The paper's histograms are of its translation model; of language models it shows none.
PAPER_PLACES = {"language-model": ALL_LAYERS, "translation": "decoder layer 1"}


def measure_gate_profile(trained: Trained) -> dict[str, Any]:
    """Histograms, saturation and mean of the gates on the test text, and on training pairs.

    Returns:
        By "evaluation", "training" and "sentence" (evaluation mode, alone the first test sentence
        of ten words, or target subwords, or more; where there is none, the longest): a list with a
        dict for all layers together and for each layer and direction: ``module``, ``layer``,
        ``reverse`` (all None for all together), "input" and "forget" as `inspection.gate_summary`
        has them. Of a translation also "training pairs": a list with the one dict of the paper's
        place, evaluation mode, with ``pairs``, how many training pairs were read.
    """
    text, sentence = _calls(trained)
    profile = {
        "evaluation": _profile(trained, False, text),
        "training": _profile(trained, True, text),
        "sentence": _profile(trained, False, sentence),
    }
    if trained.configuration.task == "translation":
        profile[TRAINING_PAIRS] = [_on_training_pairs(trained)]
    return profile


def place_name(row: Mapping[str, Any]) -> str:
    """The layer and side of the gates of a row in words.

    Args:
        row: with ``module``, ``layer`` and ``reverse``, as `measure_gate_profile` has them.

    Returns:
        "all layers"; of a language model "layer 1" and so on; of a translation such as
        "encoder layer 1", "encoder layer 1, backwards", "encoder layer 2", "decoder layer 1".
    """
    if row["layer"] is None:
        return ALL_LAYERS
    if row["module"].startswith("layers."):
        return f"layer {int(row['module'].removeprefix('layers.')) + 1}"
    side = row["module"].removeprefix("upper_")
    number = row["layer"] + (1 if side == row["module"] else 2)
    name = f"{side} layer {number}".strip()
    return f"{name}, backwards" if row["reverse"] else name


def at_place(rows: Sequence[Mapping[str, Any]], place: str) -> Mapping[str, Any]:
    """The row of one place.

    Args:
        rows: of one mode, as `measure_gate_profile` returns them.
        place: as `place_name` names it.

    Raises:
        ValueError: there is no such place; names those there are.
    """
    found = {place_name(row): row for row in rows}
    if place not in found:
        raise ValueError(f"there are no gates at place {place!r}, only at: {'; '.join(found)}")
    return found[place]


def paper_place(task: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of the paper's place: the decoder's first layer, of a language model all layers.

    Args:
        task: "language-model" or "translation".
        rows: of one mode, as `measure_gate_profile` returns them.

    Raises:
        ValueError: the place is not among the rows.
    """
    return at_place(rows, PAPER_PLACES[task])


def _profile(trained: Trained, training: bool, call: Callable[[], None]) -> list[dict[str, Any]]:
    records = recorded(trained.model, training, call)
    together = {"module": None, "layer": None, "reverse": None}
    rows = [together | gate_summary(records)]
    for key in dict.fromkeys((r.module, r.layer, r.reverse) for r in records):
        module, layer, reverse = key
        mine = [r for r in records if (r.module, r.layer, r.reverse) == key]
        rows.append({"module": module, "layer": layer, "reverse": reverse} | gate_summary(mine))
    return rows


@torch.no_grad()
def _on_training_pairs(trained: Trained) -> dict[str, Any]:
    """The decoder's first layer on pairs spread evenly over the training text."""
    model, every = trained.model, trained.task.pairs["train"]
    configuration = trained.configuration
    limit = PRESETS[configuration.task][configuration.preset].analysis["gate_pairs"]
    number = min(limit, len(every))
    chosen = [i * len(every) // number for i in range(number)]
    pairs = Pairs([every.sources[i] for i in chosen], [every.targets[i] for i in chosen])
    parts, steps = [], []
    with set_mode(model, training=False):
        for indices in token_batches(pairs, BATCH_TOKENS):
            batch = collate(pairs, indices, model.output_bias.device)
            with record_gates(model.decoder) as records:
                model(batch.source, batch.source_lengths, batch.inputs, batch.target_lengths)
            parts.append(gate_summary(records))
            steps.append(int(batch.target_lengths.sum()))
    # Every batch has its own number of values.
    summary = {
        kind: {
            name: np.average([part[kind][name] for part in parts], axis=0, weights=steps).tolist()
            for name in parts[0][kind]
        }
        for kind in parts[0]
    }
    return {"module": "decoder", "layer": 0, "reverse": False, "pairs": number} | summary


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
