"""Contrast, labels and roles of every page, by axe."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from system.hive_process import HiveProcess

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
    """Something of everything is on the pages."""
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
def test_axe_finds_nothing(busy: HiveProcess, page: Page, path: str) -> None:
    page.goto(busy.url + path)
    expect(page.locator("#live")).to_have_text("live")
    for details in page.locator("main details").all():
        details.evaluate("one => { one.open = true }")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_the_way_in(busy: HiveProcess, page: Page) -> None:
    page.context.clear_cookies()
    page.goto(f"{busy.url}/login")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
