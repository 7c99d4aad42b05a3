"""Text as the models take it: one form for training and for use, one way to take lines apart."""

import re
import unicodedata

_WORD = re.compile(r"\w+")


class CorpusError(Exception):
    """A text cannot be used; the message names the file or name at fault and the remedy."""


def prepared(line: str) -> str:
    """A line with single blanks between its tokens, and none at its ends.

    Any white space of Unicode counts: tabs, no-break spaces, carriage returns, line separators.
    Whatever a model is trained on or given goes through this function.
    """
    return " ".join(line.split())


def words_of(line: str) -> list[str]:
    """The runs of letters, digits and `_` in a line, in Unicode's NFC form, as subwords have it."""
    return _WORD.findall(unicodedata.normalize("NFC", line))


def lines_of(data: bytes, name: object) -> list[str]:
    """The lines of a text in UTF-8; they end at line feeds alone.

    Args:
        data: the bytes; a byte order mark and the last line feed are left out.
        name: of the text, for the message of the error.

    Raises:
        CorpusError: it is not UTF-8.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start} "
            f"(line {line}). Convert it, for example: iconv -f LATIN1 -t UTF-8."
        ) from error
    # Not str.splitlines: it would break lines at Unicode's separators too.
    return text.removeprefix("\ufeff").removesuffix("\n").split("\n")
