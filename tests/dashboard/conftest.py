"""A real hive with its dashboard, HTTP clients that sign in, and Debian's chromium. Only loopback traffic."""

import shutil
import subprocess
from collections.abc import Callable, Iterator

import httpx
import pytest
from missing_tool import missing_tool
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright
from system.hive_process import HiveProcess, eventually

from hive.scripted_model import ScriptedModel

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE_MS = 30_000
PAGES = ("/", "/your-call", "/messages", "/stats", "/audit", "/audit/1", "/audit/state", "/audit/why", "/settings")


class Person(httpx.Client):
    """An HTTP client of the dashboard with cookies, CSRF token and the right origin."""

    def __init__(self, hive: HiveProcess):
        super().__init__(base_url=hive.url, headers={"Origin": hive.url, "Accept": "application/json"}, timeout=60)

    def sign_in(self, token: str) -> httpx.Response:
        reply = self.post("/login", data={"token": token})
        if reply.is_success:
            self.headers["X-CSRF-Token"] = self.get("/api/session").raise_for_status().json()["csrf"]
        return reply


@pytest.fixture(scope="module")
def hive() -> Iterator[HiveProcess]:
    """One hive per module; its agents take no turns unless a test enables them."""
    with ScriptedModel() as model:
        one = HiveProcess(dashboard=True, model_url=model.url)
        try:
            one.up()
            one.ask("set_paused", name="manager", paused=True)
            eventually(lambda: answers(one), "the dashboard answers")
            yield one
        finally:
            one.close()


def answers(hive: HiveProcess) -> bool:
    try:
        return httpx.get(f"{hive.url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def token(hive: HiveProcess) -> str:
    """The token of the operator mara."""
    return str(hive.ask("operators", action="add", name="mara")["token"])


@pytest.fixture
def stranger(hive: HiveProcess) -> Iterator[Person]:
    with Person(hive) as person:
        yield person


@pytest.fixture
def mara(hive: HiveProcess, token: str) -> Iterator[Person]:
    with Person(hive) as person:
        person.sign_in(token).raise_for_status()
        yield person


def propose(hive: HiveProcess, name: str, **files: str) -> str:
    """Commit files (`prompt_md` is `prompt.md`) to the proposed repository; return the commit."""
    folder = hive.paths.proposed(name)
    git = ["git", "-c", "safe.directory=*", "-c", "user.name=manager", "-c", "user.email=m@h", "-C", str(folder)]
    for file, text in files.items():
        (folder / file.replace("_", ".")).write_text(text)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "A change"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """One browser per module: while it runs, no other test in the process can run an event loop."""
    if shutil.which(CHROMIUM) is None:
        missing_tool(f"{CHROMIUM} is not installed: apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    one = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
    yield one
    one.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[[], Page]]:
    """New browser contexts. A page that logs an error or loads an external resource fails its test."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def opened() -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
        page.on(
            "request", lambda asked: wrong.append(asked.url) if not asked.url.startswith("http://127.0.0.1:") else None
        )
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def page(open_page: Callable[[], Page], hive: HiveProcess, token: str) -> Page:
    """A page of mara, signed in through the form."""
    one = open_page()
    one.goto(f"{hive.url}/login")
    one.get_by_label("Operator token").fill(token)
    one.get_by_role("button", name="Sign in").click()
    one.wait_for_url(f"{hive.url}/")
    return one
