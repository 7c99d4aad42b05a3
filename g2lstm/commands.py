"""What the sub-commands of `g2lstm` do: from the parsed arguments to the exit code."""

import json
import math
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from g2lstm import tuning
from g2lstm.beam_search import translate as search
from g2lstm.checkpoint import CheckpointError
from g2lstm.compression import CompressionError, Round, RoundClip, WeightsError
from g2lstm.corpus_sources import CorpusError, read_lines
from g2lstm.data_parallel import ProcessesError, joined, rank
from g2lstm.evaluation import CACHE_RECIPES, evaluate, evaluate_with_cache
from g2lstm.exit_codes import FAILED, INTERRUPTED, OK
from g2lstm.experiments import command, configure, run_directory
from g2lstm.gates import GATES
from g2lstm.listing import SHOWN, in_words, list_runs
from g2lstm.manifest import MANIFEST, write_manifest
from g2lstm.memory import ResourceError
from g2lstm.model_folders import ModelError
from g2lstm.onnx_export import ExportError, export_onnx
from g2lstm.parameters import ParameterError
from g2lstm.records import CONFIG, RunError
from g2lstm.release import release as write_release
from g2lstm.runs import follow, prepare, train_or_load
from g2lstm.saved_models import encode_sentences, encode_text, open_model, save_compressed
from g2lstm.settings import MOST, within_bounds
from g2lstm.streams import input_lines, say
from g2lstm.training import TrainingDivergedError
from g2lstm.verification import RESULTS
from g2lstm.verification import verify as check_results

# Errors that are about what was asked for, not about this program.
EXPECTED = (
    ParameterError, RunError, ModelError, CorpusError, CheckpointError, CompressionError,
    ExportError, WeightsError, TrainingDivergedError, ProcessesError, ResourceError, OSError,
)  # fmt: skip


def runs(options: Namespace) -> int:
    folder = Path(options.folder or os.environ.get("G2LSTM_RUNS") or "runs")
    found = list_runs(folder)
    if options.json:
        print(json.dumps(found, indent=2))
        return OK
    if not found:
        raise ModelError(f"{folder} holds no runs: make one with g2lstm train")
    names = [name for name in SHOWN if any(name in entry["metrics"] for entry in found)]
    rows = []
    for entry in found:
        about = [entry[key] for key in ("task", "corpus", "preset", "settings", "seed")]
        metrics = [_number(entry["metrics"].get(name)) for name in names]
        rows.append([*about, in_words(entry), *metrics, "yes" if entry["weights"] else "no"])
    columns = ["task", "corpus", "preset", "gate and settings", "seed", "state"]
    _show([*columns, *(SHOWN[name] for name in names), "weights"], rows)
    return OK


def verify(options: Namespace) -> int:
    folders = options.folders or _published()
    failed = 0
    for folder in folders:
        checks = check_results(folder)
        print(folder)
        for check in checks:
            bad = len({failure.file for failure in check.failures})
            state = f"{bad} FAILED" if bad else "ok"
            print(f"  {check.kind}: {check.count} checked, {state}")
            for failure in check.failures:
                print(f"    {failure.file}: {failure.problem}")
            for remedy in dict.fromkeys(failure.remedy for failure in check.failures):
                print(f"    remedy: {remedy}")
            failed += bad
    print(f"{failed} failures" if failed else "all is as it was published")
    return FAILED if failed else OK


def seal(options: Namespace) -> int:
    for folder in options.folders:
        if not Path(folder, "runs").is_dir() and not Path(folder, CONFIG).exists():
            raise ModelError(
                f"{folder} holds neither results nor a model: name a folder such as results/quick"
            )
        print(f"{folder}/manifest.json lists {write_manifest(folder)} files")
    return OK


def translate(options: Namespace) -> int:
    saved = open_model(options.model)
    if saved.subwords is None:
        raise ModelError(f"{options.model} is a language model: measure it with g2lstm perplexity")
    settings = saved.configuration.evaluation
    beam_size = settings["beam_size"]
    if options.beam_size is not None:
        beam_size = within_bounds("--beam-size", options.beam_size, 1, MOST["beam_size"])
    encoded, remarks = encode_sentences(
        saved.subwords[0], input_lines(), saved.configuration.data["max_length"]
    )
    for remark in remarks:
        say(remark)
    found = search(
        saved.model,
        [row for row in encoded if row],
        beam_size=beam_size,
        length_penalty=settings["length_penalty"],
        progress_bar=sys.stderr.isatty(),
    )
    texts = iter(saved.subwords[1].decode([hypothesis.tokens for hypothesis in found]))
    for row in encoded:  # an empty line stays one, so that lines belong together
        print(next(texts) if row else "")
    return OK


def perplexity(options: Namespace) -> int:
    saved = open_model(options.model)
    if saved.words is None:
        raise ModelError(f"{options.model} is a translation model: use it with g2lstm translate")
    if options.file == "-":
        name, lines = "standard input", input_lines()
    else:
        name = options.file
        lines, _ = read_lines(Path(name), "give a text file, or - for standard input")
    tokens, unknown = encode_text(saved.words, lines, name)
    if options.cache:
        recipe = options.cache_recipe
        found = evaluate_with_cache(saved.model, tokens, *CACHE_RECIPES[recipe])
        with_cache = f" with the cache pointer ({recipe})"
    else:
        found, with_cache = evaluate(saved.model, tokens), ""
    if not math.isfinite(found.loss):
        raise ModelError(
            f"{options.model} gives the text no probability (a loss of {found.loss}): its training "
            "has diverged; train it again, with a lower learning_rate or clip"
        )
    print(
        f"perplexity {found.perplexity:.3f}{with_cache} "
        f"({found.loss:.4f} nats a token over {found.tokens} tokens)"
    )
    if unknown:
        print(f"{unknown} of {len(tokens)} tokens are unknown words and were taken for <unk>")
    return OK


