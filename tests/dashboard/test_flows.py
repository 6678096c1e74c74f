"""The operator's workflows in a real browser, without reloads and without disturbing input."""

import contextlib
import re
import socket
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as TookTooLong
from system.hive_process import HiveProcess, eventually

from .conftest import propose

pytestmark = pytest.mark.system

TRIES = 10
TRY_MS = 5_000
"""Time for a page to load after its keyboard shortcut."""


@pytest.fixture(autouse=True)
def _no_reload(page: Page) -> None:
    """Set a variable that a reload would remove; see `stayed`."""
    page.evaluate("window.stayed = true")


def stayed(page: Page) -> bool:
    return bool(page.evaluate("window.stayed === true"))


def visit(page: Page, path: str) -> None:
    page.goto(path)
    page.evaluate("window.stayed = true")
    expect(page.locator("#live")).to_have_text("live")


def sure(page: Page) -> None:
    page.get_by_role("dialog").get_by_role("button", name="Yes").click()


def test_agent_lifecycle_on_the_page(page: Page, hive: HiveProcess) -> None:
    visit(page, hive.url)
    page.get_by_label("Name").fill("builder")
    page.get_by_role("button", name="spawn").click()
    one = page.locator("#agent-builder")
    expect(page.locator("#toasts")).to_contain_text("Spawned builder.")
    expect(one.locator(".chip")).to_have_text("running")
    expect(page.get_by_label("Name")).to_have_value("")

    one.get_by_role("button", name="pause").click()
    expect(one.locator(".chip")).to_have_text("paused")
    one.get_by_role("button", name="resume").click()
    expect(one.locator(".chip")).to_have_text("running")
    one.get_by_role("button", name="restart").click()
    expect(page.locator("#toasts")).to_contain_text("Restarted builder.")
    one.get_by_role("button", name="rebuild").click()
    expect(page.locator("#toasts")).to_contain_text("Rebuilt builder.")

    one.get_by_role("button", name="kill").click()
    page.get_by_role("dialog").get_by_role("button", name="No").click()
    assert not hive.events("Killed", agent="builder")
    one.get_by_role("button", name="kill").click()
    sure(page)
    expect(one.locator(".chip")).to_have_text("stopped")
    one.get_by_role("button", name="start", exact=True).click()
    expect(one.locator(".chip")).to_have_text("running")
    one.get_by_role("button", name="stop").click()
    expect(one.locator(".chip")).to_have_text("stopped")

    one.get_by_role("button", name="destroy").click()
    sure(page)
    expect(one).to_have_count(0)
    tomb = page.locator("#tomb-builder")
    tomb.get_by_role("button", name="revive").click()
    expect(one.locator(".chip")).to_have_text("running")
    one.get_by_role("button", name="destroy").click()
    sure(page)
    tomb.get_by_role("button", name="purge").click()
    sure(page)
    expect(tomb).to_have_count(0)
    assert stayed(page)
    assert hive.event("Purged", agent="builder")["by"] == "operator:mara way=dashboard"


def test_pending_approval_appears_and_is_decided(page: Page, hive: HiveProcess) -> None:
    visit(page, f"{hive.url}/your-call")
    with hive.agent("manager") as manager:
        id = manager.ask("request_spawn", name="helper", description="Helps.")["id"]
        approval = page.locator(f"#approval-{id}")
        expect(approval).to_contain_text("Helps.")
        expect(page.locator("nav .count")).to_have_text("1")
        approval.get_by_label(f"Note for denying request {id}").fill("not today")
        approval.get_by_role("button", name="Deny").click()
        expect(approval).to_have_count(0)
        assert hive.event("ApprovalResolved", id=id)["note"] == "not today"

        again = manager.ask("request_spawn", name="helper")["id"]
        page.locator(f"#approval-{again}").get_by_role("button", name="Approve").click()
        hive.event("Spawned", agent="helper")
    page.locator("#approval-history summary").click()
    decided = page.locator(f"#decided-{again}")
    expect(decided).to_contain_text("mara")
    expect(decided).to_contain_text("approved")
    expect(page.locator(f"#decided-{id}")).to_contain_text("not today")
    assert stayed(page)
    hive.ask("destroy", name="helper", purge=True)


