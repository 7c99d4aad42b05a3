"""Trained models to be used on text of one's own: a run directory, or a folder made from one.

Such a folder (a released model, or what `save_compressed` writes) needs no corpus::

    config.json          the run's
    provenance.json      the run's
    model.safetensors    the run's weights, or the packed ones of the compressed model
    compression.json     of a compressed model: how, and the bytes before and after
    vocabulary.json      of a language model
    *_subwords.json      of a translation model
    manifest.json        size and sha256 of every file

A run directory of a language model has no vocabulary: that comes from its corpus.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from g2lstm.checkpoint import CheckpointError, check_weights
from g2lstm.compression import CompressionError, LowRank, Method, WeightsError, compress
from g2lstm.corpora import END, UNKNOWN, Vocabulary, load_corpus
from g2lstm.experiments import Configuration, arguments_of, build_model, configure
from g2lstm.files import copy
from g2lstm.identity import write_record
from g2lstm.low_rank_lstm import factorise, rank_without_saving
from g2lstm.manifest import write_manifest
from g2lstm.memory import check_memory, parameter_bytes
from g2lstm.model_folders import ModelError, describing, new_folder, read_part
from g2lstm.packing import check_packed, compression_report, load_packed, save_packed
from g2lstm.records import CONFIG, PROVENANCE, SOURCE_SUBWORDS, TARGET_SUBWORDS, WEIGHTS
from g2lstm.robustness import PAPER_MATRICES, describe
from g2lstm.subwords import END as SENTENCE_END
from g2lstm.subwords import UNKNOWN as SUBWORD_UNKNOWN
from g2lstm.subwords import Subwords
from g2lstm.text import prepared, words_of
from g2lstm.training import load_best

COMPRESSION, VOCABULARY = "compression.json", "vocabulary.json"
VOCABULARY_FORMAT = "g2lstm vocabulary 1"
LONGEST = 10  # subwords of a sentence, in the most words of one in training
FAR = 0.2  # share of words never seen in training from which on a text is another kind of text
SHOWN = 5  # words named in a remark


@dataclass(frozen=True)
class Words:
    """Vocabulary of a language model.

    Attributes:
        vocabulary: the words.
        knows_unknown: whether `<unk>` stood in the training text, so that it means something.
    """

    vocabulary: Vocabulary
    knows_unknown: bool


@dataclass(frozen=True)
class SavedModel:
    """A trained model, in evaluation mode, with what turns text into its input.

    Attributes:
        directory: where it lies.
        configuration: of its run, the sizes of the model as they were.
        model: with its weights.
        words: of a language model, else None.
        subwords: of the source and the target of a translation, else None.
    """

    directory: Path
    configuration: Configuration
    model: nn.Module
    words: Words | None
    subwords: tuple[Subwords, Subwords] | None


def open_model(directory: Path | str, device: str | None = None) -> SavedModel:
    """Load a model from a run directory or a folder of a model.

    Args:
        directory: see above.
        device: "cpu" or "cuda"; default: the GPU if there is one.

    Raises:
        ModelError: there is no model in it, or its files describe none; says what is wrong.
        CorpusError: a run's corpus cannot be loaded.
        CheckpointError: the weights are damaged or of another model.
        WeightsError: a weight is NaN or infinite.
        ResourceError: there is not enough memory for the model.
    """
    directory = Path(directory)
    config = read_part(directory, CONFIG)
    if not (directory / WEIGHTS).exists():
        raise ModelError(
            f"{directory} holds no weights (published records come without): run it again with "
            f"g2lstm train, or name a folder that holds {WEIGHTS}"
        )
    with describing(directory / CONFIG, "model"):
        configuration = _configuration(config)
    words = subwords = None
    if configuration.task == "translation":
        subwords = tuple(_subwords(directory / n) for n in (SOURCE_SUBWORDS, TARGET_SUBWORDS))
        sizes = tuple(map(len, subwords))
    else:
        words = _words(directory, configuration)
        sizes = (len(words.vocabulary),)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with describing(directory / CONFIG, "model"):
        model = build_model(configuration, *sizes, device="meta")  # takes no memory
    compressed = (directory / COMPRESSION).exists()
    if compressed:
        how = read_part(directory, COMPRESSION)
        with describing(directory / COMPRESSION, "compressed model"):
            if "evaluation_gate" in how:
                model.evaluation_gate = how["evaluation_gate"]
            if how["rank"] is None:
                model.temperature = _temperature(how["temperature"])
            else:
                model = factorise(
                    model, how["rank"], how["matrices"], how.get("gates", "input-forget")
                )
        check_packed(directory / WEIGHTS, model)
    else:
        check_weights(directory / WEIGHTS, model)
    check_memory(parameter_bytes(model), f"the model in {directory}", device)
    model.to_empty(device=device)
    if compressed:
        load_packed(directory / WEIGHTS, model)
    else:
        with describing(directory / WEIGHTS, "trained model", but=(CheckpointError, WeightsError)):
            load_best(directory / WEIGHTS, model)
            _temperature(model.temperature)
    return SavedModel(directory, configuration, model.eval(), words, subwords)


def encode_text(words: Words, lines: list[str], name: str) -> tuple[torch.Tensor, int]:
    """Tokens [N] of a text as its corpus would have them, and how many became `<unk>`.

    Args:
        words: of the language model.
        lines: a sentence each, tokens between white space; an `<eos>` is appended to each.
        name: of the text, for the messages of errors.

    Raises:
        ModelError: an `<eos>` in the text; a word that the vocabulary lacks where it has no
            `<unk>` that was trained; fewer than two tokens.
    """
    tokens, unknown = [], 0
    for number, line in enumerate(lines, start=1):
        for word in prepared(line).split():
            if word == END:
                raise ModelError(f"line {number} of {name} holds {END}, which every line gets")
            if word in words.vocabulary.index and (word != UNKNOWN or words.knows_unknown):
                continue
            if not words.knows_unknown:
                raise ModelError(
                    f"line {number} of {name} holds {word!r}, which the model's vocabulary of "
                    f"{len(words.vocabulary)} words lacks, and its training text had no {UNKNOWN} "
                    "to stand for it: write as the corpus does, in small letters, with spaces "
                    "around punctuation marks, or take another word"
                )
            unknown += 1
        tokens += [*prepared(line).split(), END]
    if len(tokens) < 2:
        raise ModelError(f"{name} is empty: there is nothing to predict")
    return torch.tensor(words.vocabulary.encode(tokens), dtype=torch.int64), unknown


def encode_sentences(
    subwords: Subwords, lines: list[str], most_words: int
) -> tuple[list[list[int]], list[str]]:
    """Subwords of each sentence with its end mark, none of an empty one, and remarks on the text.

    Args:
        subwords: of the source language.
        lines: a sentence each; white space counts as in training.
        most_words: of a sentence in training.

    Returns:
        The subwords; and in words, what of the text the model was never trained on.

    Raises:
        ModelError: a sentence has more than ``LONGEST * most_words`` subwords; names its line.
    """
    rows = [[*row, SENTENCE_END] if row else [] for row in subwords.encode(lines)]
    long = []
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), start=1):
        if len(row) > LONGEST * most_words:
            raise ModelError(
                f"line {number} of the text is a sentence of {len(row)} subwords: the model was "
                f"trained on at most {most_words} words, and takes {LONGEST * most_words} subwords "
                "at most; put each sentence on a line of its own"
            )
        if len(line.split()) > most_words:
            long.append(number)
    remarks = []
    if long:
        others = f" and {len(long) - 1} others" if long[1:] else ""
        remarks.append(
            f"more than {most_words} words, the most of a sentence in training, on line {long[0]}"
            f"{others}: that takes long, and the translation means little"
        )
    if characters := sum(row.count(SUBWORD_UNKNOWN) for row in rows):
        remarks.append(
            f"{characters} characters were never seen in training; what they stood for is lost"
        )
    unseen = [word for line in lines for word in subwords.unseen_words(line)]
    if unseen:
        share = len(unseen) / sum(len(words_of(line)) for line in lines)
        shown = ", ".join(list(dict.fromkeys(unseen))[:SHOWN])
        remarks.append(
            f"{len(unseen)} words, {share:.0%} of the text, were never seen in training, such as "
            f"{shown}: "
            + (
                "the text is far from what the model was trained on, and its translation means "
                "little"
                if share > FAR
                else "their translations are guesses"
            )
        )
    return rows, remarks


def save_compressed(
    saved: SavedModel,
    out: Path | str,
    *,
    rank: int | None = None,
    gates: str = "input-forget",
    method: Method | None = None,
    int8: bool = False,
    force: bool = False,
) -> pd.DataFrame:
    """Write a smaller model to the folder ``out``, whole or not at all.

    What is compressed is what the paper compresses, the input and forget gates' blocks, unless
    ``gates`` says otherwise.

    Args:
        saved: the model, uncompressed.
        out: the new folder.
        rank: store the blocks as two thin factors of this rank, or
        gates: of `low_rank_lstm.LowRankLSTM`, with ``rank`` alone: "input-forget" or "all".
        method: round them, see `compression`.
        int8: store all other matrices as int8.
        force: replace a folder that holds a model already.

    Returns:
        `packing.compression_report` of the model before and after.

    Raises:
        ModelError: ``out`` is taken, or the model is compressed already.
        CompressionError: a rank, step or clip out of range, or a rank that saves nothing.
    """
    if (saved.directory / COMPRESSION).exists():
        raise ModelError(f"{saved.directory} is compressed already: name the model it was made of")
    model, task = saved.model, saved.configuration.task
    matrices = list(PAPER_MATRICES[task])
    how = [] if method is None else [describe(method)]
    if rank is not None:
        matrices = [name for name in matrices if name != "context"]
        rank = LowRank(rank).rank
        if problem := rank_without_saving(model, rank, matrices, gates):
            raise CompressionError(f"{problem}; give a lower one")
        model = factorise(model, rank, matrices, gates)
        how = [f"rank {rank}, all gates" if gates == "all" else f"rank {rank}"]
    elif method is not None:
        model = compress(model, method, matrices=matrices)
    rest = "int8" if int8 else "float32"
    how += ["all other matrices int8"] if int8 else []
    with new_folder(out, force) as folder:
        for name in (CONFIG, PROVENANCE):
            copy(saved.directory / name, folder / name)
        save_vocabulary(saved, folder)
        save_packed(model, folder / WEIGHTS, rest)
        report = compression_report({"as it was": saved.model, ", ".join(how): model})
        report.loc[1, "megabytes"] = (folder / WEIGHTS).stat().st_size / 1e6
        report["relative size"] = report["megabytes"] / report["megabytes"].iloc[0]
        about = {
            "how": ", ".join(how),
            "rank": rank,
            "matrices": matrices,
            "gates": gates,
            "temperature": saved.model.temperature,
            "evaluation_gate": saved.model.evaluation_gate,
            "report": report.to_dict("records"),
        }
        write_record(folder / COMPRESSION, about)
        write_manifest(folder)
    return report


def save_vocabulary(saved: SavedModel, folder: Path) -> None:
    """Write what turns text into the model's input to ``folder``."""
    if saved.words is not None:
        content = {"unknown": saved.words.knows_unknown, "tokens": saved.words.vocabulary.tokens}
        write_record(folder / VOCABULARY, {"format": VOCABULARY_FORMAT, **content})
    if saved.subwords is not None:
        for subwords, name in zip(saved.subwords, (SOURCE_SUBWORDS, TARGET_SUBWORDS), strict=True):
            subwords.save(folder / name)


