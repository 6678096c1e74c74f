"""Audit API: the state of one agent as of an event, and gaps in explanations."""

import pytest
from system.hive_process import HiveProcess

from .conftest import Person

pytestmark = pytest.mark.system

GAP = "which turn it came from: manager sent it while none was under way."


def test_audit_state_filters_by_agent(hive: HiveProcess, mara: Person) -> None:
    hive.spawn("coder")
    hive.ask("send", to="coder", body="write a parser")
    head = str(hive.head())
    found = mara.get("/api/audit/state", params={"at": head, "agent": "coder"}).json()["replay"]["projections"]
    assert [row["name"] for row in found["agents"]["agents"]] == ["coder"]
    assert [row["body"] for row in found["messages"]["messages"]] == ["write a parser"]
    everybody = mara.get("/api/audit/state", params={"at": head}).json()["replay"]["projections"]
    assert [row["name"] for row in everybody["agents"]["agents"]] == ["coder", "manager"]
    assert "write a parser" in mara.get("/audit/state", params={"at": head, "agent": "coder"}).text
    assert "Cannot tell: as of event 1," in mara.get("/audit/state", params={"at": "1", "agent": "coder"}).text
    assert mara.get("/api/audit/state", params={"at": head, "agent": "--help"}).status_code == 400


def test_why_reports_what_the_log_cannot_tell(hive: HiveProcess, mara: Person) -> None:
    with hive.agent("manager") as manager:
        id = manager.ask("send", to="operator", body="out of the blue")["id"]
    found = mara.get(f"/api/audit/why/message/{id}").json()
    assert [row["type"] for row in found["events"]] == ["MessageSent"]
    assert found["cannot_tell"] == [GAP]
    assert f"Cannot tell {GAP}" in mara.get(f"/audit/why?subject=message&name={id}").text
    assert "cannot_tell" not in mara.get("/api/audit/why/agent/manager").json()


def test_what_was_said_is_searched(hive: HiveProcess, mara: Person) -> None:
    (id,) = hive.ask("send", to="manager", body="the <b>kumquat</b> parser")["ids"]
    (hit,) = mara.get("/api/search", params={"q": "kumquat"}).json()["hits"]
    assert (hit["kind"], hit["id"], hit["from"], hit["to"]) == ("message", id, "operator", "manager")
    page = mara.get("/audit/search", params={"q": "--help kumquat*"}).text
    assert "Nothing matches" in page
    page = mara.get("/audit/search", params={"q": "kumq*", "agent": "manager"}).text
    assert "the &lt;b&gt;kumquat&lt;/b&gt; parser" in page
    assert mara.get("/api/search", params={"q": "..."}).status_code == 400
