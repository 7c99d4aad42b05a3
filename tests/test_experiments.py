import json
from dataclasses import replace

import pytest

from g2lstm.experiments import (
    ParameterError,
    build_model,
    command,
    configure,
    gate_settings,
    results_directory,
    run_directory,
)
from g2lstm.lstm import G2LSTM
from g2lstm.presets import PRESETS


def test_defaults_are_the_papers_gate_on_the_presets_corpus():
    configuration = configure()
    assert (configuration.preset, configuration.corpus) == ("quick", "grammar")
    assert (configuration.temperature, configuration.noise_probability) == (0.9, 0.2)
    assert configuration.training == PRESETS["language-model"]["quick"].training
    assert configure(preset="small").corpus == configure(preset="paper").corpus == "ptb"


@pytest.mark.parametrize("preset", PRESETS["language-model"])
@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
def test_every_preset_builds_a_model_of_every_gate(preset, gate):
    configuration = configure(preset=preset, gate=gate)
    model = build_model(configuration, 10_000, device="meta")
    assert model.layers[0].gate == gate
    if gate != "sigmoid":
        assert model.temperature == configuration.temperature


def test_the_run_directory_says_what_the_run_is(monkeypatch, tmp_path):
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path))
    folder = run_directory(configure(seed=3)).relative_to(tmp_path)
    assert str(folder) == "language-model/grammar/quick/gumbel_tau-0.9_p-0.2/seed-3"
    monkeypatch.delenv("G2LSTM_RUNS")
    assert run_directory(configure()).parts[0] == "runs"
    monkeypatch.setenv("G2LSTM_RESULTS", str(tmp_path))
    assert results_directory("small") == tmp_path / "small"


def test_whatever_departs_from_the_preset_is_in_the_folder_name():
    names = {
        gate_settings(configure(**settings))
        for settings in (
            {},
            {"gate": "sigmoid"},
            {"gate": "sharpened"},
            {"temperature": 0.5},
            {"noise_probability": 1.0},
            {"schedule": "cosine", "temperature_end": 0.3},
            {"schedule": "linear", "temperature_end": 0.3},
            {"overrides": {"epochs": 1}},
            {"overrides": {"embedding_size": 9}},
            {"overrides": {"noise_gates": "input-forget-output"}},
            {"overrides": {"noise_distribution": "gaussian"}},
            {"overrides": {"evaluation_gate": "hard"}},
            {"overrides": {"evaluation_gate": "temperature"}},
            {"overrides": {"gate_learning_rate_factor": 5.0}},
            {"overrides": {"gate_initial_scale": 5.0}},
        )
    }
    assert len(names) == 15


def test_equal_settings_make_equal_configurations(tmp_path, monkeypatch):
    assert configure(noise_probability=1) == configure(noise_probability=1.0)
    assert configure(overrides={"dropout": 0}) == configure(overrides={"dropout": 0.0})
    monkeypatch.chdir(tmp_path)
    here = configure(corpus=".")
    assert here.corpus == str(tmp_path)
    assert run_directory(here).parts[-4] == tmp_path.name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "quik"}, "preset must be one of quick, small, paper-brief, paper, got 'quik'"),
        ({"gate": "gumble"}, "gate must be one of sigmoid, sharpened, gumbel, got 'gumble'"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"seed": 1.5}, "seed must be an integer >= 0, got 1.5"),
        ({"seed": True}, "seed must be an integer >= 0, got True"),
        ({"temperature": 0}, "temperature must be a finite number > 0, got 0"),
        ({"temperature": "hot"}, "temperature must be a number, got 'hot'"),
        ({"noise_probability": 1.5}, "got 1.5"),
        ({"gate": "sigmoid", "temperature": 0.5}, "temperature=0.5 has no effect"),
        ({"gate": "sharpened", "noise_probability": 0.5}, "noise_probability=0.5 has no effect"),
        ({"schedule": "cosine"}, "schedule='cosine' needs a temperature_end"),
        ({"temperature_end": 0.5}, "temperature_end=0.5 needs a schedule"),
        ({"schedule": "square", "temperature_end": 0.5}, "got 'square'"),
        ({"overrides": {"epoch": 1}}, "unknown override 'epoch'; did you mean 'epochs'?"),
        ({"overrides": {"epochs": 0}}, "epochs must be at least 1, got 0"),
        ({"overrides": {"epochs": True}}, "epochs must be of type int, got True"),
        ({"overrides": {"dropout": 2.0}}, "got 2.0"),
        ({"overrides": {"gate": "sigmoid"}}, "unknown override 'gate'"),
        ({"overrides": '{"epochs": 1}'}, "with papermill: -y 'overrides: {epochs: 1}'"),
        ({"corpus": 3}, "corpus must be text, got 3"),
    ],
)
def test_a_bad_setting_is_named(settings, message):
    with pytest.raises(ParameterError) as caught:
        configure(**settings)
    assert message in str(caught.value)


