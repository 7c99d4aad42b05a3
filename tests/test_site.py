"""The site: complete, self-contained, its links hold, and its numbers are those of the results."""

import csv
import importlib
import json
import re
from pathlib import Path

import pytest

from collect import NAME, collect, destination, notebook, sources
from g2lstm.paper import TABLES, TABLES_OF
from site_pages import broken, loaded_from_elsewhere, read_site
from sources import MODULES, NOTEBOOKS, ROOT
from test_project import LAYERS

FIDELITY = (ROOT / "docs/fidelity.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html():
    """Where the site is, which `make test` builds first."""
    built = ROOT / "site/html/.built"
    newest = max(path.stat().st_mtime for path in sources())
    if not built.is_file() or built.stat().st_mtime < newest:
        pytest.fail("there is no site, or it is older than what it is made of: run `make site`")
    return built.parent


@pytest.fixture(scope="module")
def pages(html):
    return read_site(html)


@pytest.fixture
def page(html, pages):
    return lambda name: pages[(html / name).resolve()]


# What is built


def test_every_link_anchor_and_image_is_there(pages):
    assert not list(broken(pages))


def test_nothing_is_loaded_from_another_host(pages):
    assert not list(loaded_from_elsewhere(pages))


def test_the_site_holds_notebooks_modules_and_pages(html, page):
    names = [f"notebooks/{path.stem}" for path in NOTEBOOKS]
    names += [f"api/g2lstm/{name}/index" for name in MODULES if name[0] != "_"]
    names += ["results/index", "results/claims", "docs/fidelity", "reference"]
    home = set(page("index.html").links)
    for name in names:
        assert (html / f"{name}.html").is_file(), name
        assert f"{name}.html" in home, f"{name} is not in the table of contents"


def test_formulas_are_rendered_by_a_script_of_the_site(page):
    gates = page("notebooks/00_gumbel_gates.html")
    assert any(link.split("?")[0].endswith("_static/tex-svg.js") for link in gates.loaded)
    assert r"\(\sigma" in gates.text
    assert "$" not in gates.text.replace("$G2LSTM", "")


@pytest.mark.parametrize("word", ["gumbel", "perplex", "logistic_nois", "theano"])
def test_search_finds(html, word):
    text = (html / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    assert index["terms"].get(word) is not None


def test_modules_stand_in_the_order_of_data_flow(page):
    found = [re.search(r"api/g2lstm/(\w+)/", link) for link in page("reference.html").links]
    order = list(dict.fromkeys(match[1] for match in found if match))
    assert order == [name for name in LAYERS if name[0] != "_"]


# Numbers


def test_results_page_has_our_numbers(page):
    text = page("results/index.html").text
    tables = list(ROOT.glob("results/*/tables/*_compression.csv"))
    assert tables
    for path in tables:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["seeds"]:
                    cells = [value for name, value in row.items() if name != "model"]
                    assert " ".join(cells) in text, f"{path}: {row}"


def test_results_page_has_the_papers_numbers(page):
    text = page("results/index.html").text
    for task, digits in (("language-model", 1), ("translation", 2)):
        for corpus in TABLES_OF[task]:
            for row in TABLES[corpus].values():
                result, *others = row.values()
                cells = [f"{value:.{digits}f} ({value - result:+.{digits}f})" for value in others]
                expected = " ".join([f"{result:.{digits}f}", *cells])
                assert expected in text, expected


def test_claims_page_has_the_verdicts(page):
    text = page("results/claims.html").text
    records = list(ROOT.glob("results/*/claims.json"))
    assert records
    for path in records:
        record = json.loads(path.read_text(encoding="utf-8"))
        for row in (row for row in record["statistics"] if "verdict" in row):
            start = f"{path.parent.name} {row['corpus']} {row['name']} ({row['unit']})"
            parts = [part[: part.index(row["verdict"])] for part in text.split(start)[1:]
                     if row["verdict"] in part]  # fmt: skip
            numbers = (f"{row['noise']:g}", f"{row['paper']:+.3f}")
            assert any(all(number in part for number in numbers) for part in parts), start


@pytest.mark.parametrize("kind", ["figures", "tables"])
def test_figures_and_tables_have_their_provenance(page, kind):
    records = list(ROOT.glob(f"results/*/{kind}/*.provenance.json"))
    assert records
    for path in records:
        record = json.loads(path.read_text(encoding="utf-8"))
        name = path.name.removesuffix(".provenance.json").replace("_", " ")
        text = page(f"results/{path.parts[-3]}/{kind}/index.html").text
        part = re.split(rf"{re.escape(name)} ?¶|{re.escape(name)} ?#", text)[1]
        part = part.split(record["command"])[0]
        assert f"Commit {record['commit'][:10]}" in part[-80:], path


# The page on fidelity


def test_fidelity_names_what_there_is():
    names = NAME.findall(FIDELITY)
    assert len(names) > 50
    for module, name in names:
        found = importlib.import_module(f"g2lstm.{module}")
        for part in name.split("."):
            assert hasattr(found, part), f"{module}:{name}"
            found = getattr(found, part)


def test_fidelity_says_of_every_fact_whether_it_is_the_same():
    rows = [line.strip("| ").split(" | ") for line in FIDELITY.splitlines() if line[:1] == "|"]
    facts = [row for row in rows if row[0] != "fact" and not row[0].startswith("---")]
    assert len(facts) > 50
    for row in facts:
        assert len(row) == 6, row
        assert re.match(r"(yes|differs|added)\b", row[5]), row


# How it is put together


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("README.md", "results/quick", "results/quick/index.md"),
        ("README.md", "notebooks/03_translation.ipynb", "notebooks/03_translation.ipynb"),
        ("docs/fidelity.md", "../README.md", "../index.md"),
        ("docs/fidelity.md", "../g2lstm/gates.py", "../api/g2lstm/gates/index.rst"),
        ("docs/fidelity.md", "https://github.com/a/b", "https://github.com/a/b"),
        (
            "results/quick/notebooks/09_report.ipynb",
            "05_compression.ipynb",
            "../../../notebooks/05_compression.ipynb",
        ),
    ],
)
def test_links_lead_to_pages_of_the_site(page, link, expected):
    assert destination(link, Path(page), ROOT, set()) == expected


