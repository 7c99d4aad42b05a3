"""Standard streams that may be closed, or take only some characters."""

import os
import sys
from contextlib import suppress

from g2lstm.text import CorpusError, lines_of


def make_ready() -> None:
    """Let every standard stream be there, and the outputs take every character.

    A closed output drops what it gets, with a remark where it is standard output. Its descriptor is
    taken as well, or the next file opened would get it. Closed input is left to `input_lines`.

    Output to a file or a pipe is UTF-8, as input is. A terminal keeps its encoding. What cannot be
    encoded is shown as an escape such as ``\\udcff``.
    """
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        descriptor = ("stdin", "stdout", "stderr").index(name)
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
        if name != "stdin":
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a stand-in for a stream
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="backslashreplace")
    if "stdout" in closed:
        say("standard output is closed: what would be printed there is lost")


def say(text: str, before: str = "") -> None:
    """A remark, on standard error; lost where that cannot be written."""
    with suppress(OSError):
        print(f"{before}g2lstm: {text}", file=sys.stderr, flush=True)


def input_lines() -> list[str]:
    """The lines on standard input, in UTF-8.

    Raises:
        CorpusError: it is closed, cannot be read or is not UTF-8.
    """
    if sys.stdin is None:
        raise CorpusError("standard input is closed: give the text there, a sentence a line")
    if sys.stdin.isatty():
        say("reading from the keyboard; Ctrl-D ends")
    try:
        data = sys.stdin.buffer.read()
    except OSError as error:
        raise CorpusError(f"cannot read standard input: {error.strerror}") from error
    return lines_of(data, "standard input")