def test_approval_names_the_commit_that_was_shown(page: Page, hive: HiveProcess) -> None:
    hive.spawn("smith")
    visit(page, f"{hive.url}/your-call")
    sha = propose(hive, "smith", prompt_md="Be brief.\n<script>window.pwned = 1</script>\n\u202egnissim\n")
    with hive.agent("manager") as manager:
        id = manager.ask("request_apply_commit", agent="smith", commit_ref=sha[:10], description="Briefer.")["id"]
    approval = page.locator(f"#approval-{id}")
    expect(approval).to_contain_text(sha[:12])
    expect(approval).to_contain_text("Briefer.")
    expect(approval.locator(".diff .plus").first).to_have_text("+Be brief.")
    expect(approval.locator(".diff")).to_contain_text("+\\u202egnissim")
    expect(approval.locator("input[name=sha]")).to_have_value(sha)
    approval.get_by_role("button", name="Approve").click()
    expect(approval).to_have_count(0)
    rebuilt = hive.event("Rebuilt", agent="smith", ok=True, approval_id=id)
    assert rebuilt["revision"] == sha
    assert hive.event("ApprovalResolved", id=id)["by"] == "operator:mara way=dashboard"
    assert stayed(page)
    assert page.evaluate("window.pwned") is None
    hive.ask("destroy", name="smith", purge=True)


def test_configuration_is_shown_as_text_and_rolled_back(page: Page, hive: HiveProcess) -> None:
    files = [{"path": "prompt.md", "text": "Be brief.\n<script>window.pwned = 1</script>\n"}]
    hive.spawn("writer")
    sha = hive.ask("edit", name="writer", files=files)["revision"]
    visit(page, f"{hive.url}/agent/writer/")
    page.locator("#config summary").click()
    expect(page.locator("#config")).to_contain_text(sha[:12])
    expect(page.locator("#config")).to_contain_text("<script>window.pwned = 1</script>")
    page.locator("#config").get_by_role("button", name="roll back").click()
    sure(page)
    expect(page.locator("#toasts")).to_contain_text("previous configuration")
    expect(page.locator("#config summary")).not_to_contain_text(sha[:12])
    expect(page.locator("#config")).to_have_attribute("open", "")
    assert page.evaluate("window.pwned") is None
    hive.ask("destroy", name="writer", purge=True)


@pytest.mark.parametrize(
    ("options", "multi", "ticked", "typed", "answer"),
    [
        ([], False, [], "free text", "free text"),
        (["A", "B", "C"], False, ["B"], "", "B"),
        (["A", "B", "C"], True, ["A", "C"], "", "A, C"),
        (["A", "B", "C"], True, ["A"], "x", "A, x"),
        (["A", "B"], False, ["A"], "x", "A, x"),
    ],
)
def test_each_kind_of_question(
    page: Page, hive: HiveProcess, options: list[str], multi: bool, ticked: list[str], typed: str, answer: str
) -> None:
    visit(page, f"{hive.url}/your-call")
    with hive.agent("manager") as manager:
        id = manager.ask("ask_operator", question="Which?", options=options, multi=multi)["id"]
    asked = page.locator(f"#question-{id}")
    expect(asked.locator("input[type=checkbox]")).to_have_count(len(options) if multi else 0)
    expect(asked.locator("input[type=radio]")).to_have_count(0 if multi else len(options))
    expect(asked.locator(".countdown")).to_have_count(0)
    for option in ticked:
        asked.get_by_label(option, exact=True).check()
    if typed:
        asked.get_by_label(f"Your answer to question {id}").fill(typed)
    asked.get_by_role("button", name="Answer").click()
    expect(asked).to_have_count(0)
    assert hive.event("QuestionResolved", id=id)["answer"] == answer
    assert stayed(page)


def test_peer_question_is_overridden_and_filters_work(page: Page, hive: HiveProcess) -> None:
    hive.spawn("peer")
    visit(page, f"{hive.url}/your-call")
    with hive.agent("manager") as manager:
        peers = manager.ask("ask", to="peer", question="Tabs?", options=["yes", "no"], ttl_seconds=3725)["id"]
        mine = manager.ask("ask_operator", question="Spaces?")["id"]
    between, own = page.locator(f"#question-{peers}"), page.locator(f"#question-{mine}")
    expect(between.locator(".countdown")).to_have_text(re.compile(r"⏳ 1h [12]m"))
    assert between.evaluate("one => getComputedStyle(one).borderLeftColor") == "rgb(203, 166, 247)"
    page.get_by_role("link", name="@peer").click()
    expect(own).to_have_count(0)
    expect(between).to_be_visible()
    page.get_by_role("link", name="@operator").click()
    expect(between).to_have_count(0)
    expect(own).to_be_visible()
    page.get_by_role("link", name="peer", exact=True).click()
    expect(own).to_have_count(0)
    page.evaluate("window.stayed = true")
    between.get_by_label("yes").check()
    between.get_by_role("button", name="0V3RR1D3").click()
    expect(between).to_have_count(0)
    assert hive.event("QuestionResolved", id=peers)["answer"] == "yes"
    page.goto(f"{hive.url}/your-call")
    own.get_by_role("button", name="cancel").click()
    sure(page)
    expect(own).to_have_count(0)
    hive.ask("destroy", name="peer", purge=True)


