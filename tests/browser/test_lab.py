"""`make lab`: a student's walk through the first notebook, and who else could get at the server."""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import nbformat
import psutil
import pytest
from playwright.sync_api import Page, expect

from needs import missing
from sources import ROOT

WALKTHROUGH = "notebooks/00_gumbel_gates.ipynb"
START, RUN, REDRAW = 120, 300, 60  # seconds that each may take at most

# No question about news; all cells in the page at once, seen or not.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}

# What would let others in. A container's port, published without an address, is open to everybody;
# one that shares the host's network is no more open than the program in it.
OPENINGS = re.compile(
    r"""(?:--|\.)ip[ =]+['"]?(?!127\.0\.0\.1\b|localhost\b)\S
    |token\s*=\s*(?:''|""|$|\s)
    |password\s*=\s*(?:''|""|$|\s)
    |allow_remote_access
    |allow_origin
    |allow_unauthenticated_access
    |disable_check_xsrf
    |(?:-p|--publish)[ =]+(?:0\.0\.0\.0:)?\d+:\d+""",
    re.VERBOSE | re.MULTILINE,
)


class Server(NamedTuple):
    url: str
    token: str
    pid: int

    def status(self, method: str, path: str, token: str = "") -> int:
        """HTTP status of an answer; redirections are not followed."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=START)
        connection.request(method, path, headers={"Authorization": f"token {token}"})
        status = connection.getresponse().status
        connection.close()
        return status


def started(process: subprocess.Popen, runtime: Path, log: Path) -> Server:
    deadline = time.monotonic() + START
    while process.poll() is None and time.monotonic() < deadline:
        for file in runtime.glob("jpserver-*.json"):
            try:
                info = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:  # being written
                continue
            return Server(info["url"], info["token"], info["pid"])
        time.sleep(0.1)
    pytest.fail(f"make lab didn't start within {START} s:\n{log.read_text(encoding='utf-8')}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab as `make lab` starts it, on copies of the notebooks without their outputs."""
    if shutil.which("make") is None:
        missing("make", "install it, on Debian by: apt-get install make")
    folder = tmp_path_factory.mktemp("lab")
    (folder / "notebooks").mkdir()
    notebook = nbformat.read(ROOT / WALKTHROUGH, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, folder / WALKTHROUGH)
    settings = folder / "settings" / "@jupyterlab"
    for name, values in SETTINGS.items():
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values), encoding="utf-8")

    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    for name in ("config", "data", "runtime"):
        environment[f"JUPYTER_{name.upper()}_DIR"] = str(folder / name)
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(settings.parent)
    environment["IPYTHONDIR"] = str(folder / "ipython")
    options = "--allow-root --no-browser" if os.geteuid() == 0 else "--no-browser"
    make = ["make", f"--file={ROOT / 'Makefile'}", "--old-file=.venv/.installed", "lab"]
    log = folder / "log"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [*make, f"RUN={sys.executable} -m", f"LAB={options}"],
            cwd=folder,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        yield started(process, folder / "runtime", log)
    finally:
        process.terminate()  # make ends the server, which ends its kernels
        process.wait(30)


