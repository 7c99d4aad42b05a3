"""How much of its accuracy a trained model keeps under compression: the paper's second experiment.

The settings are the paper's: steps and clips as they are. Ranks are the preset's where it has them,
as `paper` has the paper's; else the same share of the number of units as in the paper's Penn
Treebank and IWSLT'14 models.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from g2lstm.beam_search import translate
from g2lstm.compression import (
    Chain,
    Integers,
    LowRank,
    Method,
    Round,
    RoundClip,
    bits_per_weight,
    compress,
    gate_blocks,
)
from g2lstm.evaluation import CACHE_RECIPES, evaluate, evaluate_with_cache
from g2lstm.low_rank_lstm import factorise
from g2lstm.measurements import Measurement, Trained, loss_of
from g2lstm.packing import disk_bytes, flops_per_step

# Step, and ranks as shares of the units, of each task; the paper's own ranks are 128 and 64 of 1150
# units (language model), 32 and 16 of 256 (IWSLT'14) and of 1024 (WMT'14). The clip is twice the
# step.
PAPER_SETTINGS = {
    "language-model": {"step": 0.2, "svd": 128 / 1150, "svd+": 64 / 1150},
    "translation": {"step": 0.5, "svd": 32 / 256, "svd+": 16 / 256},
}
# Of the authors' code: what is compressed.
PAPER_MATRICES = {
    "language-model": ("input", "recurrent"),
    "translation": ("recurrent", "context"),
}
COLUMNS = ("result", "round", "round & clip", "SVD", "SVD+")  # of the paper's table
STEPS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
CLIPS = (0.2, 0.4, 0.7, 1.0, 1.5, 2.0)
RANK_SHARES = (0.5, 0.25, 0.125, 0.0625, 0.03125)


BLEU_METRIC = "test BLEU (sacreBLEU, cased)"


def perplexity_metric(cache_recipe: str | None) -> str:
    """What a test perplexity is, in words; None: without the cache pointer."""
    return "test perplexity" + (f", cache pointer ({cache_recipe})" if cache_recipe else "")


def rank_of(share: float, hidden_size: int) -> int:
    """The rank that is this share of ``hidden_size``; at least 1."""
    return max(1, round(share * hidden_size))


def hidden_size_of(trained: Trained) -> int:
    """Units of the run's largest layer."""
    lstms = [part for part in trained.model.modules() if isinstance(part, nn.LSTM)]
    return max(lstm.hidden_size for lstm in lstms)


def paper_ranks(task: str, hidden_size: int, evaluation: Mapping[str, Any]) -> tuple[int, int]:
    """Ranks of the columns SVD and SVD+ for a model of this size.

    Args:
        task: "language-model" or "translation".
        hidden_size: units of the largest layer.
        evaluation: settings of the run; ``svd_rank`` and ``svd_plus_rank`` where the preset has
            them, else the paper's shares of the units.
    """
    shares = PAPER_SETTINGS[task]
    return (
        evaluation.get("svd_rank") or rank_of(shares["svd"], hidden_size),
        evaluation.get("svd_plus_rank") or rank_of(shares["svd+"], hidden_size),
    )


def paper_methods(
    task: str, hidden_size: int, evaluation: Mapping[str, Any] | None = None
) -> dict[str, Method]:
    """Methods of the paper's table, by column; arguments as of `paper_ranks`."""
    step = PAPER_SETTINGS[task]["step"]
    rank, lower_rank = paper_ranks(task, hidden_size, evaluation or {})
    return {
        "round": Round(step),
        "round & clip": RoundClip(step, 2 * step),
        "SVD": LowRank(rank),
        "SVD+": LowRank(lower_rank),
    }


def describe(method: Method) -> str:
    """A method in words, for captions."""
    match method:
        case Round(step):
            return f"step {step:g}"
        case RoundClip(step, clip):
            return f"step {step:g}, clip {clip:g}"
        case LowRank(rank):
            return f"rank {rank}"
        case Integers(bits):
            return f"int{bits}"
        case Chain(methods):
            return ", then ".join(map(describe, methods))
    raise TypeError(f"no words for {method!r}")


def measure_compression(trained: Trained) -> dict[str, Any]:
    """The paper's table for one run: its metric on the test text, uncompressed and compressed.

    Returns:
        By column of the table: ``value`` (test perplexity, with the cache pointer where the preset
        has it; or BLEU by beam search), ``metric`` (which of them, in words), ``plain`` (test
        perplexity without the cache pointer, by teacher forcing in translation), ``method`` in
        words, ``megabytes`` of the model as stored (packed, or factored but for the context's
        columns) and ``flops_per_step`` of its LSTMs' products.
    """
    task = trained.configuration.task
    rows = {"result": _row(trained, trained.model, None)}
    methods = paper_methods(task, hidden_size_of(trained), trained.configuration.evaluation)
    for column, method in methods.items():
        model = compress(trained.model, method, matrices=PAPER_MATRICES[task])
        rows[column] = _row(trained, model, method)
    return rows


