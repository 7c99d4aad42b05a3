"""Bytes, speed and perplexity of compressed LSTMs on a CPU, beside torch.nn.LSTM and ONNX Runtime.

    python benchmarks/compression.py                          # bytes and speed of single layers
    python benchmarks/compression.py --model RUN --model RUN  # and perplexity of trained models
    python benchmarks/compression.py --quick                  # a glance

Every method acts on a layer and on a trained language model alike. Bytes are those of the file that
holds the layer. Times are of 35 steps without gradients, the state given, on one thread. In every
round each method runs once, so that what else happens on the machine meets all of them; a ratio to
torch.nn.LSTM in float32 is taken within a round, and the table holds its median (quartiles). Lower
is better; the rows of nn.LSTM have the values themselves. Layers have weights drawn from a normal
distribution of standard deviation 0.2, about that of trained models: how few bits rounding leaves
depends on it.

- "low rank S of i, f": `LowRankLSTM`, each block of the input and forget gates by itself, as in the
  paper, at rank S times the number of units: 128 / 1150 and 64 / 1150 are the paper's SVD and SVD+
  of its language model, 32 / 256 and 16 / 256 of its translation models.
- "of all gates": the four blocks of a matrix together (`gates="all"`); "of the input alone": only
  the matrices W_x, and the recurrent ones whole.
- "packed": written by `save_packed`; "packed int8": with int8 for matrices of many values. It runs
  in float32.
- "ONNX": written by `export_onnx` and run by ONNX Runtime, which in int8 computes with it.
- "round & clip": of the input and forget gates, step 0.2, clip 0.4. Packed weights are unpacked
  when they are loaded, and then the layer runs as nn.LSTM does: packing saves bytes, not time.

Perplexity is on the first 40,000 tokens of the test text of the model's own corpus, in 10 strands,
without cache pointer.

Results go to compression.csv, compression.md and compression.provenance.json beside this file.
"""

import argparse
import copy
import math
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import onnxruntime
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from g2lstm.compression import LowRank, RoundClip, compress
from g2lstm.corpora import load_corpus
from g2lstm.evaluation import batchify, evaluate, segments
from g2lstm.language_model import LanguageModel
from g2lstm.low_rank_lstm import factorise
from g2lstm.onnx_export import export_onnx
from g2lstm.packing import load_packed, save_packed
from g2lstm.provenance import in_words
from g2lstm.robustness import rank_of
from g2lstm.saved_models import open_model
from side_by_side import (
    Clock,
    add_output_option,
    add_timing_options,
    origin,
    rounds_and_clock,
    timed,
    write_results,
)

SIZES = [(400, 1150), (650, 650), (256, 256)]
STEPS, BATCHES = 35, (1, 20)
TOKENS, STRANDS = 40_000, 10
SPREAD = 0.2
BASE = "nn.LSTM"
COLUMNS = [
    "subject", "method", "measure", "unit", "value", "ratio", "ratio_lower", "ratio_upper",
]  # fmt: skip


class Method(NamedTuple):
    """A way to compress.

    Attributes:
        change: makes another layer or model of one.
        file: "safetensors", "packed", "packed int8", "onnx" or "onnx int8".
        dense: what is loaded is a dense layer of PyTorch, whose speed is that of `BASE`.
    """

    change: Callable[[nn.Module], nn.Module]
    file: str
    dense: bool = False


def low_rank(share: float, **options) -> Callable[[nn.Module], nn.Module]:
    return lambda model: factorise(model, rank_of(share, units(model)), **options)


def multiplied_out(share: float) -> Callable[[nn.Module], nn.Module]:
    return lambda model: compress(model, LowRank(rank_of(share, units(model))))


def round_and_clip(model: nn.Module) -> nn.Module:
    return compress(model, RoundClip(0.2, 0.4))


