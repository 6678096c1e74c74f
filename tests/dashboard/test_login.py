"""The CLI's own login, driven from an agent's page; without a network it ends in a refusal that the page shows."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from system.hive_process import HiveProcess, eventually

from .conftest import answers

pytestmark = pytest.mark.system

CLI_PATIENCE_MS = 120_000
"""For the CLI to start, and to find out that there is no network."""


@pytest.fixture(scope="module")
def hive() -> Iterator[HiveProcess]:
    """Its agents have no credentials."""
    one = HiveProcess(dashboard=True, model_url=None)
    try:
        one.up()
        eventually(lambda: answers(one), "the dashboard answers")
        one.event("NeedsLogin", agent="manager")
        yield one
    finally:
        one.close()


def test_login_from_the_agent_page(page: Page, hive: HiveProcess) -> None:
    page.goto(f"{hive.url}/agent/manager/")
    page.evaluate("window.stayed = true")
    expect(page.locator("#state-row .chip")).to_have_text("needs login")
    terminal, code = page.locator("#terminal"), page.get_by_label("login code")

    code.fill("too-soon")
    page.get_by_role("button", name="submit code").click()
    expect(terminal.locator(".login_result").last).to_contain_text("No login is in progress")

    page.get_by_role("button", name="log in", exact=True).click()
    expect(page.locator("#toasts")).to_contain_text("The login starts")
    link = page.locator("#login-url a")
    expect(link).to_be_visible(timeout=CLI_PATIENCE_MS)
    address = link.get_attribute("href") or ""
    assert address.startswith("https://")
    expect(terminal.locator(".login_url")).to_contain_text(address)
    assert link.get_attribute("rel") == "noopener noreferrer"

    code.fill("not#a-code")
    page.get_by_role("button", name="submit code").click()
    expect(code).to_have_value("")
    expect(terminal.locator(".login_result")).to_have_count(2, timeout=CLI_PATIENCE_MS)
    expect(terminal.locator(".login_result").last).to_contain_text("✗")
    expect(terminal).not_to_contain_text("not#a-code")

    credentials = hive.paths.agent_state("manager") / ".claude" / ".credentials.json"
    credentials.parent.mkdir(exist_ok=True)
    credentials.write_text("{}")
    expect(page.locator("#state-row .chip")).to_have_text("running")
    assert page.evaluate("window.stayed") is True
    with hive.reading() as reader:
        assert not [row for row in reader.rows(1) if "a-code" in row.data], "a code is a secret"