def measure_curves(
    trained: Trained,
    steps: Iterable[float] = STEPS,
    clips: Iterable[float] = CLIPS,
    rank_shares: Iterable[float] = RANK_SHARES,
    limit: int = 20_000,
    sentences: int = 200,
    ranks: Iterable[int] = (),
) -> list[dict[str, Any]]:
    """The metric on the validation text against the strength of each compression.

    Args:
        trained: the run.
        steps: of `Round`.
        clips: of `RoundClip`, with half of it as step.
        rank_shares: of `LowRank`, as shares of the units.
        limit: tokens, see `measurements.loss_of`.
        sentences: of a translation, how many are translated by greedy search.
        ranks: further ones of `LowRank`.

    Returns:
        A dict a setting: ``kind`` ("none", "step", "clip", "rank"), ``setting``, ``loss`` (nats a
        token; None: not finite), ``perplexity``, of a translation ``bleu``, and ``bits``: mean
        bits a weight of the compressed blocks as stored (32 uncompressed).
    """
    task = trained.configuration.task
    size = hidden_size_of(trained)
    settings: list[tuple[str, float, Method | None]] = [("none", 0.0, None)]
    settings += [("step", step, Round(step)) for step in steps]
    settings += [("clip", clip, RoundClip(clip / 2, clip)) for clip in clips]
    settings += [
        ("rank", rank, LowRank(rank))
        for rank in (*(rank_of(share, size) for share in rank_shares), *ranks)
    ]
    rows = []
    for kind, setting, method in settings:
        model = trained.model
        if method is not None:
            model = compress(model, method, matrices=PAPER_MATRICES[task])
        loss = loss_of(trained, model, "valid", limit)
        row = {"kind": kind, "setting": setting, "loss": loss, "perplexity": _perplexity(loss)}
        if task == "translation":
            row["bleu"] = _bleu(trained, model, "valid", sentences, beam_size=1)
        rows.append(row | {"bits": _mean_bits(model, method, PAPER_MATRICES[task])})
    return rows


def _row(trained: Trained, model: nn.Module, method: Method | None) -> dict[str, Any]:
    stored = model
    if isinstance(method, LowRank):
        kinds = PAPER_MATRICES[trained.configuration.task]
        stored = factorise(model, method.rank, [kind for kind in kinds if kind != "context"])
    if trained.configuration.task == "translation":
        value, metric = _bleu(trained, model, "test"), BLEU_METRIC
        plain = _perplexity(loss_of(trained, model, "test", limit=10**9))
    else:
        test = trained.task.corpus.test
        plain = value = evaluate(model, test).perplexity
        settings = trained.configuration.evaluation
        metric = perplexity_metric(settings["cache_recipe"] if settings["cache_pointer"] else None)
        if settings["cache_pointer"]:
            recipe = settings["cache_recipe"]
            value = evaluate_with_cache(model, test, *CACHE_RECIPES[recipe]).perplexity
    return {
        "value": value,
        "metric": metric,
        "plain": plain,
        "method": "none" if method is None else describe(method),
        "megabytes": disk_bytes(stored) / 1e6,
        "flops_per_step": flops_per_step(stored),
    }


def _bleu(
    trained: Trained,
    model: nn.Module,
    split: str,
    sentences: int | None = None,
    beam_size: int | None = None,
) -> float:
    task, settings = trained.task, trained.configuration.evaluation
    sources, references = task.pairs[split].sources, getattr(task.corpus, split)[1]
    found = translate(
        model,
        sources[:sentences],
        beam_size=settings["beam_size"] if beam_size is None else beam_size,
        length_penalty=settings["length_penalty"],
    )
    texts = task.target_subwords.decode([hypothesis.tokens for hypothesis in found])
    return task.score(texts, references[:sentences]).bleu


def _mean_bits(model: nn.Module, method: Method | None, matrices: tuple[str, ...]) -> float:
    """Bits a weight of the compressed blocks: of a code, or of the factors' float32."""
    bits = weights = 0
    for block in gate_blocks(model, matrices=matrices).values():
        weights += block.numel()
        if isinstance(method, LowRank):
            rank = min(method.rank, *block.shape)
            bits += 32 * min(rank * sum(block.shape), block.numel())
        else:
            bits += block.numel() * (32 if method is None else min(32, bits_per_weight(block)))
    return bits / weights


def _perplexity(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


_MODULES = (
    "compression", "low_rank_lstm", "packing", "robustness", "evaluation", "batches",
    "beam_search", "scoring",
)  # fmt: skip
COMPRESSION = Measurement("compression", measure_compression, _MODULES)
CURVES = Measurement("compression_curves", measure_curves, _MODULES)
