import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import cross_entropy

from g2lstm.batches import Pairs, collate
from g2lstm.evaluation import evaluate_translation
from g2lstm.language_model import LanguageModel
from g2lstm.objectives import LanguageModelObjective, TranslationObjective, jittered_bounds
from g2lstm.options import LanguageModelOptions, TranslationOptions
from g2lstm.subwords import END
from g2lstm.training import train
from g2lstm.translation import TranslationModel

TEXT = torch.arange(600) % 11
# The translation is the source backwards, in other symbols.
SOURCES = [[4 + (i * k) % 5 for k in range(1, 2 + i % 4)] for i in range(80)]
TARGETS = [[w + 5 for w in reversed(source)] for source in SOURCES]
PAIRS = Pairs([[*source, END] for source in SOURCES], TARGETS)
OPTIONS = TranslationOptions(epochs=3, batch_tokens=60, learning_rate=0.02)


def translation_model(**settings):
    torch.manual_seed(0)
    return TranslationModel(9, 14, 16, 16, 1, 1, **({"dropout": 0.0} | settings))


def text_objective(**changes):
    options = replace(LanguageModelOptions(batch_size=4, bptt=10, alpha=0.0, beta=0.0), **changes)
    return LanguageModelObjective(TEXT, TEXT[:200], 11, options, seed=2)


def test_jittered_segments_cover_the_text_with_the_right_mean():
    bounds = list(jittered_bounds(100_000, 70, seed=1, epoch=0))
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 100_000
    assert all(a[1] == b[0] for a, b in pairwise(bounds))
    sizes = [end - start for start, end in bounds]
    assert sum(sizes) / len(sizes) == pytest.approx(0.95 * 70 + 0.05 * 35, rel=0.03)
    assert bounds == list(jittered_bounds(100_000, 70, seed=1, epoch=0))
    assert bounds != list(jittered_bounds(100_000, 70, seed=1, epoch=1))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_steps_of_text_cover_an_epoch_and_scale_the_rate_of_sgd(optimizer):
    objective = text_objective(optimizer=optimizer)
    steps = objective.steps(0)
    assert sum(step.tokens for step in steps) == objective.epoch_tokens == 149 * 4
    assert steps[0].done == 0
    assert all(a.done < b.done < 1 for a, b in pairwise(steps))
    expected = [step.tokens / 40 if optimizer == "sgd" else 1.0 for step in steps]
    assert [step.scale for step in steps] == expected
    assert steps == objective.steps(0) != objective.steps(1)


def test_the_state_of_text_is_carried_within_an_epoch():
    torch.manual_seed(0)
    model = LanguageModel(11, 6, 6, 1, gate="sigmoid").eval()
    objective = text_objective()
    steps = objective.steps(0)
    losses = [objective.losses(model, step.batch)[1] for step in steps]
    total = sum(loss * step.tokens for loss, step in zip(losses, steps, strict=True))
    whole = model(objective.strands[:-1])
    expected = model.loss(whole.hidden.flatten(0, 1), objective.strands[1:].flatten())
    torch.testing.assert_close(total / objective.epoch_tokens, expected)
    again = objective.steps(0)
    assert objective.losses(model, again[0].batch)[1] == losses[0], "a new epoch starts from zero"


def test_steps_of_pairs_cover_an_epoch():
    objective = TranslationObjective(PAIRS, PAIRS, 14, OPTIONS, seed=1)
    steps = objective.steps(0)
    assert sum(step.tokens for step in steps) == objective.epoch_tokens == PAIRS.target_tokens
    assert sorted(i for step in steps for i in step.batch) == list(range(80))
    assert steps[0].done == 0
    assert all(a.done < b.done < 1 for a, b in pairwise(steps))
    assert steps == objective.steps(0) != objective.steps(1)
    assert objective.guessing == math.log(14)


def test_the_loss_of_pairs_is_the_smoothed_cross_entropy():
    model = translation_model(gate="sigmoid")
    objective = TranslationObjective(PAIRS, PAIRS, 14, OPTIONS)
    (batch, tokens, *_), *_ = objective.steps(0)
    smoothed, loss = objective.losses(model, batch)
    pairs = collate(PAIRS, batch)
    hidden = model(pairs.source, pairs.source_lengths, pairs.inputs).hidden
    logits = (hidden @ model.target_embedding.weight.T + model.output_bias).flatten(0, 1)
    targets = pairs.targets.flatten()
    assert tokens == (targets != 0).sum()
    torch.testing.assert_close(loss, cross_entropy(logits, targets, ignore_index=0))
    expected = cross_entropy(logits, targets, ignore_index=0, label_smoothing=0.1)
    torch.testing.assert_close(smoothed, expected)


def test_evaluation_does_not_depend_on_the_batches():
    model = translation_model(gate="gumbel", dropout=0.5).train()
    losses = [evaluate_translation(model, PAIRS, tokens) for tokens in (1, 50, 10_000)]
    assert losses[0].tokens == PAIRS.target_tokens
    for other in losses[1:]:
        assert other.loss == pytest.approx(losses[0].loss, rel=1e-5)
    assert model.training


@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
def test_a_model_learns_to_reverse(tmp_path, gate):
    model = translation_model(gate=gate)
    options = replace(OPTIONS, epochs=12, batch_tokens=15, label_smoothing=0.0)
    objective = TranslationObjective(PAIRS, PAIRS, 14, options)
    metrics = train(model, objective, options, tmp_path, progress_bar=False)
    assert metrics[0]["valid_loss"] < math.log(14)
    assert metrics[-1]["valid_perplexity"] < 1.5


def test_label_smoothing_changes_the_result(tmp_path):
    losses = []
    for smoothing in (0.0, 0.2):
        options = replace(OPTIONS, epochs=2, label_smoothing=smoothing)
        objective = TranslationObjective(PAIRS, PAIRS, 14, options)
        metrics = train(
            translation_model(), objective, options, tmp_path / str(smoothing), progress_bar=False
        )
        losses.append(metrics[-1]["valid_loss"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_tokens": 0}, "batch_tokens must be at least 1, got 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw, adadelta, got 'adam'"),
    ],
)
def test_a_bad_option_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(OPTIONS, **changes)
