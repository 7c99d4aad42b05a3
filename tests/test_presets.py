"""The preset `paper` against the paper: an independent table of its facts, with their sections."""

import pytest
import torch

from g2lstm.batches import Pairs
from g2lstm.experiments import ParameterError, build_model, configure
from g2lstm.objectives import TranslationObjective
from g2lstm.robustness import paper_methods

# 4.1.1: the model and, by "all other configurations" of Merity et al., their README's recipe.
LANGUAGE_MODEL = {
    "batch_size": 20, "dropout": 0.4, "dropout_between": 0.25, "dropout_embedding": 0.4,
    "dropout_words": 0.1, "weight_dropout": 0.5, "epochs": 500, "finetune_epochs": 500,
    "optimizer": "sgd", "learning_rate": 30.0, "nonmono": 5, "clip": 0.25, "bptt": 70,
    "weight_decay": 1.2e-6, "alpha": 2.0, "beta": 1.0,
    "cache_pointer": True, "cache_recipe": "penn-treebank",
}  # fmt: skip
# 4.1.2: both tasks, then each.
TRANSLATION = {
    "optimizer": "adadelta", "clip": 2.0, "max_subwords": 64, "beam_size": 5,
    "length_penalty": 1.0, "label_smoothing": 0.0, "joint": False,
}  # fmt: skip
OF_CORPUS = {
    "iwslt14": {
        "encoder_layers": 2, "decoder_layers": 2, "hidden_size": 256, "embedding_size": 256,
        "batch_sentences": 32, "merges": 25_000,
    },
    "wmt14": {
        "encoder_layers": 3, "decoder_layers": 3, "hidden_size": 1024, "embedding_size": 512,
        "batch_sentences": 64, "merges": 30_000,
    },
}  # fmt: skip
LANGUAGES = {"iwslt14": "de-en", "wmt14": "en-de"}
# 4.3: step, clip and ranks; the same ranks in both translation tasks.
COMPRESSION = {"language-model": (0.2, 0.4, 128, 64), "translation": (0.5, 1.0, 32, 16)}
GATES = {"sigmoid": (None, None), "sharpened": (0.2, None), "gumbel": (0.9, 0.2)}


def settings_of(configuration):
    return (
        configuration.model
        | vars(configuration.training)
        | configuration.data
        | configuration.evaluation
    )


def compression_of(configuration, hidden_size):
    methods = paper_methods(configuration.task, hidden_size, configuration.evaluation)
    clipped = methods["round & clip"]
    assert methods["round"].step == clipped.step
    return clipped.step, clipped.clip, methods["SVD"].rank, methods["SVD+"].rank


@pytest.mark.parametrize("gate", GATES)
def test_the_gates_are_the_papers(gate):
    configuration = configure(preset="paper", gate=gate)
    assert (configuration.temperature, configuration.noise_probability) == GATES[gate]


def test_the_language_model_is_the_papers():
    configuration = configure(preset="paper")
    found = settings_of(configuration)
    assert {name: found[name] for name in LANGUAGE_MODEL} == LANGUAGE_MODEL
    model = build_model(configuration, 10_000, device="meta")
    assert [layer.hidden_size for layer in model.layers] == [1150, 1150, 400]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert round(parameters / 1e6) == 24
    assert compression_of(configuration, 1150) == COMPRESSION["language-model"]


def test_the_brief_preset_differs_in_its_optimiser_alone():
    brief, whole = (settings_of(configure(preset=name)) for name in ("paper-brief", "paper"))
    assert {name for name in whole if brief[name] != whole[name]} == {
        "epochs", "finetune_epochs", "optimizer", "learning_rate", "learning_rate_schedule",
        "warmup", "weight_decay",
    }  # fmt: skip


@pytest.mark.parametrize("corpus", OF_CORPUS)
def test_the_translation_model_is_the_papers(corpus):
    configuration = configure(preset="paper", task="translation", corpus=corpus)
    expected = TRANSLATION | OF_CORPUS[corpus]
    found = settings_of(configuration)
    assert {name: found[name] for name in expected} == expected
    assert configuration.languages == LANGUAGES[corpus]
    units = expected["merges"]
    model = build_model(configuration, units, units, device="meta")
    lstms = [part for part in model.modules() if isinstance(part, torch.nn.LSTM)]
    assert {lstm.hidden_size for lstm in lstms} == {expected["hidden_size"]}
    layers = sum(lstm.num_layers for lstm in lstms)
    assert layers == expected["encoder_layers"] + expected["decoder_layers"]
    assert [lstm.bidirectional for lstm in lstms if lstm.bidirectional] == [True]
    assert compression_of(configuration, expected["hidden_size"]) == COMPRESSION["translation"]


def test_batches_of_the_preset_are_sentences():
    options = configure(preset="paper", task="translation").training
    pairs = Pairs([[4, 3]] * 100, [[4]] * 100)
    steps = TranslationObjective(pairs, pairs, 10, options).steps(0)
    assert sorted(len(step.batch) for step in steps) == [4, 32, 32, 32]


@pytest.mark.parametrize(
    ("task", "overrides", "message"),
    [
        ("translation", {"max_subwords": -1}, "max_subwords must be at least 0, got -1"),
        ("translation", {"batch_sentences": -1}, "batch_sentences must not be negative, got -1"),
        ("translation", {"svd_rank": 0}, "svd_rank must be at least 1, got 0"),
        ("language-model", {"cache_recipe": "ptb"}, "cache_recipe must be one of penn-treebank"),
    ],
)
def test_bad_settings_are_named(task, overrides, message):
    with pytest.raises(ParameterError, match=message):
        configure(preset="paper", task=task, overrides=overrides)