def compress(options: Namespace) -> int:
    if options.rank is not None and options.round is not None:
        raise CompressionError("--rank and --round are two ways to store the same gates: give one")
    if options.clip is not None and options.round is None:
        raise CompressionError("--clip goes with --round: give both, as --round 0.2 --clip 0.4")
    if options.all_gates and options.rank is None:
        raise CompressionError("--all-gates goes with --rank: give both")
    if options.rank is None and options.round is None and not options.int8:
        raise CompressionError("nothing to do: give --rank, --round or --int8")
    method = None
    if options.round is not None:
        step, clip = options.round, options.clip
        method = Round(step) if clip is None else RoundClip(step, clip)
    report = save_compressed(
        open_model(options.model, device="cpu"),
        options.output,
        rank=options.rank,
        gates="all" if options.all_gates else "input-forget",
        method=method,
        int8=options.int8,
        force=options.force,
    )
    columns = ["model", "parameters", "megabytes", "relative size", "FLOPs a step", "relative work"]
    rows = [
        [
            row["model"],
            f"{row['parameters']:,}",
            f"{row['megabytes']:.3f}",
            f"{row['relative size']:.3f}",
            f"{row['flops_per_step']:,}",
            f"{row['relative work']:.3f}",
        ]
        for row in report.to_dict("records")
    ]
    _show(columns, rows)
    print(f"{options.output} holds the compressed model")
    return OK


def export(options: Namespace) -> int:
    output = Path(options.output)
    if output.exists() and not options.force:
        raise ModelError(f"{output} is there: choose another name, or replace it with --force")
    export_onnx(open_model(options.model, device="cpu").model, output, options.int8)
    print(f"{output} holds the model, {output.stat().st_size:,} bytes")
    return OK


def release(options: Namespace) -> int:
    made = write_release(options.model, options.output, options.force)
    for name, value in made["metrics"].items():
        print(f"{name}: {value}")
    print(f"{options.output} holds the model, {made['bytes']:,} bytes, sha256 {made['sha256']}")
    return OK


def train(options: Namespace) -> int:
    configuration = configure(
        task=options.task,
        preset=options.preset,
        corpus=options.corpus,
        languages=options.languages,
        gate=options.gate,
        seed=options.seed,
        temperature=options.temperature,
        noise_probability=options.noise_probability,
        schedule=options.schedule,
        temperature_end=options.temperature_end,
        overrides=dict(_setting(text) for text in options.set),
    )
    if options.untested:
        return _trained(lambda: tuning.explore(configuration, not options.quiet))
    directory = run_directory(configuration)
    with joined():
        first = rank() == 0
        try:
            experiment = prepare(configuration)
            if not first:
                follow(experiment)
                return OK
            run = train_or_load(experiment, progress_bar=not options.quiet)
        except KeyboardInterrupt:
            again = _again() if configuration.processes == 1 else command(configuration)
            if first:
                say(
                    f"stopped; {directory} keeps what is done. The same command goes on after the "
                    f"last finished epoch: {again}"
                )
            return INTERRUPTED
    for name, label in SHOWN.items():
        if name in run.summary:
            print(f"{label}: {_number(run.summary[name])}")
    print(f"{directory} holds the run")
    return OK


def tune(options: Namespace) -> int:
    return _trained(
        lambda: tuning.tune(
            options.task,
            options.preset,
            options.corpus,
            options.languages,
            options.gate or GATES,
            options.seed,
            progress_bar=not options.quiet,
        )
    )


def _trained(work: Callable[[], pd.DataFrame]) -> int:
    """Do what trains and makes a table; show that."""
    try:
        frame = work()
    except KeyboardInterrupt:
        say(f"stopped; what is done is kept. The same command goes on: {_again()}")
        return INTERRUPTED
    _show(frame.columns, frame.round(2).itertuples(index=False))
    return OK


def _again() -> str:
    return shlex.join(["g2lstm", *sys.argv[1:]])


def _setting(text: str) -> tuple[str, Any]:
    """Name and value of ``name=value``; a value that is no JSON is text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ParameterError(f"--set takes name=value, such as epochs=2, got {text!r}")
    try:
        return name, json.loads(value)
    except RecursionError:
        raise ParameterError(f"--set {name}=...: its value is nested too deeply") from None
    except ValueError:
        return name, value


def _published() -> list[Path]:
    results = Path(os.environ.get("G2LSTM_RESULTS") or "results")
    found = [*_holding(results, *RESULTS, MANIFEST), *_holding(Path("models"), CONFIG, MANIFEST)]
    if not found:
        raise ModelError(f"{results} holds no results: go to the project's folder, or name one")
    return found


def _holding(folder: Path, *names: str) -> list[Path]:
    """The folders in a folder that hold one of these at least: what is missing is found too."""
    return sorted({path.parent for name in names for path in folder.glob(f"*/{name}")})


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _show(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """A table as wide as it needs to be where the output is a file, else as the screen."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=None if sys.stdout.isatty() else 240, highlight=False).print(table, markup=False)
