from dataclasses import replace

import pytest
import yaml

from g2lstm.experiments import configure, gate_settings
from g2lstm.parameters import ParameterError
from g2lstm.presets import PRESETS
from g2lstm.settings import changed, checked_overrides


def test_overrides_reach_training_and_model():
    overrides = {"epochs": 2, "hidden_size": 9, "num_layers": 2, "dropout": 0, "threads": 2}
    configuration = configure(overrides=overrides)
    assert configuration.training.epochs == 2
    assert configuration.model["hidden_size"] == 9
    assert configuration.model["dropout"] == 0
    assert configuration.threads == 2
    assert "hidden_size" not in PRESETS["language-model"]["quick"].model


def test_overrides_reach_data_and_evaluation():
    overrides = {"merges": 10, "joint": True, "share_embeddings": True, "beam_size": 2}
    configuration = configure(task="translation", overrides=overrides | {"epochs": 1})
    assert configuration.data["merges"] == 10
    assert configuration.evaluation["beam_size"] == 2
    assert configuration.model["share_embeddings"] is True
    assert configuration.training.epochs == 1
    assert "share_embeddings-True" in gate_settings(configuration)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("language-model", {"epoch": 1}, "unknown override 'epoch'; did you mean 'epochs'?"),
        ("language-model", {"epochs": "two"}, "epochs must be of type int, got 'two'"),
        ("language-model", {"epochs": 10**9 + 1}, "epochs must be at most 1000000000"),
        ("language-model", {"num_layers": 101}, "num_layers must be at most 100, got 101"),
        ("language-model", {"threads": 0}, "threads must be at least 1, got 0"),
        ("language-model", {"dropout": "1e400"}, "dropout must be a finite number, got inf"),
        ("language-model", {"epochs": "1e1"}, "epochs must be of type int, got '1e1': write 10"),
        ("translation", {"length_penalty": 1e308}, "length_penalty must be at most 10, got 1e+308"),
        ("translation", {"bptt": 3}, "unknown override 'bptt'"),
        ("translation", {"joint": 1}, "joint must be of type bool, got 1"),
    ],
)
def test_a_bad_override_is_named(task, settings, message):
    with pytest.raises(ParameterError) as caught:
        checked_overrides(PRESETS[task]["quick"], settings, task)
    assert message in str(caught.value)


def test_what_the_preset_has_itself_is_no_override():
    quick = PRESETS["translation"]["quick"]
    own = quick.model | quick.data | quick.evaluation | {"processes": quick.processes}
    assert checked_overrides(quick, own | {"epochs": 99}, "translation") == {"epochs": 99}


def test_a_changed_preset_differs_there_and_nowhere_else():
    quick = PRESETS["language-model"]["quick"]
    settings = {"epochs": 7, "hidden_size": 9, "cache_pointer": True, "threads": 2}
    other = changed(quick, settings)
    assert (other.training.epochs, other.model["hidden_size"]) == (7, 9)
    assert (other.evaluation["cache_pointer"], other.threads) == (True, 2)
    assert other.evaluation | {"cache_pointer": False} == quick.evaluation
    assert (
        replace(
            other,
            training=quick.training,
            model=quick.model,
            evaluation=quick.evaluation,
            threads=1,
        )
        == quick
    )


@pytest.mark.parametrize("settings", [{}, {"num_layers": 1}, {"gate": "sigmoid"}])
def test_units_of_layers_that_there_are_not_are_refused(settings):
    gate = settings.pop("gate", "gumbel")
    with pytest.raises(ParameterError, match=r"hidden_size=64 has no effect with num_layers=1"):
        configure(gate=gate, overrides=settings | {"hidden_size": 64})
    for effective in ({"num_layers": 2}, {"tie_weights": False}):
        assert configure(gate=gate, overrides=settings | effective | {"hidden_size": 64})
    # A preset of two layers may be cut to one: nobody asked for its units.
    assert configure(preset="small", gate=gate, overrides={"num_layers": 1})


@pytest.mark.parametrize("name", ["temperature", "noise_probability"])
@pytest.mark.parametrize("text", ["1e-1", "1E-1", "0.1", " .1"])
def test_a_gate_setting_may_be_text_that_is_a_number(name, text):
    assert configure(**{name: text}) == configure(**{name: 0.1})


@pytest.mark.parametrize("deep", [1_000, 20_000])
@pytest.mark.parametrize("name", ["gate", "temperature", "corpus", "preset", "overrides"])
def test_values_nested_thousands_deep_are_refused_by_name(name, deep):
    value = []
    for _ in range(deep):
        value = [value]
    for given in ({name: value}, {"overrides": {"epochs": value, "dropout": {1: value}}}):
        with pytest.raises(ParameterError, match=f"{next(iter(given))}.* nested too deeply"):
            configure(**given)


def test_a_number_that_yaml_takes_for_text_is_one():
    assert yaml.safe_load("1e-06") == "1e-06"
    configuration = configure(overrides={"noise_eps": "1e-06"})
    assert configuration == configure(overrides={"noise_eps": 1e-6})
    with pytest.raises(ParameterError, match="noise_eps must be of type float, got 'small'"):
        configure(overrides={"noise_eps": "small"})