def test_the_command_names_what_is_not_default():
    start = "papermill notebooks/01_language_model.ipynb out.ipynb"
    assert (
        command(configure())
        == f"{start} -p preset quick -p corpus grammar -p gate gumbel -p seed 1"
    )
    text = command(configure(temperature=0.5, schedule="linear", temperature_end=0.2))
    assert "-p temperature 0.5" in text
    assert "-p schedule linear -p temperature_end 0.2" in text
    overrides = {"epochs": 1, "tie_weights": False}
    text = command(configure(overrides=overrides))
    assert json.loads(text.split("-y '")[1].rstrip("'")) == {"overrides": overrides}


# Translation


@pytest.mark.parametrize("preset", PRESETS["translation"])
@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
def test_every_translation_preset_builds_a_model_of_every_gate(preset, gate):
    configuration = configure(task="translation", preset=preset, gate=gate)
    model = build_model(configuration, 500, 400, device="meta")
    assert model.gate == gate
    assert configuration.evaluation["length_penalty"] == 1.0  # the authors' alpha


def test_a_corpus_may_have_settings_of_its_own():
    iwslt = configure(task="translation", preset="paper")
    assert (iwslt.corpus, iwslt.languages, iwslt.data["merges"]) == ("iwslt14", "de-en", 25_000)
    assert [lstm.hidden_size for lstm in build_model(iwslt, 9, 9, device="meta").lstms] == [256] * 4
    wmt = configure(task="translation", preset="paper", corpus="wmt14")
    model = build_model(wmt, 9, 9, device="meta")
    assert (wmt.languages, model.encoder.hidden_size, model.encoder.input_size) == (
        "en-de",
        1024,
        512,
    )
    assert configure(task="translation", preset="paper", corpus="wmt14", languages="de-en") != wmt
    assert wmt.overrides == {}


def test_a_gate_may_have_settings_of_its_own(monkeypatch):
    own = {"gumbel": {"clip": 0.5, "num_layers": 3}}
    quick = replace(PRESETS["language-model"]["quick"], for_gate=own)
    monkeypatch.setitem(PRESETS["language-model"], "quick", quick)
    assert configure(gate="sigmoid").training.clip == quick.training.clip == 1.0
    configuration = configure(gate="gumbel", noise_probability=1.0)
    assert (configuration.training.clip, configuration.model["num_layers"]) == (0.5, 3)
    assert configure(gate="gumbel", overrides={"clip": 0.5}).overrides == {}
    assert configure(gate="gumbel", overrides={"clip": 1.0}).overrides == {"clip": 1.0}


