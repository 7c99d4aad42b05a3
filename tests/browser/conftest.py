"""A real browser for the tests in this folder, which reaches nothing but this machine."""

import shutil

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from needs import missing

expect.set_options(timeout=60_000)  # milliseconds: the machine may be busy

COMMANDS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # which root can't have
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


# Not for the whole session: Playwright keeps an event loop, which other tests' libraries start too.
@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, COMMANDS)), None)
    if program is None:
        missing("Chromium", "install it, on Debian by: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, tmp_path):
    """An empty page; what it shows when the test fails is kept below tmp_path."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    yield page
    page.context.close()


@pytest.fixture
def errors(page: Page) -> list[str]:
    """What the page's scripts throw, or write to the console as an error."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))

    def note(line):
        if line.type == "error":
            found.append(f"{line.text} ({line.location['url']})")

    page.on("console", note)
    return found


@pytest.fixture
def requested(page: Page) -> list[str]:
    """Every address that the page asks for."""
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("websocket", lambda socket: addresses.append(socket.url))
    return addresses


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.failed and call.when == "call" and page is not None:
        picture = item.funcargs["tmp_path"] / "failed.png"
        page.screenshot(path=picture)
        report.sections.append(("screenshot", str(picture)))
    return report
