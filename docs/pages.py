"""Pages made of the results and of the package: no number on them is typed."""

import ast
import csv
import json
import re
import runpy
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

API = Path("api")  # where Sphinx writes the pages of the modules
# Notebooks of single runs stay in the repository: they look alike, and there are dozens.
ANALYSES = "0[2456789]_*.ipynb"
MODELS = {"sigmoid": "LSTM", "sharpened": "sharpened sigmoid", "gumbel": "G2-LSTM"}
TASKS = {"language-model": "language_model", "translation": "translation"}  # and names in files
# What the paper's numbers in its tables of compression are.
PAPERS = {
    "language-model": "The paper's have the cache pointer, in which settings it does not say.",
    "translation": "The paper's are tokenised BLEU, case-insensitive for IWSLT'14.",
}
METRICS = {"language-model": "Test perplexity, lower", "translation": "Test BLEU, higher"}


def generated_pages(root: Path) -> Iterator[tuple[Path, str]]:
    """Paths on the site and their Markdown."""
    presets = finished_presets(root)
    paper = runpy.run_path(str(root / "g2lstm/paper.py"))
    # Those of Snakemake's report, in one place.
    captions = {p.stem: " ".join(p.read_text("utf-8").split()) for p in root.glob("report/*.rst")}
    yield Path("results/index.md"), results_page(presets, paper)
    yield Path("results/claims.md"), claims_page(presets, paper["CLAIMS"])
    for preset in presets:
        folder = preset.relative_to(root)
        yield folder / "index.md", preset_page(preset)
        yield folder / "tables/index.md", tables_page(preset)
        yield folder / "figures/index.md", figures_page(preset, captions)
    yield Path("reference.md"), reference_page(root)


def finished_presets(root: Path) -> list[Path]:
    """The folders of results that are sealed; others are still being made."""
    return sorted(path.parent for path in root.glob("results/*/manifest.json"))


# Results beside the paper


def results_page(presets: Sequence[Path], paper: dict[str, Any]) -> str:
    """The paper's tables, our rows beneath the paper's."""
    parts = [
        "# Results beside the paper",
        "Rows of ours: mean ± sample standard deviation over the seeds, from each preset's tables: "
        + ", ".join(f"[{preset.name}]({preset.name}/index.md)" for preset in presets)
        + ". The paper's numbers are of models many times larger and, but for `ptb`, on other "
        "texts: compare differences between gates (in brackets: the change by compression), not "
        "levels. Whether the claims hold is judged on a [page of its own](claims.md).",
    ]
    for task, metric in METRICS.items():
        rows = [
            [MODELS[gate], *row]
            for gate in MODELS
            for row in (*papers_rows(paper, task, gate), *our_rows(presets, task, MODELS[gate]))
        ]
        header = ["model", "whose", "seeds", *paper_columns(paper)]
        parts += [f"## {title(task)}", f"{metric} is better. {PAPERS[task]}", table(header, rows)]
        if task == "language-model":
            strongest = paper["TABLES"]["Penn Treebank"]
            before, after = (strongest["sigmoid"][column] for column in ("result", "SVD+"))
            parts.append(
                f"The paper's {after} (LSTM) and {strongest['gumbel']['SVD+']} (G2-LSTM) under "
                "SVD+ are Penn Treebank perplexities at rank 64; a widely read review takes them "
                "for IWSLT'14. "
                f"{after} is {after / before - 1:.0%} above the uncompressed {before}."
            )
    return page(parts)


def paper_columns(paper: dict[str, Any]) -> list[str]:
    return list(paper["TABLES"]["Penn Treebank"]["sigmoid"])


def papers_rows(paper: dict[str, Any], task: str, gate: str) -> Iterator[list[str]]:
    digits = 1 if task == "language-model" else 2
    for corpus in paper["TABLES_OF"][task]:
        result, *others = paper["TABLES"][corpus][gate].values()
        cells = [f"{value:.{digits}f} ({value - result:+.{digits}f})" for value in others]
        yield [f"paper, {corpus}", "", f"{result:.{digits}f}", *cells]


def our_rows(presets: Iterable[Path], task: str, model: str) -> Iterator[list[str]]:
    """The model's rows in the tables of compression; the paper's rows there have no seeds."""
    for preset in presets:
        for path in sorted(preset.glob(f"tables/{TASKS[task]}_*_compression.csv")):
            corpus = path.stem.removeprefix(f"{TASKS[task]}_").removesuffix("_compression")
            result, *_ = read_csv(path.with_name(f"{path.stem}_sizes.csv"))
            for row in read_csv(path):
                if row["model"] == model and row["seeds"]:
                    _, seeds, *cells = row.values()
                    whose = f"ours, {corpus} ([{preset.name}]({preset.name}/index.md)): "
                    whose += result["metric"]
                    yield [f"**{whose}**", seeds, *(f"**{cell}**" for cell in cells)]


# Claims


