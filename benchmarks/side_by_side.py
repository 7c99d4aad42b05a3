"""What the benchmarks have in common: timing jobs side by side, their options, their results."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from g2lstm.files import write_json, write_text
from g2lstm.provenance import provenance

Clock = Callable[[], float]


def timed(jobs: Mapping[str, Callable[[], object]], rounds: int, clock: Clock) -> pd.DataFrame:
    """Milliseconds of each job, a row a round; in every round each job runs once."""
    milliseconds: dict[str, list[float]] = {name: [] for name in jobs}
    for round_number in range(rounds + 1):
        for name, job in jobs.items():
            start = clock()
            job()
            if round_number > 0:  # the first one warms up
                milliseconds[name].append((clock() - start) * 1e3)
    return pd.DataFrame(milliseconds)


def spread(name: str, values: pd.Series) -> dict[str, float]:
    """Columns ``name`` (the median), ``name``_lower and ``name``_upper (the quartiles)."""
    lower, median, upper = values.quantile([0.25, 0.5, 0.75])
    return {name: median, f"{name}_lower": lower, f"{name}_upper": upper}


def add_timing_options(parser: argparse.ArgumentParser, size: str, sizes: str) -> None:
    """Rounds, clock and sizes.

    Args:
        parser: to add to.
        size: how a size is written, such as "D,H".
        sizes: what the numbers are, and how many sizes there are by default.
    """
    parser.add_argument("--repeats", type=int, default=15, help="rounds measured (default 15)")
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="measure processor time instead of elapsed time: for 1 thread on a busy machine",
    )
    parser.add_argument(
        "--size",
        type=lambda text: tuple(int(part) for part in text.split(",")),
        action="append",
        metavar=size,
        help=sizes,
    )


def add_output_option(parser: argparse.ArgumentParser, script: str) -> None:
    """Where the results go; by default beside the script."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(script).with_suffix(""),
        help="path of the results, without suffix (default: beside this file)",
    )


def rounds_and_clock(options: argparse.Namespace) -> tuple[int, str, Clock]:
    """Rounds, the name of the clock and the clock, as `add_timing_options` let choose."""
    rounds = 3 if options.quick else options.repeats
    if options.cpu_time:
        return rounds, "processor", time.process_time
    return rounds, "elapsed", time.perf_counter


def origin(script: str, arguments: Sequence[str] | None, **details: Any) -> dict[str, Any]:
    """Provenance of a benchmark, with the load of the machine at its start.

    Args:
        script: its file.
        arguments: as given to its ``main``; None: those of the command line.
        details: see `provenance`.
    """
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", f"benchmarks/{Path(script).name}", *given])
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return provenance(command, **details, load=load)


def write_results(output: Path, frame: pd.DataFrame, text: str, source: dict[str, Any]) -> None:
    """Print ``text`` and write ``output``.csv, ``output``.md and ``output``.provenance.json."""
    print(text)
    write_text(f"{output}.md", text)
    write_record(output, frame, source)


def write_record(output: Path, frame: pd.DataFrame, source: dict[str, Any]) -> None:
    """Write ``output``.csv and ``output``.provenance.json."""
    write_text(f"{output}.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_json(f"{output}.provenance.json", source)
