"""Requests for hosts and network rules, decided in a real browser."""

import pytest
from playwright.sync_api import Page, expect
from system.hive_process import HiveProcess

from .conftest import Person
from .test_flows import stayed, visit

pytestmark = pytest.mark.system


def test_request_for_a_host_is_allowed_for_all_and_rules_are_revoked(page: Page, hive: HiveProcess) -> None:
    hive.spawn("miner")
    visit(page, f"{hive.url}/your-call")
    with hive.agent("miner") as miner:
        one = miner.ask("request_egress", host="docs.example:443", why="the manual")["id"]
        two = miner.ask("request_egress", host="ads.example", why="curious")["id"]
    card = page.locator(f"#approval-{one}")
    expect(card).to_contain_text("docs.example:443")
    expect(card).to_contain_text("the manual")
    card.get_by_role("button", name="Allow for all").click()
    expect(card).to_have_count(0)
    assert hive.event("EgressAllowed", host="docs.example")["agent"] is None
    page.locator(f"#approval-{two}").get_by_role("button", name="Deny").click()
    assert hive.event("EgressDenied", host="ads.example")["agent"] == "miner"
    assert stayed(page)

    visit(page, f"{hive.url}/agent/miner/")
    network = page.locator("#network")
    network.locator("summary").click()
    expect(network).to_contain_text("docs.example:443")
    network.get_by_label("host").fill("*.wiki.example")
    network.get_by_role("button", name="allow").click()
    assert hive.event("EgressAllowed", host="*.wiki.example")["agent"] == "miner"
    network.get_by_label("Revoke the rule for *.wiki.example of miner").click()
    assert hive.event("EgressRevoked", host="*.wiki.example")["agent"] == "miner"
    expect(network).not_to_contain_text("*.wiki.example")

    visit(page, f"{hive.url}/settings")
    expect(page.locator("#network")).to_contain_text("docs.example:443")
    page.locator("#network").get_by_label("host").fill("nonsense/")
    page.locator("#network").get_by_role("button", name="deny").click()
    expect(page.locator("#toasts")).to_contain_text("is not a host name")
    hive.ask("revoke_egress", entry="docs.example:443")
    expect(page.locator("#network")).not_to_contain_text("docs.example:443")
    hive.ask("destroy", name="miner", purge=True)


@pytest.mark.parametrize("path", ["/", "/your-call", "/agent/manager/", "/messages", "/stats", "/audit", "/settings"])
def test_every_page_says_that_agents_are_not_isolated(mara: Person, path: str) -> None:
    assert "no isolation" in mara.get(path, headers={"Accept": "text/html"}).text
