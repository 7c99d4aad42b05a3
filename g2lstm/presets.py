"""The presets: size, training and measurement of the models of each experiment at each scale."""

from dataclasses import dataclass, field
from typing import Any

from g2lstm.gates import DEFAULT_TEMPERATURES
from g2lstm.options import LanguageModelOptions, TrainingOptions, TranslationOptions

# Dropout rates of the language model's preset `small`, all times the same.
HALF_DROPOUT, QUARTER_DROPOUT = (
    {
        "dropout": round(0.3 * times, 4), "dropout_between": round(0.2 * times, 4),
        "dropout_embedding": round(0.2 * times, 4), "dropout_words": round(0.05 * times, 4),
        "weight_dropout": round(0.2 * times, 4),
    }
    for times in (0.5, 0.25)
)  # fmt: skip

# The first 5,000 tokens of Penn Treebank can put the models in another order than the whole text.
ANALYSIS = {
    "limit": 20_000, "sentences": 500, "directions": 3, "points": 7, "surface_limit": 2_000,
    "gate_pairs": 10_000,
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """Settings of one experiment at one scale.

    Attributes:
        corpus: name of the corpus, unless another is asked for.
        model: arguments of the model, gates apart.
        training: how to train.
        data: settings of the data: for translation ``merges`` and ``joint`` (see
            `subwords.learn_subwords`), ``max_length`` (see `load_parallel`) and ``max_subwords``:
            training pairs with more subwords on a side are left out; 0: none is.
        evaluation: settings of the final measurement: for the language model ``cache_pointer`` and
            ``cache_recipe`` (a name in `evaluation.CACHE_RECIPES`), for translation ``beam_size``
            and ``length_penalty``; and ``svd_rank`` and ``svd_plus_rank``, those of compression,
            where they are not a share of the units (see `robustness.paper_ranks`).
        languages: source and target of a translation, such as "de-en".
        threads: of torch on the CPU; part of what makes a run repeat exactly.
        processes: that train together, each on a GPU of its own if there are any and each with its
            share of every batch, see `data_parallel`.
        seeds: of the grid.
        for_corpus: other values of single settings for a corpus of this name.
        for_gate: the same for a gate, where tuning chose others than the LSTM's.
        published: settings in which the published runs of the preset differ from it, because it
            was corrected after them; see `experiments.made_with`.
        ablations: G2-LSTMs in other settings that the grid trains too: arguments of `configure`.
        candidates: settings that are tried in tuning, with every gate, see `tuning`.
        analysis: how much is measured on a trained run: ``limit``, ``sentences``, ``directions``,
            ``points`` and ``surface_limit``, see `robustness` and `sensitivity`; of a translation
            ``gate_pairs``, most training pairs on which `gate_profile` measures gates.
    """

    corpus: str
    model: dict[str, Any]
    training: TrainingOptions
    data: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    languages: str | None = None
    threads: int = 1
    processes: int = 1
    seeds: tuple[int, ...] = (1, 2, 3)
    for_corpus: dict[str, dict[str, Any]] = field(default_factory=dict)
    for_gate: dict[str, dict[str, Any]] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)
    ablations: tuple[dict[str, Any], ...] = ()
    candidates: tuple[dict[str, Any], ...] = ()
    analysis: dict[str, int] = field(default_factory=lambda: dict(ANALYSIS))


# AWD-LSTM's recipe for Penn Treebank, which the paper follows.
PENN_TREEBANK_DROPOUT = {
    "dropout": 0.4, "dropout_between": 0.25, "dropout_embedding": 0.4, "dropout_words": 0.1,
    "weight_dropout": 0.5,
}  # fmt: skip
_PAPER_EVALUATION = {
    "cache_pointer": True, "cache_recipe": "penn-treebank", "svd_rank": 128, "svd_plus_rank": 64,
}  # fmt: skip

