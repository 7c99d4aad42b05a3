"""Put together what Sphinx reads: copies of pages, notebooks and figures, and generated pages.

`make site` runs it: python docs/collect.py FOLDER. The copy has the repository's folders, so that
its relative links hold; those to folders and modules are rewritten, files that are no pages copied.
"""

import json
import os
import re
import sys
from pathlib import Path

from pages import ANALYSES, API, finished_presets, generated_pages, words

ROOT = Path(__file__).resolve().parents[1]
NAME = re.compile(r"`(\w+):(\w[\w.]*)`")  # module and name, as in `gates:gumbel_gate`
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")


def pages(root: Path = ROOT) -> list[Path]:
    """The Markdown files and notebooks that become pages, as paths below ``root``."""
    patterns = (
        "README.md", "docs/*.md", "notebooks/*.ipynb", "benchmarks/*.md", "models/README.md",
        "models/*/README.md",
    )  # fmt: skip
    found = [path for pattern in patterns for path in root.glob(pattern)]
    for preset in finished_presets(root):
        found += [*preset.glob("*.md"), *preset.glob(f"notebooks/{ANALYSES}")]
    return sorted(path.relative_to(root) for path in found if path.name != "toc.md")


def sources(root: Path = ROOT) -> list[Path]:
    """All files that the site is made of: it is out of date when one of them is newer."""
    patterns = (
        "docs/*", "docs/static/*", "g2lstm/*.py", "results/*/claims.json", "results/*/figures/*",
        "results/*/tables/*", "tests/test_project.py",
    )  # fmt: skip
    found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    return sorted(found | {root / path for path in pages(root)})


def collect(target: Path, root: Path = ROOT) -> None:
    """Make ``target`` what Sphinx is to read; what is there and right is not touched."""
    wanted: dict[Path, str | Path] = dict(generated_pages(root))
    copied: set[Path] = set()
    for page in pages(root):
        text = (root / page).read_text(encoding="utf-8")
        name = Path("index.md") if page == Path("README.md") else page
        if page.suffix == ".ipynb":
            wanted[name] = notebook(text, page, root, copied)
        else:
            titled = re.search("^# ", text, re.MULTILINE)
            heading = "" if titled else f"# {page.parent.name.capitalize()}: {page.stem}\n\n"
            wanted[name] = heading + relink(text, page, root, copied)
    toc = (root / "docs/toc.md").read_text(encoding="utf-8").splitlines(keepends=True)
    wanted[Path("index.md")] += "\n" + "".join(toc)
    for figure in (*root.glob("results/*/figures/*.png"), *root.glob("results/*/figures/*.svg")):
        copied.add(figure.relative_to(root))
    wanted = {path: root / path for path in copied} | wanted

    for path, content in wanted.items():
        write(target / path, content)
    for path in target.rglob("*"):
        below = path.relative_to(target)
        if path.is_file() and below not in wanted and not is_reference(below, root):
            path.unlink()
            (target.parent / "html" / below).with_suffix(".html").unlink(missing_ok=True)


def is_reference(below: Path, root: Path) -> bool:
    """Whether Sphinx wrote this file for a module that there is."""
    folder, *module = below.parts
    return folder == API.name and (
        len(module) < 3 or (root / "g2lstm" / f"{module[1]}.py").is_file()
    )


def write(path: Path, content: str | Path) -> None:
    """Text or the copy of a file; a file that is the same already keeps its time."""
    data = content.read_bytes() if isinstance(content, Path) else content.encode()
    if not path.is_file() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def notebook(text: str, page: Path, root: Path, copied: set[Path]) -> str:
    """A notebook without progress bars, whose program a site has not, and with links that hold.

    The title of one among the results says of which.
    """
    content = json.loads(text)
    content["metadata"].pop("widgets", None)
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            source = "".join(cell["source"])
            if page.parts[0] == "results":
                source = re.sub("^# .*", rf"\g<0> ({page.parts[1]}: {words(page.stem)})", source)
            cell["source"] = relink(source, page, root, copied)
        cell["outputs"] = [output for output in cell.get("outputs", []) if not is_widget(output)]
        if cell["cell_type"] != "code":
            del cell["outputs"]
    return json.dumps(content, ensure_ascii=False, indent=1)


def is_widget(output: dict) -> bool:
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def relink(text: str, page: Path, root: Path, copied: set[Path]) -> str:
    """Text with links as the site needs them; adds files to ``copied`` that are linked to.

    On the pages of docs/ names of the package become links to the reference.
    """

    def replace(match: re.Match) -> str:
        link, anchor = match[1], match[2] or ""
        return f"]({destination(link, page, root, copied)}{anchor})"

    text = NAME.sub(r"{py:obj}`\1:\2 <g2lstm.\1.\2>`", text) if page.parts[0] == "docs" else text
    return LINK.sub(replace, text)


def destination(link: str, page: Path, root: Path, copied: set[Path]) -> str:
    """Where a relative link on ``page`` leads to on the site."""
    if ":" in link:
        return link
    below = Path(os.path.normpath(page.parent / link))
    if below == Path("README.md"):
        below = Path("index.md")
    elif below.parts[0] == "g2lstm" and below.suffix == ".py":
        below = API / "g2lstm" / below.stem / "index.rst"
    elif (root / below).is_dir():
        below /= "index.md"
    elif not (root / below).exists() and (root / "notebooks" / below.name).exists():
        below = Path("notebooks") / below.name  # a copy's link to the notebook beside the original
    elif (root / below).is_file():
        copied.add(below)
    return os.path.relpath(below, page.parent)


if __name__ == "__main__":
    collect(Path(sys.argv[1]))