def _configuration(config: dict[str, Any]) -> Configuration:
    """That of the run, the sizes of the model as they were."""
    asked = arguments_of(config)
    model, evaluation = config["model"], config["evaluation"]
    # As overrides, names, kinds and bounds are checked, and a model without memory is built.
    configure(**asked | {"overrides": {**(asked.get("overrides") or {}), **model, **evaluation}})
    return replace(configure(**asked), model=model, evaluation=evaluation)


def _temperature(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"temperature must be a number, got {value!r}")
    return value


def _words(directory: Path, configuration: Configuration) -> Words:
    if (directory / VOCABULARY).exists():
        content = read_part(directory, VOCABULARY)
        try:
            if content["format"] != VOCABULARY_FORMAT:
                raise ValueError(f"its format is {content['format']!r}")
            return Words(Vocabulary(content["tokens"]), content["unknown"])
        except (ValueError, LookupError, TypeError) as error:
            raise ModelError(f"{directory / VOCABULARY} is no vocabulary: {error}") from error
    corpus = load_corpus(configuration.corpus)
    record = read_part(directory, PROVENANCE)
    with describing(directory / PROVENANCE, "run"):
        known = record["data"]["sha256"]["train"]
    if corpus.checksums["train"] != known:
        raise ModelError(
            f"{directory} was trained on another text than {corpus.source} holds now, so its "
            "vocabulary is not known: run it again, or bring the text back"
        )
    return Words(corpus.vocabulary, corpus.knows_unknown)


def _subwords(path: Path) -> Subwords:
    try:
        return Subwords.load(path)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"the vocabulary {path} is missing or damaged: {error}") from error
