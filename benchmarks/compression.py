"""Bytes and speed of compressed LSTMs on CPU, as ratios to torch.nn.LSTM measured side by side.

    python benchmarks/compression.py                 # one thread
    python benchmarks/compression.py --threads 2
    python benchmarks/compression.py --quick         # a glance

In every round each layer runs once, so that what else happens on the machine meets all of them; a
ratio is taken within a round. The table holds the median over the rounds (least - most). Lower is
better; the rows of nn.LSTM have the values themselves. Weights are drawn from a normal distribution
of standard deviation 0.2, about that of trained models: how few bits rounding leaves depends on it.

- size: bytes on disk. The dense layers are plain safetensors files, what is "packed" was written by
  `save_packed`: matrices of many values stay float32 or are made int8. The step is 0.2, the clip
  0.4; both act on the input and forget gates, as in the paper.
- load: from the file, which the operating system has in memory by then, into a layer that is there.
- 70 steps: the whole sequence in inference mode. 1 step: one with a carried state.
- "as nn.LSTM": packed weights are unpacked when they are loaded, and then the layer is the dense
  one. Packing saves bytes, not time.
- LowRankLSTM: ranks as the paper's 128 and 64 of 1150 units, rounded.
- torch's dynamic int8: the peer, `torch.ao.quantization.quantize_dynamic`, which torch has
  deprecated; all four gates are int8, activations too. Its integers, steps and biases are stored as
  safetensors, not in torch's own file, a pickle. Where it fails, its row says so.

Results go to compression.csv, compression.md and compression.provenance.json beside this file.
"""

import argparse
import copy
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from g2lstm import G2LSTM
from g2lstm.compression import Round, RoundClip, compress
from g2lstm.low_rank_lstm import LowRankLSTM
from g2lstm.packing import load_packed, save_packed
from g2lstm.provenance import in_words
from g2lstm.robustness import PAPER_SETTINGS, rank_of
from side_by_side import (
    Clock,
    add_output_option,
    add_timing_options,
    origin,
    rounds_and_clock,
    timed,
    write_results,
)

SIZES = [(400, 1150), (256, 256), (320, 320)]
SHAPES = [(70, 1), (70, 20), (1, 1)]  # steps, sequences
SINGLE_STEPS = 20  # in one measurement
SPREAD = 0.2
BASE, PEER = "nn.LSTM", "torch's dynamic int8"
COLUMNS = [
    "threads", "D", "H", "layer", "measure", "unit", "value", "ratio", "ratio_least", "ratio_most",
]  # fmt: skip


class Contender(NamedTuple):
    """A layer as it is stored and as it runs.

    Attributes:
        save, load: to and from a path; loading is into a layer that is there.
        layer: what runs; None: the dense layer, whose speed is known.
    """

    save: Callable[[Path], None]
    load: Callable[[Path], object]
    layer: nn.Module | None


def contenders(inputs: int, hidden: int) -> tuple[dict[str, Contender], str | None]:
    """What is measured, by name, `BASE` first; and why the peer is not among it (None: it is)."""
    torch.manual_seed(0)
    base, g2 = nn.LSTM(inputs, hidden).eval(), G2LSTM(inputs, hidden).eval()
    for parameter in base.parameters():
        nn.init.normal_(parameter, std=SPREAD)
    g2.load_state_dict(base.state_dict())
    found = {BASE: dense(base), "G2LSTM": dense(g2)}
    for kind in ("svd", "svd+"):
        rank = rank_of(PAPER_SETTINGS["language-model"][kind], hidden)
        layer = LowRankLSTM.from_lstm(base, rank)
        found[f"LowRankLSTM, rank {rank}"] = packed(layer, "float32")._replace(layer=layer)
    rounded = {"round": Round(0.2), "round & clip": RoundClip(0.2, 0.4)}
    layers = {name: compress(base, method) for name, method in rounded.items()}
    for name, layer in layers.items():
        found[f"{name}, packed"] = packed(layer, "float32")
    for name, layer in {BASE: base, **layers}.items():
        found[f"{name}, packed, int8"] = packed(layer, "int8")
    try:
        found[PEER] = dynamic_int8(base)
    except Exception as error:  # whatever it is, the rest is to be measured
        return found, f"{type(error).__name__}: {error}".splitlines()[0]
    return found, None


def dense(layer: nn.Module) -> Contender:
    return Contender(
        lambda path: save_file(layer.state_dict(), path),
        lambda path: layer.load_state_dict(load_file(path)),
        layer,
    )


def packed(layer: nn.Module, rest: str) -> Contender:
    target = copy.deepcopy(layer)
    return Contender(
        lambda path: save_packed(layer, path, rest), lambda path: load_packed(path, target), None
    )