def claims_page(presets: Iterable[Path], claims: dict[int, str]) -> str:
    """Each claim with the statistics about it, those with a verdict first."""
    records = {
        preset.name: json.loads((preset / "claims.json").read_text(encoding="utf-8"))
        for preset in presets
        if (preset / "claims.json").exists()
    }
    parts = [
        "# Is it the paper's effect?",
        "Verdicts by a rule that was written down before it was applied, see [below](#the-rule). "
        "Positive is the paper's direction. The number of seeds is that of each model.",
        *(f"![Preset {name}]({name}/figures/forest.png)" for name in records),
    ]
    for number, text in claims.items():
        found = [
            [preset, s["corpus"], f"{s['name']} ({s['unit']})", *numbers(s)]
            for judged in (True, False)
            for preset, record in records.items()
            for s in record["statistics"]
            if s["claim"] == number and ("verdict" in s) == judged
        ]
        header = [
            "preset", "corpus", "statistic", "p", "seeds", "ours", "95 % interval", "paper",
            "verdict",
        ]  # fmt: skip
        parts += [f"## Claim {number}", text, table(header, found)]
    rules = dict.fromkeys(record["rule"].strip() for record in records.values())
    return page([*parts, "## The rule", *rules])


def numbers(statistic: dict[str, Any]) -> list[str]:
    """p, seeds, mean, interval, the paper's value and verdict; empty where there is none."""
    noise, paper = statistic["noise"], statistic["paper"]
    interval, seeds = statistic.get("interval"), statistic.get("seeds", ())
    return [
        "" if noise is None else f"{noise:g}",
        " and ".join(dict.fromkeys(str(len(part)) for part in seeds)),
        f"{statistic['mean']:+.3f}" if seeds else "",
        "[{:+.3f}, {:+.3f}]".format(*interval) if interval else "",
        "" if paper is None else f"{paper:+.3f}",
        f"**{statistic['verdict']}**" if "verdict" in statistic else "",
    ]


# A preset's own pages


def preset_page(preset: Path) -> str:
    """What there is of a preset: report, notes, tables, figures, notebooks."""
    texts = sorted(path.stem for path in preset.glob("*.md"))
    entries = [*texts, "tables/index", "figures/index"]
    for path in sorted(preset.glob(f"notebooks/{ANALYSES}")):
        entries.append(f"{words(path.stem)} <notebooks/{path.stem}>")
    return page(
        [
            f"# Preset {preset.name}",
            "Tables and figures over all runs, and the notebooks that made them. The "
            "notebooks and records of the single runs are in the repository, in "
            f"`results/{preset.name}/notebooks` and `results/{preset.name}/runs`.",
            "```{toctree}\n:maxdepth: 1\n\n" + "\n".join(entries) + "\n```",
        ]
    )


def tables_page(preset: Path) -> str:
    """Every saved table with its provenance."""
    parts = [f"# Tables of preset {preset.name}"]
    for path in sorted(preset.glob("tables/*.md")):
        rows = path.read_text(encoding="utf-8").strip()
        parts += [f"## {words(path.stem)}", rows or "Empty.", provenance(path)]
    return page(parts)


def figures_page(preset: Path, captions: dict[str, str]) -> str:
    """Every saved figure with its caption and provenance."""
    parts = [f"# Figures of preset {preset.name}"]
    # The longest name first: "training" ends "gates_training" too.
    kinds = sorted(captions, key=len, reverse=True)
    for path in sorted(preset.glob("figures/*.png")):
        kind = next((kind for kind in kinds if re.search(f"(^|_){kind}$", path.stem)), None)
        if kind is None:
            raise SystemExit(f"{path} has no caption: add one to report/")
        about = f"{{download}}`SVG <{path.stem}.svg>`. {provenance(path)}"
        parts += [
            f"## {words(path.stem)}",
            f":::{{figure}} {path.name}\n:alt: {captions[kind]}\n\n{captions[kind]} {about}\n:::",
        ]
    return page(parts)


def provenance(path: Path) -> str:
    """One line on where a table or figure comes from."""
    record = json.loads(path.with_name(f"{path.stem}.provenance.json").read_text(encoding="utf-8"))
    runs = len(record.get("runs", []))
    changed = " with changes" if record["modified"] else ""
    return (
        f"*Commit {record['commit'][:10]}{changed}, {record['time'][:10]}"
        + (f", {runs} runs" if runs else "")
        + f":* `{record['command']}`"
    )


# The package


def reference_page(root: Path) -> str:
    """The modules in the order of data flow, which a test keeps true."""
    rows, entries = [], []
    for name in layers(root):
        source = (root / f"g2lstm/{name}.py").read_text(encoding="utf-8")
        summary = ast.get_docstring(ast.parse(source)).split("\n\n")[0].replace("\n", " ")
        rows.append([f"[{name}]({API}/g2lstm/{name}/index.rst)", summary])
        entries.append(f"{name} <{API}/g2lstm/{name}/index>")
    return page(
        [
            "# Modules",
            "In the order of data flow: a module imports only from modules above it.",
            table(["module", "holds"], rows),
            "```{toctree}\n:hidden:\n\n" + "\n".join(entries) + "\n```",
        ]
    )


def layers(root: Path) -> list[str]:
    """The public modules from the first to the last, as `tests/test_project.py` has them."""
    for node in ast.parse((root / "tests/test_project.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "LAYERS":
            return [name for name in ast.literal_eval(node.value) if not name.startswith("_")]
    raise LookupError("tests/test_project.py has no LAYERS")


# Markdown


def page(parts: Sequence[str]) -> str:
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def title(task: str) -> str:
    return task.replace("-", " ").capitalize()


def words(name: str) -> str:
    return name.replace("_", " ")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
