"""Text of agents reaches a page as text: it never runs, never becomes markup, and control characters are visible."""

import pytest
from playwright.sync_api import Page, expect
from system.hive_process import HiveProcess

from .conftest import Person

pytestmark = pytest.mark.system

HOSTILE = (
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    '"><svg onload=window.pwned=1>',
    "' autofocus onfocus=window.pwned=1 x='",
    "</textarea><iframe srcdoc='<script>top.pwned=1</script>'></iframe>",
    "{{ 7*191 }}{% raw %}",
    "javascript:window.pwned=1",
    "<a href=//evil.example>click</a><base href=//evil.example>",
    "<template><form action=/purge-tombstone/x><button>",
)
ALL = " ".join(HOSTILE)
BIDI = "safe\u202etxt.exe\u2066\u200b\x1b[31m\x00"


@pytest.fixture(scope="module")
def written(hive: HiveProcess) -> HiveProcess:
    """A hive in which an agent wrote hostile text into every field it can write."""
    hive.spawn("coder")
    with hive.agent("coder") as coder, hive.agent("manager") as manager:
        coder.ask("send", to="operator", body=f"{ALL} {BIDI}")
        coder.ask("send", to="manager", body=ALL)
        coder.say("set_status", text=ALL[:400])
        coder.ask("ask_operator", question=ALL, options=[*HOSTILE, BIDI], multi=True)
        coder.ask("ask", to="manager", question=ALL, options=list(HOSTILE))
        done = coder.ask("ask_operator", question=ALL)["id"]
        hive.ask("answer_question", id=done, answer=ALL)
        manager.ask("request_spawn", name="helper", description=ALL[:400])
        lines = [
            {"type": kind, "at": HOSTILE[0], "text": ALL, "name": ALL, "input": ALL, "note": ALL}
            for kind in ("text", "tool_call", "tool_result", "turn_ended", HOSTILE[1])
        ]
        coder.ask(
            "live",
            lines=[
                *lines,
                {"type": "login_url", "url": "javascript:window.pwned=1"},
                {"type": "login_url", "url": "https://evil.example/"},
            ],
        )
        coder.ask("turn_started", wake_from=HOSTILE[0], message_ids=[])
        coder.say(
            "turn_ended",
            model=HOSTILE[1],
            result_kind=HOSTILE[0],
            tool_calls_json='{"<img src=x onerror=window.pwned=1>": 3}',
            note=ALL,
        )
    files = [{"path": "<img src=x onerror=window.pwned=1>.md", "text": ALL}, {"path": "prompt.md", "text": BIDI + ALL}]
    hive.ask("edit", name="coder", files=files)
    return hive


PATHS = (
    "/",
    "/your-call",
    "/messages",
    "/stats?window=1h",
    "/stats?window=24h",
    "/audit",
    "/audit/state",
    "/audit/why?subject=agent&name=coder",
    "/audit/why?subject=question&name=1",
    "/settings",
    "/agent/coder/",
    "/agent/manager/",
)


@pytest.mark.parametrize("path", PATHS)
def test_agent_text_neither_runs_nor_becomes_markup(written: HiveProcess, page: Page, path: str) -> None:
    clean = {
        "script": 1,
        "iframe": 0,
        "base": 0,
        "[onerror]": 0,
        "[onload]": 0,
        "[onfocus]": 0,
        "[style]": 0,
        "main img": 0,
    }
    page.goto(written.url + path)
    expect(page.locator("#live")).to_have_text("live")
    for details in page.locator("main details").all():
        details.evaluate("one => { one.open = true }")
    if path.startswith("/agent/coder"):
        expect(page.locator("#terminal")).to_contain_text("window.pwned=1")
        assert page.locator("#terminal a, #login-url a").count() == 0
    written.ask("send", to="manager", body=ALL)
    if not page.locator("[data-static]").count():  # All other pages are updated in place.
        page.wait_for_function("seq => Number(document.body.dataset.seq) >= seq", arg=written.head())
    for selector, count in clean.items():
        assert page.locator(selector).count() == count, selector
    assert page.evaluate("window.pwned") is None
    assert page.locator("a[href^='javascript'], a[href^='//'], main a[href^='http']").count() == 0
    assert "1337" not in page.locator("main").inner_text()


def test_control_characters_are_shown_as_escapes(written: HiveProcess, mara: Person) -> None:
    for path in ("/messages", "/your-call", "/agent/coder/"):
        text = mara.get(path, headers={"Accept": "text/html"}).text
        assert not set(text) & set("\u202e\u2066\u200b\x1b\x00"), path
    assert "\\u202e" in mara.get("/messages", headers={"Accept": "text/html"}).text


def test_option_is_answered_verbatim(written: HiveProcess, mara: Person) -> None:
    with written.agent("coder") as coder:
        id = coder.ask("ask_operator", question="Which?", options=list(HOSTILE))["id"]
    assert mara.post(f"/answer-question/{id}", data={"option": HOSTILE[2]}).status_code == 200
    assert written.event("QuestionResolved", id=id)["answer"] == HOSTILE[2]


def test_hostile_names_in_urls_are_client_errors(mara: Person) -> None:
    for name in ("%3Cscript%3E", "..%2f..%2fetc", "%00", "a" * 5_000, "%ff%fe", "operator", "*"):
        for path in (
            f"/agent/{name}/",
            f"/api/journal/{name}",
            f"/api/config/{name}",
            f"/audit/why?subject=agent&name={name}",
        ):
            reply = mara.get(path, headers={"Accept": "text/html"})
            assert reply.status_code < 500, path
            assert "<script>" not in reply.text
        assert 400 <= mara.post(f"/kill/{name}").status_code < 500, name
