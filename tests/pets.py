"""A tiny made-up parallel corpus for tests: word for word, in any source language's suffix."""

import random
from pathlib import Path

WORDS = {"Hund": "dog", "Katze": "cat", "sieht": "sees", "hört": "hears", "Maus": "mouse"}


def write_pets(folder: Path, source_language: str) -> None:
    """Write train (200 pairs), valid (30) and test (40) in the source language and English."""
    source = random.Random(0)
    for split, lines in (("train", 200), ("valid", 30), ("test", 40)):
        pairs = [source.choices([*WORDS.items()], k=source.randint(2, 5)) for _ in range(lines)]
        for side, language in enumerate((source_language, "en")):
            text = "".join(" ".join(word[side] for word in pair) + ".\n" for pair in pairs)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