METHODS = {
    BASE: Method(copy.deepcopy, "safetensors"),
    "ONNX": Method(copy.deepcopy, "onnx"),
    "ONNX int8": Method(copy.deepcopy, "onnx int8"),
    "low rank 128/1150 of i, f, packed": Method(low_rank(128 / 1150), "packed"),
    "low rank 64/1150 of i, f, packed": Method(low_rank(64 / 1150), "packed"),
    "low rank 32/256 of i, f, packed": Method(low_rank(32 / 256), "packed"),
    "low rank 16/256 of i, f, packed": Method(low_rank(16 / 256), "packed"),
    "low rank 128/1150 of i, f, packed int8": Method(low_rank(128 / 1150), "packed int8"),
    "low rank 128/1150 of i, f, multiplied out, ONNX int8": Method(
        multiplied_out(128 / 1150), "onnx int8"
    ),
    "low rank 1/4 of all gates, packed": Method(low_rank(1 / 4, gates="all"), "packed"),
    "low rank 1/4 of all gates, packed int8": Method(low_rank(1 / 4, gates="all"), "packed int8"),
    "low rank 1/8 of all gates, packed int8": Method(low_rank(1 / 8, gates="all"), "packed int8"),
    "low rank 1/4 of all gates, of the input alone, ONNX int8": Method(
        low_rank(1 / 4, gates="all", matrices="input"), "onnx int8"
    ),
    "low rank 1/8 of all gates, of the input alone, ONNX int8": Method(
        low_rank(1 / 8, gates="all", matrices="input"), "onnx int8"
    ),
    "round & clip, packed": Method(round_and_clip, "packed", dense=True),
    "round & clip, packed int8": Method(round_and_clip, "packed int8", dense=True),
}


def units(model: nn.Module) -> int:
    """Units of the largest layer."""
    return max(part.hidden_size for part in model.modules() if isinstance(part, nn.LSTM))


def stored(
    method: Method, model: nn.Module, path: Path, threads: int
) -> nn.Module | onnxruntime.InferenceSession:
    """Compress, write to ``path``, and load what is to run from there."""
    changed = method.change(model)
    kind, _, integers = method.file.partition(" ")
    if kind == "onnx":
        export_onnx(changed, path, int8=bool(integers))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    if kind == "packed":
        save_packed(changed, path, integers or "float32")
        load_packed(path, changed)
    else:
        save_file(changed.state_dict(), path)
        changed.load_state_dict(load_file(path))
    return changed.eval()


def infer(layer: nn.Module | onnxruntime.InferenceSession, x: Tensor, h: Tensor, c: Tensor):
    """The output."""
    if isinstance(layer, onnxruntime.InferenceSession):
        return layer.run(None, {"input": x.numpy(), "h_0": h.numpy(), "c_0": c.numpy()})[0]
    with torch.inference_mode():
        return layer(x, (h, c))[0]


def perplexity(
    model: LanguageModel | onnxruntime.InferenceSession, tokens: Tensor, bptt: int = 70
) -> float:
    """On a text, in `STRANDS`, the state carried."""
    if isinstance(model, LanguageModel):
        return evaluate(model, tokens, STRANDS, bptt).perplexity
    state = {
        part.name: torch.zeros(1, STRANDS, part.shape[2]).numpy()
        for part in model.get_inputs()
        if part.name != "tokens"
    }
    names = [part.name for part in model.get_outputs()]
    total, count = 0.0, 0
    for inputs, targets in segments(batchify(tokens, STRANDS), bptt):
        values = model.run(None, state | {"tokens": inputs.numpy()})
        found = dict(zip(names, values, strict=True))
        log_probabilities = torch.from_numpy(found.pop("log_probabilities"))
        total -= float(log_probabilities.gather(2, targets[:, :, None]).double().sum())
        count += targets.numel()
        state = {name.replace("_n_", "_0_"): value for name, value in found.items()}
    return math.exp(total / count)


def table(subject: str, measure: str, unit: str, values: pd.DataFrame) -> pd.DataFrame:
    """A row a method, see `COLUMNS`; of values with a row a round."""
    ratios = values.div(values[BASE], axis=0)
    return pd.DataFrame(
        [
            (
                subject, name, measure, unit, values[name].median(), ratios[name].median(),
                ratios[name].quantile(0.25), ratios[name].quantile(0.75),
            )
            for name in values
        ],
        columns=COLUMNS,
    )  # fmt: skip