def test_a_translation_run_is_named_by_corpus_and_languages(monkeypatch, tmp_path):
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path))
    configuration = configure(task="translation", corpus="multi30k", languages="en-de", seed=2)
    folder = run_directory(configuration).relative_to(tmp_path)
    assert folder.parts[:3] == ("translation", "multi30k-en-de", "quick")
    text = command(configuration)
    assert text.startswith("papermill notebooks/03_translation.ipynb out.ipynb")
    assert "-p languages en-de" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "translate"}, "task must be one of language-model, translation, got 'translate'"),
        ({"languages": "deen"}, "languages must be source and target, such as 'de-en', got 'deen'"),
        ({"languages": "de-de"}, "got 'de-de'"),
        ({"languages": 3}, "got 3"),
        ({"task": "language-model", "languages": "de-en"}, "no effect on a language model"),
        ({"overrides": {"beam_size": 0}}, "beam_size must be at least 1, got 0"),
        ({"overrides": {"length_penalty": -1.0}}, "length_penalty must be at least 0, got -1.0"),
        ({"overrides": {"merges": "many"}}, "merges must be of type int, got 'many'"),
        ({"overrides": {"share_embeddings": True}}, "share_embeddings=True needs joint=True"),
        ({"overrides": {"attention": "dot"}}, "attention must be one of bahdanau, luong"),
        ({"overrides": {"bptt": 3}}, "unknown override 'bptt'"),
    ],
)
def test_a_bad_translation_setting_is_named(settings, message):
    with pytest.raises(ParameterError, match=message):
        configure(**({"task": "translation"} | settings))


def test_noise_eps_is_a_setting_of_the_gumbel_gate_only():
    assert configure(gate="gumbel", overrides={"noise_eps": 0.01}).model["noise_eps"] == 0.01
    with pytest.raises(
        ParameterError, match=r"noise_eps=0\.01 has no effect with gate='sharpened'"
    ):
        configure(gate="sharpened", overrides={"noise_eps": 0.01})


@pytest.mark.parametrize("task", PRESETS)
def test_options_of_gates_reach_the_model_and_the_training(task):
    overrides = {
        "noise_gates": "input-forget-output", "noise_distribution": "gaussian",
        "evaluation_gate": "hard",
        "gate_learning_rate_factor": 5, "gate_initial_scale": 0.2,
    }  # fmt: skip
    configuration = configure(task=task, overrides=overrides)
    model = build_model(configuration, *[9] * (1 if task == "language-model" else 2))
    for lstm in (part for part in model.modules() if isinstance(part, G2LSTM)):
        assert (lstm.noise_gates, lstm.noise_distribution) == ("input-forget-output", "gaussian")
        assert lstm.evaluation_gate == "hard"
    training = configuration.training
    assert (training.gate_learning_rate_factor, training.gate_initial_scale) == (5, 0.2)
    assert configure(task=task, overrides={"evaluation_gate": "plain"}).overrides == {}


@pytest.mark.parametrize(
    ("gate", "overrides", "message"),
    [
        ("sigmoid", {"noise_gates": "input-forget-output"}, "no effect with gate='sigmoid'"),
        ("sharpened", {"noise_distribution": "gaussian"}, "no effect with gate='sharpened'"),
        ("sharpened", {"evaluation_gate": "temperature"}, "no effect with gate='sharpened'"),
        ("gumbel", {"noise_distribution": "gaussian", "noise_eps": 0.1}, "noise_eps has no effect"),
        (
            "gumbel",
            {"noise_gates": "output"},
            "noise_gates must be one of input-forget, .*'output'",
        ),
        ("gumbel", {"noise_gate": 1}, "unknown override 'noise_gate'; did you mean 'noise_gates'"),
        ("gumbel", {"evaluation_gate": True}, "evaluation_gate must be of type str, got True"),
        (
            "sigmoid",
            {"gate_learning_rate_factor": 0.0},
            "gate_learning_rate_factor must be greater",
        ),
        ("sigmoid", {"gate_initial_scale": "inf"}, "gate_initial_scale must be a finite number"),
    ],
)
def test_a_bad_option_of_gates_is_named(gate, overrides, message):
    with pytest.raises(ParameterError, match=message):
        configure(gate=gate, overrides=overrides)
    assert configure(gate="sigmoid", overrides={"evaluation_gate": "hard"}).overrides


def test_strands_are_shared_out_evenly_among_the_processes():
    with pytest.raises(ParameterError, match="batch_size=20 must be a multiple of processes=3"):
        configure(overrides={"processes": 3})
    assert configure(overrides={"processes": 4}).processes == 4
    assert configure(task="translation", overrides={"processes": 3}).processes == 3
