"""The single settings of experiments: which there are, and checked changes to a preset's."""

import inspect
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

from g2lstm.language_model import LanguageModel
from g2lstm.parameters import ParameterError, hint
from g2lstm.presets import PRESETS, Preset
from g2lstm.translation import TranslationModel

MODELS = {"language-model": LanguageModel, "translation": TranslationModel}
# The greatest numbers that make sense: beyond them a slip would take all memory, or for ever.
MOST = {
    "num_layers": 100, "encoder_layers": 100, "decoder_layers": 100, "beam_size": 1000,
    "hidden_size": 10**6, "embedding_size": 10**6, "merges": 10**6, "threads": 1024,
    "processes": 1024, "length_penalty": 10,
}  # fmt: skip
MOST_OF_ALL = 10**9
# What a model gets from elsewhere than the preset.
_SET_ELSEWHERE = {
    "self", "vocabulary_size", "source_size", "target_size", "padding",
    "gate", "temperature", "noise_probability",
}  # fmt: skip
_COUNTS = ("threads", "processes")
PARTS = ("model", "training", "data", "evaluation")  # of a configuration, with settings by name


def for_corpus(preset: Preset, corpus: str | None) -> Preset:
    """The preset with what it says of the corpus of this name."""
    settings = dict(preset.for_corpus.get(corpus, {}))
    languages = settings.pop("languages", preset.languages)
    return replace(changed(preset, settings), languages=languages)


def changed(preset: Preset, settings: Mapping[str, Any]) -> Preset:
    """The preset with other values for single settings; those it does not name are the model's."""
    training = {option.name for option in fields(preset.training)}
    parts: dict[str, dict[str, Any]] = {"data": {}, "evaluation": {}, "training": {}, "model": {}}
    for name, value in settings.items():
        if name in preset.data:
            parts["data"][name] = value
        elif name in preset.evaluation:
            parts["evaluation"][name] = value
        elif name in training:
            parts["training"][name] = value
        elif name not in _COUNTS:
            parts["model"][name] = value
    return replace(
        preset,
        model=preset.model | parts["model"],
        training=replace(preset.training, **parts["training"]),
        data=preset.data | parts["data"],
        evaluation=preset.evaluation | parts["evaluation"],
        **{name: settings.get(name, getattr(preset, name)) for name in _COUNTS},
    )


def checked_overrides(preset: Preset, overrides: dict[str, Any], task: str) -> dict[str, Any]:
    """The overrides that depart from the preset, each of the kind and size of its setting.

    Raises:
        ParameterError: an unknown name, or a value of the wrong kind or out of range; names it.
    """
    training = {
        option.name: getattr(preset.training, option.name) for option in fields(preset.training)
    }
    examples = model_defaults(task) | training | preset.data | preset.evaluation
    examples |= {name: getattr(preset, name) for name in _COUNTS}
    checked = {}
    for name, value in overrides.items():
        if name not in examples:
            close = hint(str(name), examples)
            raise ParameterError(f"unknown override {name!r}{close} Known: {', '.join(examples)}")
        checked[name] = _of_kind(name, value, examples[name])
        if name in MOST or isinstance(checked[name], int):
            least = 1 if name in _COUNTS else -math.inf
            within_bounds(name, checked[name], least, MOST.get(name, MOST_OF_ALL))
    now = examples | preset.model
    return {name: value for name, value in checked.items() if value != now[name]}


