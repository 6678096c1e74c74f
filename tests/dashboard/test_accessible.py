"""Accessibility of every page (axe), and the layout on a small screen."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from system.hive_process import HiveProcess

from .conftest import propose

pytestmark = pytest.mark.system

PATHS = (
    "/",
    "/your-call",
    "/messages",
    "/stats?window=1h",
    "/audit",
    "/audit/1",
    "/audit/state",
    "/audit/why?subject=agent&name=manager",
    "/settings",
    "/agent/coder/",
)


@pytest.fixture(scope="module")
def busy(hive: HiveProcess) -> HiveProcess:
    """A hive whose pages show every kind of content."""
    hive.spawn("coder", "old", "idle")
    hive.ask("destroy", name="old")
    hive.ask("stop", scope={"agent_names": ["idle"]})
    hive.ask("edit", name="coder", files=[{"path": "prompt.md", "text": "Be brief.\n"}])
    with hive.agent("coder") as coder, hive.agent("manager") as manager:
        coder.ask("set_status", text="reading")
        coder.ask("ask_operator", question="Which?", options=["a", "b"], multi=True, ttl_seconds=900)
        manager.ask("ask", to="coder", question="Really?", options=["yes", "no"])
        manager.ask("request_spawn", name="helper", description="Helps.")
        manager.ask("send", to="operator", body="Hello.")
        sha = propose(hive, "coder", prompt_md="Be briefer.\n")
        id = manager.ask("request_apply_commit", agent="coder", commit_ref=sha[:20])["id"]
        hive.event("ProposalPinned", id=id)
        coder.ask(
            "live",
            lines=[
                {"type": kind, "text": "some text", "name": "Bash"}
                for kind in ("text", "notice", "tool_call", "tool_result")
            ],
        )
        coder.ask("turn_started", wake_from="manager", message_ids=[])
    hive.ask("send", to="coder", body="a message")
    return hive


@pytest.mark.parametrize("path", PATHS)
def test_axe_reports_no_violation(busy: HiveProcess, page: Page, path: str) -> None:
    page.goto(busy.url + path)
    expect(page.locator("#live")).to_have_text("live")
    for details in page.locator("main details").all():
        details.evaluate("one => { one.open = true }")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("path", PATHS)
def test_pages_fit_a_small_screen(busy: HiveProcess, page: Page, path: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(busy.url + path)
    for details in page.locator("main details").all():
        details.evaluate("one => { one.open = true }")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_login_page_is_accessible(busy: HiveProcess, page: Page) -> None:
    page.context.clear_cookies()
    page.goto(f"{busy.url}/login")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