def test_typing_loses_no_character_while_events_arrive(page: Page, hive: HiveProcess) -> None:
    visit(page, f"{hive.url}/your-call")
    with hive.agent("manager") as manager:
        id = manager.ask("ask_operator", question="A long one?", options=["A", "B"], multi=True)["id"]
        field = page.get_by_label(f"Your answer to question {id}")
        field.click()
        page.locator(f"#question-{id}").get_by_label("B").check()
        page.locator("#question-history summary").click()
        page.evaluate("window.scrollTo(0, 40)")
        field.click()
        text = "The quick brown fox jumps over the lazy dog, twice."
        others = []
        for number, character in enumerate(text):
            page.keyboard.type(character)
            if number % 2 == 0:
                others.append(manager.ask("ask_operator", question=f"Another, {number}?")["id"])
        for other in others[:3]:
            hive.ask("cancel_question", id=other)
        expect(page.locator(f"#question-{others[-1]}")).to_be_visible()
        expect(page.locator(f"#question-{others[0]}")).to_have_count(0)
    expect(field).to_have_value(text)
    expect(field).to_be_focused()
    expect(page.locator(f"#question-{id}").get_by_label("B")).to_be_checked()
    expect(page.locator("#question-history")).to_have_attribute("open", "")
    page.keyboard.press("Control+Enter")
    assert hive.event("QuestionResolved", id=id)["answer"] == f"B, {text}"
    for other in others[3:]:
        hive.ask("cancel_question", id=other)
    assert stayed(page)


def test_message_starts_a_turn_that_the_page_shows(page: Page, hive: HiveProcess) -> None:
    hive.spawn("talker", paused=False)
    visit(page, f"{hive.url}/agent/talker/")
    expect(page.locator("#inbox")).to_have_count(0)
    prompt = page.get_by_label("Message to talker")
    prompt.fill("hello there")
    prompt.press("Enter")
    expect(page.locator("#terminal .turn_started")).to_contain_text("operator")
    expect(page.locator("#terminal .turn_ended")).to_contain_text("ok")
    expect(prompt).to_have_value("")
    expect(page.locator("#turns .count")).to_have_text("1")
    page.get_by_label("model").fill("sonnet")
    page.get_by_role("button", name="use", exact=True).click()
    assert hive.event("ModelSet", agent="talker")["model"] == "sonnet"
    page.get_by_role("button", name="cancel turn").click()
    expect(page.locator("#terminal .notice").last).to_contain_text("no turn to cancel")

    hive.ask("set_paused", name="talker", paused=True)
    inbox = page.locator("#inbox")
    expect(inbox.locator(".count")).to_have_text("0")
    inbox.locator("summary").click()
    expect(inbox.locator(".message.read")).to_contain_text(["hello there"])
    hive.ask("send", to="talker", body="while paused")
    expect(inbox.locator(".count")).to_have_text("1")
    expect(inbox.locator(".message").first).to_contain_text("while paused")
    hive.ask("send", to="talker", body="and another")
    expect(inbox.locator(".messages")).to_contain_text("and another")
    expect(inbox).to_have_attribute("open", "")
    order = [one.bounding_box() for one in (page.locator("#state-row"), inbox, page.locator("#terminal"))]
    assert sorted(order, key=lambda box: box["y"] if box else 0) == order
    assert stayed(page)
    hive.ask("destroy", name="talker", purge=True)


