"""The webhook hears what waits on a person, again when it did not listen, and nothing waits for it."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from system.hive_process import HiveProcess, eventually

from hive.actors.webhook import NotTaken, deliver, notification_for
from hive.events.agents import Crashed, NeedsLogin
from hive.events.approvals import ApprovalRequested
from hive.events.base import ApprovalId, MessageId, QuestionId
from hive.events.messages import MessageSent
from hive.events.questions import QuestionAdded

from .conftest import Person


class Ntfy(HTTPServer):
    """Takes what is posted; refuses as often as it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[tuple[dict[str, str], str]] = []
        self.refusals = 0
        self.url = f"http://127.0.0.1:{self.server_port}/hive?auth=secret"


class _Handler(BaseHTTPRequestHandler):
    server: Ntfy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        refused = self.server.refusals > 0
        if refused:
            self.server.refusals -= 1
        else:
            self.server.taken.append((dict(self.headers), body))
        self.send_response(503 if refused else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def ntfy() -> Iterator[Ntfy]:
    with Ntfy() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_is_worth_telling() -> None:
    question = QuestionAdded(id=QuestionId(7), asker="coder", target=None, question="Which?")
    told = notification_for(question)
    assert told is not None
    assert (told.topic, told.subject, told.title, told.text, told.path) == (
        "question",
        "7",
        "coder asks",
        "Which?",
        "/your-call",
    )
    assert notification_for(QuestionAdded(id=QuestionId(7), asker="coder", target="peer", question="Which?")) is None
    request = ApprovalRequested(id=ApprovalId(3), agent="x", kind="spawn", requester="manager")
    assert [
        getattr(notification_for(event), "topic", None)
        for event in (
            request,
            NeedsLogin(agent="x"),
            Crashed(agent="x", incarnation="i", reason="signal 9 (SIGKILL)"),
            MessageSent(
                id=MessageId(1), sender="x", to="operator", body="My budget of 24 h is used up: 3 turns, 9 tokens."
            ),
            MessageSent(id=MessageId(1), sender="x", to="operator", body="Hello."),
            MessageSent(id=MessageId(1), sender="x", to="y", body="My budget of 24 h is used up: 3 turns, 9 tokens."),
        )
    ] == ["approval", "needs_login", "crash", "budget", None, None]


def test_a_refusal_does_not_tell_the_address(ntfy: Ntfy) -> None:
    told = notification_for(NeedsLogin(agent="x"))
    assert told is not None
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/secret", "http://127.0.0.1:9/secret", "http:///secret"):
        with pytest.raises(NotTaken) as refused:
            deliver(url, told, None)
        assert "secret" not in str(refused.value)


@pytest.mark.system
def test_it_is_told_tried_again_and_recorded(hive: HiveProcess, mara: Person, ntfy: Ntfy) -> None:
    assert mara.post("/webhook-test").status_code == 409
    (hive.paths.settings).write_text(f'[webhook]\nurl = "{ntfy.url}"\n')
    eventually(lambda: mara.post("/webhook-test").status_code == 200, "the new settings")
    assert hive.events("NotificationDelivered", topic="test")[0]["by"] == "operator:mara way=dashboard"
    ntfy.taken.clear()
    ntfy.refusals = 1
    with hive.agent("manager") as manager:
        id = manager.ask("ask_operator", question="Größer, <b>ja</b>?")["id"]
    delivered = hive.event("NotificationDelivered", topic="question")
    assert (delivered["subject"], delivered["attempts"], delivered["by"]) == (str(id), 2, "actor:webhook")
    headers, body = ntfy.taken[0]
    assert body == "Größer, <b>ja</b>?"
    assert headers["Title"] == "manager asks"
    assert headers["Click"] == f"{hive.url}/your-call"
    ntfy.refusals = 1
    refused = mara.post("/webhook-test")
    assert (refused.status_code, "503" in refused.json()["error"]) == (409, True)
    assert hive.events("NotificationFailed", topic="test")
    assert "secret" not in mara.get("/settings").text
    with hive.reading() as reader:
        assert not [row for row in reader.rows(1) if "secret" in row.data]