def made_with(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a published run that its preset has corrected since: `Preset.published`, or {}.

    Args:
        config: of the run; of the settings it must name one, and none with another value.
    """
    then = PRESETS[config["task"]][config["preset"]].published
    said = {k: v for part in PARTS for k, v in config.get(part, {}).items() if k in then}
    return then if said and all(said[name] == then[name] for name in said) else {}


def cache_recipe(config: Mapping[str, Any]) -> str:
    """Whose settings the cache pointer of a run has; older records name none: WikiText-2's."""
    return config.get("evaluation", {}).get("cache_recipe", "wikitext-2")


def model_defaults(task: str) -> dict[str, Any]:
    """Defaults of the arguments of a task's model that a preset or an override may set."""
    parameters = inspect.signature(MODELS[task].__init__).parameters
    return {name: p.default for name, p in parameters.items() if name not in _SET_ELSEWHERE}


def training_defaults(task: str) -> dict[str, Any]:
    """Defaults of the options of training of a task, by name."""
    options = next(iter(PRESETS[task].values())).training
    return {option.name: option.default for option in fields(options)}


def check_depth(values: Mapping[str, Any]) -> None:
    """Refuse values that are nested too deeply to be shown in a message.

    Raises:
        ParameterError: names the value.
    """
    for name, value in values.items():
        try:
            repr(value)
        except RecursionError:
            raise ParameterError(f"{name} is nested too deeply: give a plain value") from None


def check_effect(
    overrides: Mapping[str, Any], model: Mapping[str, Any], gate: str, task: str
) -> None:
    """Refuse settings of what the model has not: of Gumbel gates, of their noise, of layers.

    Raises:
        ParameterError: a setting has no effect with the others; names it.
    """
    of_gumbel = ["noise_eps", "noise_distribution", "noise_gates"]
    of_gumbel += ["evaluation_gate"] if overrides.get("evaluation_gate") == "temperature" else []
    for name in of_gumbel:
        if name in overrides and gate != "gumbel":
            raise ParameterError(f"{name}={overrides[name]!r} has no effect with gate={gate!r}")
    if "noise_eps" in overrides and model.get("noise_distribution") == "gaussian":
        raise ParameterError("noise_eps has no effect with noise_distribution='gaussian'")
    model = model_defaults(task) | dict(model)
    if "hidden_size" in overrides and model.get("num_layers") == 1 and model["tie_weights"]:
        raise ParameterError(
            f"hidden_size={overrides['hidden_size']!r} has no effect with num_layers=1 and "
            "tie_weights=True, for the last layer has embedding_size units: set embedding_size, "
            "or num_layers=2, or tie_weights=False"
        )


def checked_languages(default: str | None, languages: str | None) -> str | None:
    """``languages`` of a translation, or those of the preset, which has none of another task.

    Raises:
        ParameterError: they are not two names with a hyphen between them.
    """
    if languages is None:
        return default
    if default is None:
        raise ParameterError(f"languages={languages!r} has no effect on a language model")
    parts = languages.split("-") if isinstance(languages, str) else []
    # They are parts of names of files.
    if len(parts) != 2 or not all(map(str.isidentifier, parts)) or parts[0] == parts[1]:
        raise ParameterError(
            f"languages must be source and target, such as 'de-en', got {languages!r}"
        )
    return languages


def within_bounds(name: str, value: float, least: float, most: float) -> float:
    """``value``, if it is neither too small nor too large.

    Raises:
        ParameterError: it is; names it.
    """
    if value < least:
        raise ParameterError(f"{name} must be at least {least}, got {value!r}")
    if value > most:
        raise ParameterError(f"{name} must be at most {most}, got {value!r}")
    return value


def finite(name: str, value: Any) -> float:
    """``value`` as a finite float; text that is a number counts as one.

    YAML, and so papermill, takes 1e-06 for text.

    Raises:
        ParameterError: it is none.
    """
    value = _number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ParameterError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ParameterError(f"{name} must be a finite number, got {number!r}")
    return number


def _of_kind(name: str, value: Any, example: Any) -> Any:
    """``value`` if it is of the type of ``example`` (an int passes for a float, see `finite`)."""
    value = _number(value) if isinstance(example, float) else value
    kinds = (int, float) if isinstance(example, float) else (type(example),)
    wrong_bool = isinstance(value, bool) and not isinstance(example, bool)
    if wrong_bool or not isinstance(value, kinds):
        whole = _number(value)
        remedy = f": write {whole:.0f}" if kinds == (int,) and isinstance(whole, float) else ""
        raise ParameterError(
            f"{name} must be of type {type(example).__name__}, got {value!r}{remedy}"
        )
    return finite(name, value) if isinstance(example, float) else value


def _number(value: Any) -> Any:
    """Text that is a number as a float, anything else as it is."""
    with suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value
