"""The built site as a reader meets it: served from this machine, by nobody else's help."""

import functools
import http
import http.server
import threading
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from needs import missing
from sources import ROOT

SITE = ROOT / "site" / "html"
WALKTHROUGH = "notebooks/00_gumbel_gates.html"
GALLERY = "results/quick/figures/index.html"
PAGES = {
    "home": "index.html",
    "walkthrough": WALKTHROUGH,
    "results": "results/index.html",
    "claims": "results/claims.html",
    "gallery": GALLERY,
    "tables": "results/quick/tables/index.html",
    "fidelity": "docs/fidelity.html",
    "reference": "reference.html",
    "a module": "api/g2lstm/gates/index.html",
}
PHONE = {"width": 360, "height": 740}


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/favicon.ico":  # which a browser asks for unasked
            self.send_response(http.HTTPStatus.NO_CONTENT)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site():
    """Address of the site, served on this machine."""
    if not (SITE / "index.html").exists():
        missing("the built site", "build it by: make site")
    handler = functools.partial(Handler, directory=SITE)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def broken_pictures(page: Page) -> list[str]:
    """Addresses of the pictures that don't load; those further down load when asked for."""
    return page.evaluate(
        """async () => {
            const all = [...document.images].map(image => {
                image.loading = "eager";
                return image.decode().then(() => image.naturalWidth > 0, () => false)
                    .then(loaded => loaded ? null : image.src);
            });
            return (await Promise.all(all)).filter(Boolean);
        }"""
    )


def wider_than_screen(page: Page) -> list[str]:
    """What sticks out of the screen; code, tables and formulas scroll in frames of their own."""
    return page.evaluate(
        """() => [...document.querySelectorAll("header *, article *")]
            .filter(e => e.getBoundingClientRect().right > document.body.clientWidth + 1)
            .filter(e => !e.closest("pre, .table-wrapper, .math-wrapper, .output, mjx-container"))
            .map(e => e.outerHTML.slice(0, 80))"""
    )


def other_hosts(page: Page, requested: list[str]) -> set[str]:
    """Whom the page asks for something, or has the browser connect to beforehand."""
    hints = page.locator("link[rel~=preconnect], link[rel~=dns-prefetch], link[rel~=prefetch]")
    addresses = requested + hints.evaluate_all("links => links.map(link => link.href)")
    return {urlsplit(address).netloc for address in addresses} - {urlsplit(page.url).netloc, ""}


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_a_page_is_whole_and_asks_nobody_else(site, page, errors, requested, path):
    answer = page.goto(site + path)
    assert answer.ok, f"{path}: {answer.status}"
    expect(page.locator("h1").first).to_be_visible()
    assert broken_pictures(page) == []
    page.set_viewport_size(PHONE)
    page.wait_for_load_state("networkidle")
    assert wider_than_screen(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert other_hosts(page, requested) == set()
    assert errors == []


def test_formulas_and_pictures_of_the_walkthrough_are_shown(site, page):
    page.goto(site + WALKTHROUGH)
    page.locator("mjx-container svg").first.wait_for(state="attached")
    page.wait_for_function("() => !document.body.innerText.includes('\\\\(')")
    assert page.locator("mjx-container").count() == page.locator(".math").count() > 100
    assert page.locator("mjx-merror, [data-mml-node='merror']").count() == 0
    widths = page.locator("article img").evaluate_all("all => all.map(image => image.naturalWidth)")
    assert len(widths) >= 6
    assert min(widths) > 100


def test_the_gallery_shows_every_figure(site, page):
    page.goto(site + GALLERY)
    figures = {path.name for path in (ROOT / "results/quick/figures").glob("*.png")}
    shown = page.locator("article img").evaluate_all("all => all.map(image => image.src)")
    assert {address.rsplit("/", 1)[1] for address in shown} == figures
    assert broken_pictures(page) == []


def test_a_reader_finds_gumbel(site, page, errors, requested):
    page.goto(site)
    page.get_by_placeholder("Search").fill("Gumbel")
    page.get_by_placeholder("Search").press("Enter")
    results = page.locator("#search-results li a")
    results.first.wait_for()
    walkthrough = page.locator(f"#search-results a[href^='{WALKTHROUGH}']").first
    walkthrough.click()
    expect(page.locator("h1").first).to_contain_text("The Gumbel gate")
    assert errors == []
    assert other_hosts(page, requested) == set()


def test_a_reader_comes_from_the_home_page_to_the_results(site, page):
    page.goto(site)
    page.locator(".sidebar-tree a[href='results/index.html']").click()
    page.wait_for_url("**/results/index.html")
    expect(page.locator("h1").first).to_contain_text("Results")
    page.locator("article a[href*='claims.html']").first.click()
    page.wait_for_url("**/results/claims.html*")
    assert page.locator("article table").count() > 0


def test_a_phone_shows_the_menu_when_asked(site, page):
    page.set_viewport_size(PHONE)
    page.goto(site)
    link = page.locator(f".sidebar-tree a[href='{WALKTHROUGH}']")
    expect(link).not_to_be_in_viewport()
    page.locator("label.nav-overlay-icon").first.click()
    expect(link).to_be_in_viewport()
    link.click()
    expect(page.locator("h1").first).to_contain_text("The Gumbel gate")
