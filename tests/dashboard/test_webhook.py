"""The webhook receives what needs an operator, with retries, and blocks nothing."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from system.hive_process import HiveProcess, eventually

from hive.actors.webhook import NotTaken, deliver
from hive.events import AnyEvent
from hive.events.agents import (
    Budget,
    BudgetReached,
    Crashed,
    Destroyed,
    DiskFull,
    DiskNearlyFull,
    DiskNoLongerFull,
    LoggedIn,
    NeedsLogin,
    Resumed,
)
from hive.events.approvals import ApprovalRequested
from hive.events.base import ApprovalId, MessageId, QuestionId
from hive.events.log import stamp
from hive.events.messages import MessageSent
from hive.events.notifications import NotificationDelivered, NotificationFailed
from hive.events.questions import QuestionAdded, QuestionResolved
from hive.projections.hive import dispatch
from hive.projections.notifications import PENDING_MAX, PENDING_MAX_MS, Notifications, notification_for
from hive.projections.table import Recorded

from .conftest import Person

DEAF = 10_000
"""More refusals than a test ever reaches."""


class Ntfy(HTTPServer):
    """An HTTP server that records posts and refuses a given number of them."""

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


def test_which_events_notify_the_webhook() -> None:
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
            BudgetReached(agent="x", budget=Budget(hours=24, turns=3), turns=3, tokens=9, until_ms=1_769_940_000_000),
            DiskNearlyFull(agent="x", used_mb=90, limit_mb=100),
            DiskFull(agent="x", used_mb=100, limit_mb=100),
            MessageSent(id=MessageId(1), sender="x", to="operator", body="Hello."),
        )
    ] == ["approval", "needs_login", "crash", "budget", "disk", "disk", None]


def test_webhook_error_hides_the_url(ntfy: Ntfy) -> None:
    told = notification_for(NeedsLogin(agent="x"))
    assert told is not None
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/secret", "http://127.0.0.1:9/secret", "http:///secret"):
        with pytest.raises(NotTaken) as refused:
            deliver(url, told, None)
        assert "secret" not in str(refused.value)


def folded(*events: AnyEvent) -> Notifications:
    projection = Notifications()
    handlers = dispatch([projection])
    for seq, event in enumerate(events, 1):
        for handler in handlers.get(type(event), ()):
            handler(event, Recorded(seq, stamp(seq), "actor:daemon", event))
    return projection


def asked(id: int) -> QuestionAdded:
    return QuestionAdded(id=QuestionId(id), asker="coder", target=None, question="Which?" * 1_000)


ANSWERED = QuestionResolved(id=QuestionId(1), asker="coder", target=None, answer="a", answerer="operator")
CRASHED = Crashed(agent="x", incarnation="i", reason="exit code 3")
NEARLY_FULL = DiskNearlyFull(agent="x", used_mb=9, limit_mb=9)
FULL = DiskFull(agent="x", used_mb=9, limit_mb=9)


@pytest.mark.parametrize(
    ("events", "left"),
    [
        ((asked(1), asked(2)), [1, 2]),
        ((asked(1), asked(2), NotificationDelivered(topic="question", subject="2", of=2)), [1]),
        ((asked(1), NotificationFailed(topic="question", subject="1", error="no", of=1)), []),
        (
            (asked(1), QuestionResolved(id=QuestionId(1), asker="coder", target=None, answer="a", answerer="operator")),
            [],
        ),
        ((NeedsLogin(agent="x"), NeedsLogin(agent="y"), LoggedIn(agent="x")), [2]),
        ((NEARLY_FULL, FULL), [2]),
        ((NEARLY_FULL, FULL, DiskNoLongerFull(agent="x", used_mb=1, limit_mb=9)), []),
        ((FULL, Resumed(agent="x")), []),
        ((CRASHED, CRASHED, NotificationDelivered(topic="crash", subject="x", of=2)), [1]),
        ((CRASHED, CRASHED, NotificationDelivered(topic="crash", subject="x")), [2]),
        ((CRASHED, NeedsLogin(agent="x"), asked(1), Destroyed(agent="x")), [3]),
        ((NotificationDelivered(topic="test", subject="mara"), asked(1)), [2]),
        (tuple(asked(id) for id in range(PENDING_MAX + 2)), list(range(3, PENDING_MAX + 3))),
    ],
)
def test_pending_notifications_follow_from_the_log(events: tuple[AnyEvent, ...], left: list[int]) -> None:
    waiting = folded(*events).waiting(PENDING_MAX_MS)
    assert [row.seq for row in waiting] == left
    assert all(len(row.told.text) <= 1_000 for row in waiting)


def test_notification_expires_after_a_day() -> None:
    assert [row.seq for row in folded(asked(1), asked(2)).waiting(PENDING_MAX_MS + 1)] == [2]


@pytest.mark.system
def test_webhook_retries_and_records_the_delivery(hive: HiveProcess, mara: Person, ntfy: Ntfy) -> None:
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


@pytest.mark.system
def test_next_daemon_sends_notifications_of_a_killed_one(ntfy: Ntfy) -> None:
    hive = HiveProcess()
    try:
        hive.paths.state.mkdir(mode=0o700)
        hive.paths.settings.write_text(f'[webhook]\nurl = "{ntfy.url}"\n')
        hive.up()
        hive.ask("set_paused", name="manager", paused=True)
        ntfy.taken.clear()
        ntfy.refusals = DEAF
        with hive.agent("manager") as manager:
            ids = [manager.ask("ask_operator", question=f"Number {number}?")["id"] for number in range(3)]
            settled = manager.ask("ask_operator", question="Never mind?")["id"]
            manager.ask("cancel_question", id=settled)
        eventually(lambda: ntfy.refusals < DEAF, "the first attempt")
        hive.kill()
        assert not hive.events("NotificationDelivered")
        ntfy.refusals = 0
        hive.up()
        for id in ids:
            hive.event("NotificationDelivered", topic="question", subject=str(id))
        assert [body for _, body in ntfy.taken] == ["Number 0?", "Number 1?", "Number 2?"]
        hive.check_files()
    finally:
        ntfy.refusals = 0
        hive.close()