def measure_layer(size: tuple[int, int], threads: int, rounds: int, clock: Clock) -> pd.DataFrame:
    """Bytes and milliseconds of one layer under every method."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    inputs, hidden = size
    base = nn.LSTM(inputs, hidden).eval()
    for parameter in base.parameters():
        nn.init.normal_(parameter, std=SPREAD)
    subject = f"{inputs}, {hidden}"
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / str(number) for number, name in enumerate(METHODS)}
        layers = {name: stored(m, base, paths[name], threads) for name, m in METHODS.items()}
        sizes = pd.DataFrame({name: [path.stat().st_size] for name, path in paths.items()})
        frames = [table(subject, "size", "bytes", sizes)]
    for batch in BATCHES:
        x, state = torch.randn(STEPS, batch, inputs), torch.zeros(1, batch, hidden)
        jobs = {
            name: partial(infer, layer, x, state, state)
            for name, layer in layers.items()
            if not METHODS[name].dense
        }
        times = timed(jobs, rounds, clock)
        frames.append(table(subject, f"batch {batch}", "milliseconds", times))
    return pd.concat(frames)


def measure_model(directory: Path, threads: int) -> pd.DataFrame:
    """Perplexity of a trained language model under every method."""
    torch.set_num_threads(threads)
    saved = open_model(directory, device="cpu")
    configuration = saved.configuration
    if saved.words is None:
        raise SystemExit(f"{directory} is a translation model: name one of a language model")
    tokens, epochs = load_corpus(configuration.corpus).test[:TOKENS], configuration.training.epochs
    subject = f"{saved.model.gate} ({configuration.corpus}, {epochs} epochs)"
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, method in METHODS.items():
            found[name] = perplexity(
                stored(method, saved.model, Path(folder) / "model", threads), tokens
            )
    return table(subject, "perplexity", "", pd.DataFrame([found]))


def to_markdown(results: pd.DataFrame) -> str:
    """One line a method; a column a subject and measure."""
    lines = []
    for method, rows in results.groupby("method", sort=False):
        found = {(row.subject, row.measure): cell(row) for row in rows.itertuples()}
        columns = results[["subject", "measure"]].drop_duplicates().itertuples(index=False)
        cells = {f"{s}: {m}": found.get((s, m), f"as {BASE}") for s, m in columns}
        lines.append({"method": method} | cells)
    return pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)


def cell(row) -> str:
    if row.measure == "perplexity":
        change = "" if row.method == BASE else f" ({100 * (row.ratio - 1):+.1f} %)"
        return f"{row.value:.1f}{change}"
    if row.method == BASE:
        return f"{row.value / 1e6:.3g} MB" if row.unit == "bytes" else f"{row.value:.3g} ms"
    if row.unit == "bytes":
        return f"{row.ratio:.3f}"
    return f"{row.ratio:.2f} ({row.ratio_lower:.2f}-{row.ratio_upper:.2f})"


def describe(source: dict) -> str:
    """The provenance in words, for under the table."""
    return (
        f"Sizes and times of one layer (input size, units) as ratios to torch.nn.LSTM; {STEPS} "
        f"steps on {source['threads']} threads, median (quartiles) of {source['rounds']} rounds, "
        f"by {source['clock']} time. {in_words(source)}"
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="threads (default 1)")
    parser.add_argument(
        "--model", type=Path, action="append", default=[], metavar="FOLDER",
        help="a trained language model, to measure its perplexity; may be repeated",
    )  # fmt: skip
    add_timing_options(
        parser, "D,H", "input size and hidden size; may be repeated (default: three sizes)"
    )
    add_output_option(parser, __file__)
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.repeats < 1:
        parser.error("--threads and --repeats must be at least 1")
    if any(len(size) != 2 or min(size) < 1 for size in options.size or []):
        parser.error("--size needs two numbers of at least 1, as in 400,1150")
    if options.cpu_time and options.threads > 1:
        parser.error("--cpu-time adds up the time of all threads: use it with --threads 1")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    rounds, clock_name, clock = rounds_and_clock(options)
    source = origin(
        __file__,
        arguments,
        threads=options.threads,
        rounds=rounds,
        clock=clock_name,
        onnxruntime=onnxruntime.__version__,
    )
    results = []
    for size in options.size or SIZES:
        print(f"measuring {size}", file=sys.stderr, flush=True)
        results.append(measure_layer(size, options.threads, rounds, clock))
    for directory in options.model:
        print(f"measuring {directory}", file=sys.stderr, flush=True)
        results.append(measure_model(directory, options.threads))
    frame = pd.concat(results, ignore_index=True)
    text = f"{to_markdown(frame)}\n\n{describe(source)}\n"
    write_results(options.output, frame, text, source)


if __name__ == "__main__":
    main()