def run_all(page: Page, cells: list[str]) -> None:
    """Run All Cells, and wait; the ids of the code cells name those that fail or warn."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(
        """() => {
            const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")];
            return prompts.every(prompt => /\\d/.test(prompt.textContent)) ||
                document.querySelector("[data-mime-type$='jupyter.stderr']");
        }""",
        timeout=RUN * 1000,
    )
    outputs = page.locator(".jp-CodeCell").evaluate_all(
        """cells => cells.map(
            cell => cell.querySelector("[data-mime-type$='jupyter.stderr']")?.textContent)"""
    )
    failed = {cell: output for cell, output in zip(cells, outputs, strict=True) if output}
    assert not failed


def picture_widths(page: Page) -> list[int]:
    return page.locator(".jp-Notebook img").evaluate_all("all => all.map(img => img.naturalWidth)")


def wait_for_picture(page: Page, comparison: str, address: str) -> None:
    """Until the picture below the sliders is another than the one given, or the same again."""
    page.wait_for_function(
        f"""old => {{
            const picture = document.querySelector(".widget-interact img");
            return picture && picture.src {comparison} old;
        }}""",
        arg=address,
        timeout=REDRAW * 1000,
    )


def test_a_student_walks_through_the_first_notebook(server, page, errors, requested):
    committed = nbformat.read(ROOT / WALKTHROUGH, as_version=4)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    figures = sum("image/png" in o.get("data", {}) for cell in code for o in cell.outputs)

    page.goto(f"{server.url}lab?token={server.token}")
    files = page.get_by_role("region", name="File Browser Section")
    files.get_by_text(Path(WALKTHROUGH).name).dblclick(timeout=START * 1000)
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=START * 1000)
    assert picture_widths(page) == []
    run_all(page, [cell.id for cell in code])

    sliders = page.locator(".widget-interact")
    picture = sliders.locator("img")
    expect(picture).to_be_visible()
    widths = picture_widths(page)
    assert len(widths) == figures + 1
    assert min(widths) > 100
    assert page.locator(".jp-MarkdownOutput mjx-container").count() > 100
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    assert "$" not in "".join(page.locator(".jp-MarkdownOutput").all_inner_texts())

    start = picture.get_attribute("src")
    for label, there, back in (
        ("a", "ArrowRight", "ArrowLeft"),
        ("tau", "ArrowRight", "ArrowLeft"),
        ("p", "ArrowLeft", "ArrowRight"),
    ):
        row = sliders.locator(".widget-slider").filter(has=page.get_by_text(label, exact=True))
        value = row.locator(".widget-readout").inner_text()
        row.get_by_role("slider").press(there)
        expect(row.locator(".widget-readout")).not_to_have_text(value)
        wait_for_picture(page, "!==", start)
        assert picture.evaluate("img => img.naturalWidth") > 100
        row.get_by_role("slider").press(back)
        expect(row.locator(".widget-readout")).to_have_text(value)
        wait_for_picture(page, "===", start)

    assert page.locator(".jp-Dialog").count() == 0
    assert errors == []
    assert {urlsplit(address).hostname for address in requested} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/lab"),
        ("GET", f"/lab/tree/{WALKTHROUGH}"),
        ("GET", f"/files/{WALKTHROUGH}"),
        ("GET", f"/api/contents/{WALKTHROUGH}"),
        ("PUT", f"/api/contents/{WALKTHROUGH}"),
        ("GET", "/api/kernels"),
        ("POST", "/api/kernels"),
        ("POST", "/api/terminals"),
    ],
)
def test_nobody_gets_in_without_the_token(server, method, path):
    for token in ("", "wrong", server.token[:-1]):
        assert server.status(method, path, token) in (302, 403)  # 302: to the login page
    if method == "GET":
        assert server.status(method, path, server.token) == 200


def test_server_and_kernel_listen_on_this_machine_only(server):
    assert server.status("POST", "/api/kernels", server.token) == 201
    deadline = time.monotonic() + START
    process = psutil.Process(server.pid)
    addresses = {}
    while len(addresses) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                ports = [c for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN]
                if ports:
                    addresses[one.pid] = {port.laddr.ip for port in ports}
    assert addresses[server.pid] == {"127.0.0.1"}
    assert len(addresses) >= 2, "the kernel listens too"
    assert all(ips == {"127.0.0.1"} for ips in addresses.values())


# What the project says


@pytest.mark.parametrize(
    "line",
    [
        "jupyter lab --ip=0.0.0.0",
        "--ServerApp.ip='*'",
        "c.ServerApp.ip = '192.168.1.2'",
        "--IdentityProvider.token=''",
        "--ServerApp.token= --no-browser",
        'c.ServerApp.password = ""',
        "--ServerApp.allow_origin='*'",
        "docker run -p 8888:8888 g2lstm",
        "docker run --publish=0.0.0.0:8888:8888 g2lstm",
    ],
)
def test_an_open_door_is_seen(line):
    assert OPENINGS.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "--ServerApp.ip=127.0.0.1 --ServerApp.root_dir=.",
        "docker run -p 127.0.0.1:8888:8888 g2lstm",
        "docker run --network host g2lstm make lab",
        "papermill out.ipynb -p seed 1",
    ],
)
def test_a_closed_door_is_seen_too(line):
    assert not OPENINGS.search(line)


def test_no_file_of_the_project_opens_jupyterlab_to_others():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        missing("a git checkout", "run the tests in a clone of the repository")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    opened = {}
    for name in listed.rstrip("\0").split("\0"):
        path = ROOT / name
        if name.startswith(("tests/", "results/")) or not path.is_file():
            continue
        found = OPENINGS.search(path.read_text(encoding="utf-8", errors="ignore"))
        if found:
            opened[name] = found[0]
    assert "Makefile" in listed
    assert opened == {}