def test_files_that_are_no_pages_come_along():
    copied = set()
    assert destination("CITATION.cff", Path("README.md"), ROOT, copied) == "CITATION.cff"
    assert copied == {Path("CITATION.cff")}


def test_progress_bars_are_left_out():
    bar = {"data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%"}}
    cell = {"cell_type": "code", "source": "x", "outputs": [bar, {"text": "kept"}]}
    made = json.loads(
        notebook(
            json.dumps({"cells": [cell], "metadata": {"widgets": {}}}), Path("n.ipynb"), ROOT, set()
        )
    )
    assert made["cells"][0]["outputs"] == [{"text": "kept"}]
    assert made["metadata"] == {}


def test_what_is_gone_is_removed_and_the_rest_left_as_it_is(tmp_path):
    source = tmp_path / "source"
    collect(source)
    page = source / "results/index.md"
    module = source / "api/g2lstm/gates/index.rst"
    stale = [
        source / "docs/gone.md",
        tmp_path / "html/docs/gone.html",
        source / "api/g2lstm/gone/index.rst",
    ]
    for path in (*stale, module):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    before = page.stat().st_mtime_ns
    collect(source)
    assert not [path for path in stale if path.exists()]
    assert module.exists()
    assert page.stat().st_mtime_ns == before


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<link href="https://fonts.example.com/f.css"><p id="here"><a href="b.html#there">x</a>'
        '<a href="b.html#nowhere">x</a><a href="c.html">x</a><img src="d.png"><a href="#here">x</a>'
        '<a href="http:///x">x</a><p style="background: url(https://example.com/i.png)">'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1>')
    (tmp_path / "s.css").write_text("@import 'https://example.com/s.css'; a { color: red }")
    pages = read_site(tmp_path)
    assert [problem.split(": ")[1] for problem in broken(pages)] == [
        *("b.html#nowhere", "c.html", "http:///x", "d.png")
    ]
    assert len(list(loaded_from_elsewhere(pages))) == 3