LANGUAGE_MODEL = {
    # Less than a minute a run on one core. Without dropout: the text is plentiful and never noisy.
    "quick": Preset(
        corpus="grammar",
        model={
            "embedding_size": 128, "num_layers": 1,
            "dropout": 0.0, "dropout_between": 0.0, "dropout_embedding": 0.0,
            "dropout_words": 0.0, "weight_dropout": 0.0,
        },
        training=LanguageModelOptions(
            epochs=5, batch_size=20, bptt=35, optimizer="adamw", learning_rate=8e-3,
            learning_rate_schedule="cosine", warmup=0.05, weight_decay=0.01,
            clip=1.0, alpha=0.0, beta=0.0,
        ),
        evaluation={"cache_pointer": False, "cache_recipe": "penn-treebank"},
        # One setting at a time, and the authors' details as switches.
        ablations=(
            {"noise_probability": 0.0},
            {"noise_probability": 0.5},
            {"noise_probability": 1.0},
            {"temperature": 0.5},
            {"temperature": 2.0},
            {"schedule": "exponential", "temperature": 2.0, "temperature_end": 0.5},
            {"overrides": {"noise_eps": 1e-6}},
        ),
        analysis={
            "limit": 20_000, "sentences": 200, "directions": 5, "points": 9, "surface_limit": 5_000,
        },
    ),
    # Penn Treebank on one core in a quarter of an hour; without bfloat16 in up to an hour.
    "small": Preset(
        corpus="ptb",
        model={
            "embedding_size": 320, "hidden_size": 320, "num_layers": 2, "cutoff": 2000,
        } | HALF_DROPOUT,
        training=LanguageModelOptions(
            epochs=10, batch_size=32, bptt=35, optimizer="adamw", learning_rate=6e-3,
            learning_rate_schedule="cosine", warmup=0.03, weight_decay=0.2,
            clip=1.0, alpha=1.0, beta=0.5, precision="bfloat16",
        ),
        evaluation={"cache_pointer": True, "cache_recipe": "penn-treebank"},
        ablations=({"noise_probability": 1.0},),
        candidates=(
            {"learning_rate": 6e-3, "weight_decay": 0.02} | QUARTER_DROPOUT,
            {"learning_rate": 6e-3, "weight_decay": 0.02} | HALF_DROPOUT,
            {"learning_rate": 3e-3, "weight_decay": 0.02} | HALF_DROPOUT,
            {"learning_rate": 6e-3, "weight_decay": 0.2} | HALF_DROPOUT,
            {"learning_rate": 3e-3, "weight_decay": 0.2} | HALF_DROPOUT,
        ),
    ),
    # The paper's own model, trained for minutes on a GPU: by AdamW, which gets far in few epochs.
    "paper-brief": Preset(
        corpus="ptb",
        model=PENN_TREEBANK_DROPOUT,
        training=LanguageModelOptions(
            epochs=18, batch_size=20, optimizer="adamw", learning_rate=3e-3,
            learning_rate_schedule="cosine", warmup=0.05, weight_decay=0.1, precision="bfloat16",
        ),
        evaluation=_PAPER_EVALUATION,
        seeds=(1,),
        # AWD-LSTM's recipe for WikiText-2, the defaults of its `main.py`.
        published={"batch_size": 80, "dropout_between": 0.3, "dropout_embedding": 0.65},
    ),
    # The paper's training, AWD-LSTM's: hours on a GPU.
    "paper": Preset(
        corpus="ptb",
        model=PENN_TREEBANK_DROPOUT,
        training=LanguageModelOptions(
            epochs=500, finetune_epochs=500, batch_size=20, precision="bfloat16"
        ),
        evaluation=_PAPER_EVALUATION,
        ablations=({"noise_probability": 1.0},),
    ),
}  # fmt: skip

TRANSLATION = {
    # About a minute a run on a core of its own.
    "quick": Preset(
        corpus="grammar",
        languages="de-en",
        model={
            "embedding_size": 128, "hidden_size": 128, "encoder_layers": 1, "decoder_layers": 1,
            "dropout": 0.0,
        },
        training=TranslationOptions(
            epochs=3, batch_tokens=300, learning_rate=3e-3, label_smoothing=0.0
        ),
        data={"merges": 400, "joint": False, "max_length": 100, "max_subwords": 0},
        evaluation={"beam_size": 5, "length_penalty": 1.0},
        analysis={
            "limit": 3_000, "sentences": 100, "directions": 3, "points": 7, "surface_limit": 1_500,
            "gate_pairs": 500,
        },
    ),
    # Multi30k on one core in a quarter of an hour, or twice that on a slower one.
    "small": Preset(
        corpus="multi30k",
        languages="de-en",
        model={"embedding_size": 256, "hidden_size": 256, "dropout": 0.3},
        training=TranslationOptions(epochs=8, learning_rate=4e-3, precision="bfloat16"),
        data={"merges": 5000, "joint": False, "max_length": 100, "max_subwords": 0},
        evaluation={"beam_size": 5, "length_penalty": 1.0},
        for_gate={
            "sharpened": {"dropout": 0.15},
            "gumbel": {"dropout": 0.15},
        },
        candidates=(
            {"learning_rate": 4e-3, "dropout": 0.3},
            {"learning_rate": 4e-3, "dropout": 0.15},
            {"learning_rate": 2e-3, "dropout": 0.15},
        ),
    ),
    # The paper's sizes and training, for a GPU. It says neither how many epochs nor which dropout:
    # that was chosen on the validation text, as the candidates are.
    "paper": Preset(
        corpus="iwslt14",
        languages="de-en",
        model={
            "embedding_size": 256, "hidden_size": 256, "encoder_layers": 2, "decoder_layers": 2,
            "dropout": 0.3,
        },
        training=TranslationOptions(
            epochs=40, optimizer="adadelta", learning_rate=1.0, learning_rate_schedule="constant",
            warmup=0.0, weight_decay=0.0, clip=2.0, batch_sentences=32, label_smoothing=0.0,
            precision="bfloat16",
        ),
        data={"merges": 25_000, "joint": False, "max_length": 175, "max_subwords": 64},
        evaluation={
            "beam_size": 5, "length_penalty": 1.0, "svd_rank": 32, "svd_plus_rank": 16,
        },
        for_corpus={
            "wmt14": {
                "languages": "en-de", "embedding_size": 512, "hidden_size": 1024,
                "encoder_layers": 3, "decoder_layers": 3, "dropout": 0.2, "epochs": 10,
                "batch_sentences": 64, "merges": 30_000, "processes": 4,
            },
        },
        candidates=tuple({"dropout": dropout} for dropout in (0.1, 0.2, 0.3, 0.5)),
    ),
}  # fmt: skip

PRESETS = {"language-model": LANGUAGE_MODEL, "translation": TRANSLATION}

# Default temperature and noise probability of each gate. p = 0.2 is the authors' README's, the
# equations as printed are p = 1.
GATE_SETTINGS = {
    "sigmoid": (None, None),
    "sharpened": (DEFAULT_TEMPERATURES["sharpened"], None),
    "gumbel": (DEFAULT_TEMPERATURES["gumbel"], 0.2),
}
