"""Routes for programs: snapshot, stream with resume, metrics, schema; malformed input never causes a 500."""

import json

import httpx
import pytest
from system.hive_process import HiveProcess, eventually

from hive.dashboard.metrics import exposition
from hive.turn_columns import TOKEN_COLUMNS

from .conftest import PAGES, Person

pytestmark = pytest.mark.system

ODD = ("", "-1", "0", "x", "9" * 30, "1e9", "null", "%00", "'", "2026-01-01", "☃", "*" * 3_000)


def first_messages(person: Person, count: int, **asked: object) -> list[tuple[int, dict[str, object]]]:
    """The ids and events of the first messages in the stream; events of the harness may be in between."""
    found: list[tuple[int, dict[str, object]]] = []
    with person.stream("GET", "/api/stream", **asked) as stream:  # type: ignore[arg-type]
        assert stream.headers["content-type"].startswith("text/event-stream")
        id = 0
        for line in stream.iter_lines():
            if line.startswith("id: "):
                id = int(line[4:])
            elif line.startswith("data: ") and (event := json.loads(line[6:]))["type"] == "MessageSent":
                found.append((id, event))
                if len(found) == count:
                    break
    return found


def test_stream_resumes_from_last_event_id(hive: HiveProcess, mara: Person) -> None:
    before = mara.get("/api/state").json()["seq"]
    for number in range(3):
        hive.ask("send", to="manager", body=f"number {number}")
    whole = first_messages(mara, 3, params={"after": str(before)})
    sent = [row["seq"] for row in hive.events("MessageSent", first=before + 1)]
    assert [id for id, _ in whole] == [event["seq"] for _, event in whole] == sent
    rest = first_messages(mara, 2, headers={"Last-Event-ID": str(sent[0])}, params={"after": "0"})
    assert rest == whole[1:]


def test_agent_state_and_streams(hive: HiveProcess, mara: Person) -> None:
    hive.spawn("quiet")
    hive.ask("send", to="quiet", body="wait")
    state = mara.get("/agent/quiet/api/state").json()
    assert (state["agent"]["name"], [row["body"] for row in state["inbox"]]) == ("quiet", ["wait"])
    with hive.agent("quiet") as quiet:
        quiet.ask("live", lines=[{"type": "text", "text": "one", "at": "2026-01-01T00:00:00.000Z"}])
    with mara.stream("GET", "/agent/quiet/stream") as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("event: ")) == "event: history"
        assert json.loads(next(line for line in lines if line.startswith("data: "))[6:])[0]["text"] == "one"
        with hive.agent("quiet") as quiet:
            quiet.ask("live", lines=[{"type": "text", "text": "two"}])
        assert json.loads(next(line for line in lines if line.startswith("data: "))[6:])[0]["text"] == "two"
    assert mara.get("/agent/ghost/stream").status_code == 404


def test_metrics_require_a_session_or_the_metrics_token(
    hive: HiveProcess, mara: Person, stranger: Person, token: str
) -> None:
    assert stranger.get("/metrics").status_code == 401
    for wrong in ("x", token):
        assert stranger.get("/metrics", headers={"Authorization": f"Bearer {wrong}"}).status_code == 401
    hive.paths.settings.write_text('[dashboard]\nmetrics_token_file = "metrics.token"\n')
    secret = hive.paths.state / "metrics.token"
    secret.touch(mode=0o600)
    secret.write_text("measure\n")
    asked = {"Authorization": "Bearer measure"}
    eventually(lambda: stranger.get("/metrics", headers=asked).status_code == 200, "the new settings")
    text = stranger.get("/metrics", headers=asked).text
    for line in (
        'hive_agents{state="running"} ',
        'hive_inbox_messages{agent="manager",state="waiting"} ',
        "hive_log_bytes ",
        'hive_commit_seconds{quantile="0.99"} ',
    ):
        assert f"\n{line}" in text
    assert mara.get("/metrics").text.split("\n")[0] == text.split("\n")[0]


def test_metrics_without_any_commit() -> None:
    figures = {"agents": {}, "queue": {}, "in_flight": {}, "commit_seconds": []}
    names = ("seq", "log_bytes", "transient", "questions_pending", "questions_oldest_seconds", "approvals_pending")
    more = ("approvals_oldest_seconds", "turns_24h", "turns_failed_24h", *(f"{name}_24h" for name in TOKEN_COLUMNS))
    assert "hive_commit_seconds_count 0" in exposition({**figures, **dict.fromkeys((*names, *more), 0)})


def test_health_reveals_only_health(hive: HiveProcess) -> None:
    assert httpx.get(f"{hive.url}/healthz").json() == {"status": "ok"}


def test_schema_is_json_only(mara: Person) -> None:
    described = mara.get("/schema").json()
    assert {"/approve/{id}", "/answer-question/{id}", "/api/state", "/agent/{name}/login/code"} <= set(
        described["paths"]
    )
    for viewer in ("/schema/swagger", "/schema/redoc", "/schema/elements", "/schema/rapidoc"):
        assert mara.get(viewer).status_code == 404


@pytest.mark.parametrize("odd", ODD)
def test_malformed_input_is_a_client_error(mara: Person, odd: str) -> None:
    described = mara.get("/schema").json()["paths"]
    for path, methods in described.items():
        for method, operation in methods.items():
            filled = path
            for name in ("id", "seq", "name", "act", "subject"):
                filled = filled.replace(f"{{{name}}}", odd.replace("%", "%25") or "-")
            if filled.endswith("stream") or filled in ("/logout", "/update-all", "/api/doctor", "/spawn"):
                continue
            given = {one["name"]: odd for one in operation.get("parameters", ()) if one["in"] == "query"}
            fields = dict.fromkeys(
                ("name", "to", "body", "answer", "option", "note", "sha", "path", "model", "in_reply_to", "read_only"),
                odd,
            )
            reply = mara.request(method, filled, params=given, data=fields if method == "post" else None)
            assert reply.status_code < 500, (method, filled, reply.text)


def test_bodies_that_are_not_forms_are_refused(mara: Person) -> None:
    for body, kind in (
        (b"\xff\xfe", "application/x-www-form-urlencoded"),
        (b"{", "application/json"),
        (b"x" * 100, "multipart/form-data"),
        (b"", ""),
    ):
        reply = mara.post("/send", content=body, headers={"Content-Type": kind})
        assert 400 <= reply.status_code < 500, (body, kind)
    assert mara.post("/send", content=b"a" * 3_000_000).status_code == 413


def test_forms_work_without_javascript(hive: HiveProcess, mara: Person) -> None:
    for path in PAGES:
        assert mara.get(path, headers={"Accept": "text/html"}).status_code == 200, path
    csrf = mara.headers.pop("X-CSRF-Token")
    reply = mara.post(
        "/send",
        data={"to": "manager", "body": "plain", "csrf": csrf},
        headers={"Accept": "text/html", "Referer": f"{hive.url}/messages?to=manager"},
    )
    assert (reply.status_code, reply.headers["location"]) == (303, "/messages?to=manager")
    assert mara.post("/send", data={"to": "manager", "body": "x", "csrf": "x"}).status_code == 403


def test_sign_ins_and_refused_ones_are_events(hive: HiveProcess, mara: Person, stranger: Person) -> None:
    assert stranger.sign_in("wrong").status_code == 401
    signed_in = hive.event("SignedIn", name="mara")
    assert signed_in["by"] == "operator:mara way=dashboard"
    assert signed_in["source"].startswith("127.0.0.1")
    refused = hive.event("SignInRefused")
    assert refused["by"] == "actor:dashboard"
    assert refused["source"].startswith("127.0.0.1")