def dynamic_int8(base: nn.LSTM) -> Contender:
    """The peer, after one step to see whether it runs on this machine."""
    with quiet():
        (layer,) = torch.ao.quantization.quantize_dynamic(nn.Sequential(base), {nn.LSTM})
    if isinstance(layer, nn.LSTM):
        raise RuntimeError("quantize_dynamic left torch.nn.LSTM as it was")
    infer(layer, torch.zeros(1, 1, base.input_size))

    # torch's own file of such a layer is a pickle, which is never loaded here: its integers are
    # stored as tensors, with the step and zero point of each matrix.
    def save(path: Path) -> None:
        tensors = dict(layer.get_bias())
        for name, weight in layer.get_weight().items():
            tensors[name] = weight.int_repr()
            tensors[f"{name}.scale"] = torch.tensor(weight.q_scale(), dtype=torch.float64)
            tensors[f"{name}.zero_point"] = torch.tensor(weight.q_zero_point())
        save_file({name: part.detach() for name, part in tensors.items()}, path)

    def load(path: Path) -> None:
        tensors = load_file(path)
        for name in layer.get_weight():
            tensors[name] = torch._make_per_tensor_quantized_tensor(
                tensors[name],
                tensors.pop(f"{name}.scale").item(),
                tensors.pop(f"{name}.zero_point").item(),
            )
        with quiet():
            layer.set_weight_bias(tensors)

    return Contender(save, load, layer)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that torch's own use of what it has deprecated causes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def infer(layer: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        _, state = layer(x)
        if len(x) == 1:
            for _ in range(SINGLE_STEPS):
                _, state = layer(x, state)


def measure(
    size: tuple[int, int], threads: int, rounds: int, clock: Clock
) -> tuple[pd.DataFrame, str | None]:
    """One row per layer and measure, see `COLUMNS`; and why the peer failed (None: it did not)."""
    torch.set_num_threads(threads)
    layers, failure = contenders(*size)
    rows = []

    def add(measure: str, unit: str, values: pd.DataFrame) -> None:
        ratios = values.div(values[BASE], axis=0)
        for name in values:
            numbers = [values[name].median(), ratios[name].median()]
            numbers += [ratios[name].min(), ratios[name].max()]
            row = (threads, *size, name, measure, unit, *numbers)
            rows.append(dict(zip(COLUMNS, row, strict=True)))
        if failure is not None:
            row = (threads, *size, PEER, measure, unit, *4 * [math.nan])
            rows.append(dict(zip(COLUMNS, row, strict=True)))

    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / str(number) for number, name in enumerate(layers)}
        for name, contender in layers.items():
            contender.save(paths[name])
        add("size", "bytes", pd.DataFrame({n: [p.stat().st_size] for n, p in paths.items()}))
        jobs = {name: partial(layer.load, paths[name]) for name, layer in layers.items()}
        add("load", "milliseconds", timed(jobs, rounds, clock))
    for steps, batch in SHAPES:
        x = torch.randn(steps, batch, size[0])
        jobs = {
            name: partial(infer, contender.layer, x)
            for name, contender in layers.items()
            if contender.layer is not None
        }
        times = timed(jobs, rounds, clock) / (SINGLE_STEPS + 1 if steps == 1 else 1)
        add(shape_name(steps, batch), "milliseconds", times)
    return pd.DataFrame(rows), failure


def shape_name(steps: int, batch: int) -> str:
    return f"{steps} step{'s' * (steps > 1)}, batch {batch}"


def to_markdown(results: pd.DataFrame) -> str:
    """One line per size and layer; a column per measure."""
    measures = list(results.measure.unique())
    lines = []
    for size, group in results.groupby(["D", "H"], sort=False):
        about = {"[D, H]": ", ".join(map(str, size))}
        for layer, rows in group.groupby("layer", sort=False):
            found = {row.measure: cell(row) for row in rows.itertuples()}
            found = {name: found.get(name, f"as {BASE}") for name in measures}
            lines.append(about | {"layer": layer} | found)
    return pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)


def cell(row) -> str:
    if math.isnan(row.value):
        return "failed"
    if row.layer == BASE:
        return f"{row.value / 1e6:.3g} MB" if row.unit == "bytes" else f"{row.value:.3g} ms"
    if row.unit == "bytes":
        return f"{row.ratio:.3f}"
    return f"{row.ratio:.2f} ({row.ratio_least:.2f}-{row.ratio_most:.2f})"


def describe(source: dict) -> str:
    """The provenance in words, for under the table."""
    peer = f"{PEER} failed: {source['peer_failure']}. " if source["peer_failure"] else ""
    return (
        f"Ratios to torch.nn.LSTM; times on {source['threads']} threads, median (least - most) of "
        f"{source['rounds']} rounds, by {source['clock']} time. {peer}{in_words(source)}"
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
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
        quantization_engine=torch.backends.quantized.engine,
    )
    results, failures = [], []
    for size in options.size or SIZES:
        print(f"measuring {size}", file=sys.stderr, flush=True)
        frame, failure = measure(size, options.threads, rounds, clock)
        results.append(frame)
        failures.append(failure)
    source["peer_failure"] = next(filter(None, failures), None)
    frame = pd.concat(results, ignore_index=True)
    text = f"{to_markdown(frame)}\n\n{describe(source)}\n"
    write_results(options.output, frame, text, source)


if __name__ == "__main__":
    main()
