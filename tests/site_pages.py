"""What the pages of a built site refer to, and whether it is there."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

EXTERNAL = ("http", "https")
# Elements that a browser loads by itself, and the attribute that says what.
LOADED = {
    "img": "src", "script": "src", "iframe": "src", "source": "src", "embed": "src",
    "audio": "src", "video": "src", "link": "href", "object": "data",
}  # fmt: skip
CSS_URL = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')]+)""")


class Page(HTMLParser):
    """A page as read from its file.

    Attributes:
        ids: what an anchor may name.
        links: targets of `<a>`.
        loaded: what the browser loads by itself: images, scripts, styles.
        text: words that a reader sees, spaces made one.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self._text: list[str] = []
        self._within: str | None = None
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        self.text = re.sub(r"\s+", " ", "".join(self._text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.ids |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href") is not None:
            self.links.append(attributes["href"])
        if attributes.get(LOADED.get(tag, "")):
            relations = (attributes.get("rel") or "").split()
            if not {"index", "search", "next", "prev", "canonical"} & set(relations):
                self.loaded.append(attributes[LOADED[tag]])
        self.loaded += CSS_URL.findall(attributes.get("style") or "")
        if tag in ("script", "style"):
            self._within = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._within:
            self._within = None

    def handle_data(self, data: str) -> None:
        if self._within == "style":
            self.loaded += CSS_URL.findall(data)
        elif self._within is None:
            self._text.append(data)


def read_site(folder: Path) -> dict[Path, Page]:
    """All pages of a site by their path."""
    return {path: Page(path) for path in sorted(folder.resolve().rglob("*.html"))}


def broken(pages: dict[Path, Page]) -> Iterator[str]:
    """Links, images and the like that lead nowhere; of other hosts' only the form is judged."""
    for path, page in pages.items():
        for target in dict.fromkeys((*page.links, *page.loaded)):
            problem = _problem(path, target, pages)
            if problem:
                yield f"{path.name}: {target}: {problem}"


def _problem(path: Path, target: str, pages: dict[Path, Page]) -> str | None:
    parts = urlsplit(target)
    if parts.scheme == "data":
        return None
    if parts.scheme in EXTERNAL:
        return (
            None if re.fullmatch(r"[\w-]+(\.[\w-]+)+|127\.0\.0\.1(:\d+)?", parts.netloc) else "odd"
        )
    if parts.scheme or parts.netloc or parts.path.startswith("/"):
        return "neither on this site nor http"
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not file.is_file():
        return "is not there"
    if parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].ids:
        return "has no such anchor"
    return None


def loaded_from_elsewhere(pages: dict[Path, Page]) -> Iterator[str]:
    """What pages and style sheets load from other hosts."""
    for path, page in pages.items():
        for target in page.loaded:
            if urlsplit(target).netloc:
                yield f"{path.name}: {target}"
    folders = {path.parent for path in pages}
    for sheet in {sheet for folder in folders for sheet in folder.rglob("*.css")}:
        for target in CSS_URL.findall(sheet.read_text(encoding="utf-8")):
            if urlsplit(target).netloc:
                yield f"{sheet.name}: {target}"
