"""The command `g2lstm`: its arguments, and errors as one line.

What the sub-commands do is in `commands`, which is imported only when one runs: help is quick.
"""

import argparse
import os
import sys
from collections.abc import Callable

from g2lstm import streams
from g2lstm.exit_codes import FAILED, INTERRUPTED, WRONG

MODEL = "a run directory with its weights, or the folder of a released or compressed model"


def main(arguments: list[str] | None = None) -> int:
    """Run a sub-command; the exit code: 0, 1 (verification failed), 2 (an error), 130 (Ctrl-C)."""
    streams.make_ready()
    options = parser().parse_args(arguments)
    try:
        return _run(options)
    except BrokenPipeError:
        _drop_output()  # whoever read it has gone
        return FAILED
    except KeyboardInterrupt:
        streams.say("stopped", before="\n")  # after the terminal's ^C
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    from g2lstm import commands
    from g2lstm.memory import SMALLER, out_of_memory

    try:
        code = getattr(commands, options.command)(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        raise
    except commands.EXPECTED as error:
        text = str(error)
        if isinstance(error, OSError) and error.strerror:
            if error.filename is None:
                _drop_output()
            text = f"{error.filename or 'standard output'}: {error.strerror}"
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        text = f"there is not enough memory for this ({error or 'no more could be had'}): {SMALLER}"
    streams.say(f"error: {' '.join(text.split())}")
    return WRONG


def _drop_output() -> None:
    """Let what is still to be written go nowhere: at the exit it would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser() -> argparse.ArgumentParser:
    """The arguments of all sub-commands."""
    top = argparse.ArgumentParser(
        prog="g2lstm",
        description="LSTMs with binary-valued gates: list, verify, train, use and compress models.",
        epilog="g2lstm COMMAND --help explains a command. Guide: docs/command_line.md",
    )
    top.add_argument("--version", action=_Version, nargs=0, help="say the version and end")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str, *examples: str) -> Callable[..., argparse.Action]:
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        return command.add_argument

    _add_records(add)
    _add_models(add)
    _add_train(add)
    return top


def _add_records(add: Callable[..., Callable[..., argparse.Action]]) -> None:
    argument = add(
        "runs", "list runs: settings, state, main metrics",
        "g2lstm runs", "g2lstm runs --folder results/small", "g2lstm runs --json",
    )  # fmt: skip
    argument("--folder", help="of runs or results (default: $G2LSTM_RUNS, else runs)")
    argument("--json", action="store_true", help="as JSON, all digits, for other programs")
    argument = add(
        "verify",
        "check published results: checksums, records, numbers, figures, notebooks",
        "g2lstm verify", "g2lstm verify results/quick", "g2lstm verify models/*/",
    )  # fmt: skip
    argument(
        "folders", nargs="*", metavar="FOLDER",
        help="results of a preset, or a model (default: all of results/ and models/)",
    )  # fmt: skip
    argument = add(
        "seal",
        "write the manifest of results or of a model: size and sha256 of every file",
        "g2lstm seal results/quick",
    )
    argument("folders", nargs="+", metavar="FOLDER", help="results of a preset")


def _add_models(add: Callable[..., Callable[..., argparse.Action]]) -> None:
    argument = add(
        "translate",
        "translate the sentences on standard input, one a line",
        "g2lstm translate models/translation-gumbel < sentences.txt",
    )
    argument("model", metavar="MODEL", help=MODEL)
    argument("--beam-size", type=int, metavar="N", help="1 to 1000 (default: the preset's)")
    argument = add(
        "perplexity",
        "measure the perplexity of a language model on a text, a sentence a line",
        "g2lstm perplexity models/language-model-gumbel text.txt",
        "echo 'the hungry fox chases a dog .' | g2lstm perplexity models/language-model-gumbel -",
    )
    argument("model", metavar="MODEL", help=MODEL)
    argument("file", metavar="FILE", help="the text, UTF-8; -: standard input")
    argument("--cache", action="store_true", help="with the cache pointer")
    argument(
        "--cache-recipe", choices=("penn-treebank", "wikitext-2"), default="penn-treebank",
        help="whose settings of AWD-LSTM's cache pointer (default: penn-treebank)",
    )  # fmt: skip
    argument = add(
        "compress",
        "write a smaller model: low rank or rounded gates, int8 for the rest",
        "g2lstm compress models/language-model-gumbel --rank 16 -o small",
        "g2lstm compress models/language-model-gumbel --round 0.2 --clip 0.4 --int8 -o smaller",
    )
    argument("model", metavar="MODEL", help=MODEL)
    argument("--rank", type=int, metavar="R", help="gates as two thin factors of this rank")
    argument("--all-gates", action="store_true", help="with --rank: factors of all four gates")
    argument("--round", type=float, metavar="STEP", help="round the gates to multiples of this")
    argument("--clip", type=float, metavar="C", help="clip to [-C, C] first (with --round)")
    argument("--int8", action="store_true", help="store all other matrices as int8")
    _add_output(argument)
    argument = add(
        "export",
        "write a language model as an ONNX file, which runs without PyTorch",
        "g2lstm export models/language-model-gumbel model.onnx --int8",
    )
    argument("model", metavar="MODEL", help=MODEL)
    argument("output", metavar="OUT.onnx", help="the new file")
    argument("--int8", action="store_true", help="matrices in int8: four times smaller, and faster")
    argument("--force", action="store_true", help="replace a file that is there")
    argument = add(
        "release",
        "write a finished run as a model with vocabulary, records and model card",
        "g2lstm release runs/language-model/grammar/quick/sigmoid/seed-1 -o models/mine",
    )
    argument("model", metavar="RUN", help="a run directory with its weights")
    _add_output(argument)


def _add_output(argument: Callable[..., argparse.Action]) -> None:
    argument("-o", "--output", required=True, metavar="FOLDER", help="the new folder")
    argument("--force", action="store_true", help="replace a model that is there")


def _add_train(add: Callable[..., Callable[..., argparse.Action]]) -> None:
    argument = add(
        "train",
        "train one run, or go on with it, without a notebook",
        "g2lstm train --gate gumbel --seed 1",
        "g2lstm train --task translation --preset small --set epochs=2 --set dropout=0.1",
        "torchrun --standalone --nproc-per-node 2 -m g2lstm train --set processes=2",
    )
    _add_experiment(
        argument, preset="quick", preset_help="quick (default), small, paper-brief or paper"
    )
    argument("--gate", default="gumbel", help="sigmoid, sharpened or gumbel (default)")
    argument("--seed", type=int, default=1, help="(default: 1)")
    argument("--temperature", type=float, help="tau (default: the gate's)")
    argument("--noise-probability", type=float, help="p of the Gumbel gate (default: 0.2)")
    argument("--schedule", default="constant", help="of tau: constant (default), linear, ...")
    argument("--temperature-end", type=float, help="tau at the end of the schedule")
    argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="another value for a setting of the preset, such as epochs=2; may be repeated",
    )  # fmt: skip
    argument(
        "--untested", action="store_true",
        help="measure nothing on the test text; records and a table go to results/",
    )  # fmt: skip
    argument("--quiet", action="store_true", help="no progress bar")
    argument = add(
        "tune",
        "try a preset's candidate settings with every gate, on the validation text alone",
        "g2lstm tune", "g2lstm tune --task translation --gate sigmoid --gate gumbel",
    )  # fmt: skip
    _add_experiment(argument, preset="small", preset_help="(default: small)")
    argument("--gate", action="append", help="may be repeated (default: all three)")
    argument("--seed", type=int, default=1, help="of every run (default: 1)")
    argument("--quiet", action="store_true", help="no progress bars")


def _add_experiment(
    argument: Callable[..., argparse.Action], preset: str, preset_help: str
) -> None:
    argument("--task", default="language-model", help="language-model (default) or translation")
    argument("--preset", default=preset, help=preset_help)
    argument("--corpus", help="name or folder (default: the preset's)")
    argument("--languages", help="of a translation, such as de-en")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *arguments: object) -> None:
        from g2lstm import __version__

        print(f"g2lstm {__version__}")
        parser.exit()