def test_messages_stats_and_audit(page: Page, hive: HiveProcess) -> None:
    visit(page, f"{hive.url}/messages")
    page.get_by_label("To", exact=True).select_option("manager")
    page.get_by_label("Message", exact=True).fill("How far are you?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".flow")).to_contain_text("How far are you?")
    with hive.agent("manager") as manager:
        manager.ask("send", to="operator", body="Half way.")
    expect(page.locator(".message").first).to_contain_text("Half way.")
    assert stayed(page)

    visit(page, f"{hive.url}/audit")
    page.get_by_label("type").select_option("MessageSent")
    expect(page.locator(".events .type").first).to_have_text("MessageSent")
    page.get_by_label("person").fill("mara")
    page.get_by_role("button", name="filter").click()
    expect(page.locator(".events .by").first).to_have_text("mara")
    page.locator(".events a").first.click()
    expect(page.locator("#event")).to_contain_text("operator:mara way=dashboard")
    page.get_by_role("link", name="state after this event").click()
    expect(page.get_by_role("heading", name=re.compile("As of event"))).to_be_visible()
    slider = page.get_by_label("Position in the log")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.get_by_role("heading", name="As of event 1")).to_be_visible()
    page.goto(f"{hive.url}/audit/why?subject=agent&name=manager")
    expect(page.locator(".events .type").first).to_have_text("AgentAdded")

    visit(page, f"{hive.url}/stats?window=1h")
    expect(page.locator("svg.plot").first).to_be_visible()
    page.get_by_label("Window").select_option("7d")
    page.wait_for_url("**window=7d")


def test_settings(page: Page, hive: HiveProcess, open_page: Callable[[], Page]) -> None:
    visit(page, f"{hive.url}/settings")
    page.get_by_label("name").fill("noor")
    page.get_by_role("button", name="create token").click()
    expect(page.locator("#person-noor")).to_be_visible()
    expect(page.locator("#fresh-token")).to_contain_text("noor: ")
    said = page.locator("#fresh-token").inner_text()
    other = open_page()
    other.goto(f"{hive.url}/login")
    other.get_by_label("Operator token").fill(said.partition(": ")[2])
    other.get_by_role("button", name="Sign in").click()
    other.wait_for_url(f"{hive.url}/")
    page.locator("#person-noor").get_by_role("button", name="revoke").click()
    sure(page)
    expect(page.locator("#person-noor")).to_contain_text("revoked")
    other.wait_for_url(re.compile(r"/login\?next="))
    page.get_by_role("button", name="check this host").click()
    expect(page.locator("#doctor-facts")).to_contain_text("python")


def test_login_link_signs_in_once_and_leaves_the_url(hive: HiveProcess, open_page: Callable[[], Page]) -> None:
    url = hive.run("operator", "link").strip()
    first = open_page()
    first.goto(url)
    first.wait_for_url(f"{hive.url}/")
    second = open_page()
    second.goto(url)
    expect(second.get_by_role("alert")).to_contain_text("not valid")
    assert "#" not in second.url


def test_keyboard_shortcuts(page: Page, hive: HiveProcess) -> None:
    visit(page, hive.url)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Your call")
    page.keyboard.press("Escape")
    go_to(page, "y", f"{hive.url}/your-call")
    go_to(page, "s", f"{hive.url}/")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.id") == "agent-manager"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.tagName") == "INPUT"


def go_to(page: Page, key: str, url: str) -> None:
    """Retry, because the second key must follow the first quickly, and a busy machine may be too slow."""
    for _ in range(TRIES):
        page.keyboard.type(f"g{key}")
        with contextlib.suppress(TookTooLong):
            page.wait_for_url(url, timeout=TRY_MS)
            return
    raise AssertionError(f"g{key} does not lead to {url}")


def is_free(address: str | None) -> bool:
    assert address is not None
    host, _, port = address.rpartition(":")
    try:
        socket.create_server((host, int(port))).close()
    except OSError:
        return False
    return True


def test_page_shows_a_lost_connection_and_recovers(page: Page, hive: HiveProcess) -> None:
    visit(page, hive.url)
    hive.kill()
    expect(page.locator("#live")).to_contain_text("not live")
    before = hive.url
    hive.listen = before.removeprefix("http://")
    eventually(lambda: is_free(hive.listen), "the dashboard has died with its daemon")
    hive.up()
    assert hive.url == before
    expect(page.locator("#live")).to_have_text("live")
    hive.ask("spawn", name="late")
    expect(page.locator("#agent-late")).to_be_visible()
    eventually(lambda: stayed(page), "no reload")
    hive.ask("destroy", name="late", purge=True)
