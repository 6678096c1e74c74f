"""Tells the operator's webhook what waits on a person: one POST each, shaped as ntfy takes it, tried a few times."""

import http.client
import re
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
import pykka

from hive.actors import mail
from hive.actors.doors import ThreadDoor
from hive.clock import Clock, DurationMs
from hive.deciders.record import RecordNotification
from hive.errors import HiveError
from hive.events.agents import Crashed, NeedsLogin
from hive.events.approvals import ApprovalRequested
from hive.events.base import actor
from hive.events.messages import MessageSent
from hive.events.notifications import Topic
from hive.events.questions import QuestionAdded
from hive.names import OPERATOR
from hive.settings import Settings

BY: Final = actor("webhook")
LISTENS: Final = (QuestionAdded, ApprovalRequested, NeedsLogin, Crashed, MessageSent)
PAUSES_MS: Final[tuple[DurationMs, ...]] = (1_000, 10_000, 60_000)
"""Before the second, third and fourth attempt; then it has failed."""
POST_TIMEOUT_S: Final = 10.0
WAITING_MAX: Final = 200
"""Notifications of one hive; a flood drops the newest, and says so in the log."""
TEXT_MAX_CHARS: Final = 1_000
BUDGET_WORDS: Final = re.compile(r"My budget of \d+ h is used up")
"""How a harness tells the operator so; see `hive.harness.loop`."""


class Notification(msgspec.Struct, frozen=True):
    """What a person is told."""

    topic: Topic
    subject: str
    title: str
    text: str
    path: str
    """Of the dashboard, where it can be acted on."""
    urgent: bool = False


class NotTaken(HiveError):
    """The webhook refused or could not be reached; says why, without its address."""


def notification_for(event: object) -> Notification | None:
    """What an event is to a person, if it is anything."""
    match event:
        case QuestionAdded(target=None, id=id, asker=asker, question=text):
            return Notification("question", str(id), f"{asker} asks", text, "/your-call")
        case ApprovalRequested(id=id, agent=agent, kind=kind, description=about):
            title = f"Approve {kind.replace('_', ' ')} {agent}?"
            return Notification("approval", str(id), title, about or title, "/your-call")
        case NeedsLogin(agent=agent):
            return Notification(
                "needs_login", agent, f"{agent} needs a login", "It rests until then.", f"/agent/{agent}/"
            )
        case Crashed(agent=agent, reason=reason, restart_ms=restart):
            after = "It rests." if restart is None else "It is started again."
            return Notification(
                "crash", agent, f"{agent} crashed", f"{reason}. {after}", f"/agent/{agent}/", restart is None
            )
        case MessageSent(to=to, sender=agent, body=body) if to == OPERATOR and BUDGET_WORDS.match(body):
            return Notification("budget", agent, f"{agent} is over its budget", body, f"/agent/{agent}/")
        case _:
            return None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def deliver(url: str, told: Notification, dashboard: str | None) -> None:
    """One attempt; blocks.

    Raises:
        NotTaken.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise NotTaken("webhook.url in hive.toml is no http or https address.")
    headers = {
        "Title": told.title.encode("ascii", "replace").decode(),
        "Tags": {"question": "question", "approval": "inbox_tray", "crash": "boom"}.get(told.topic, "bee"),
        "Priority": "high" if told.urgent else "default",
        "Content-Type": "text/plain; charset=utf-8",
        "User-Agent": "hive",
    }
    if dashboard is not None:
        headers["Click"] = dashboard + told.path
    try:
        request = urllib.request.Request(url, told.text[:TEXT_MAX_CHARS].encode(errors="replace"), headers)
        with _opener.open(request, timeout=POST_TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        raise NotTaken(f"It answered {error.code}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NotTaken(f"It cannot be reached: {type(reason).__name__}.") from error


def wants(event: object) -> bool:
    """Spares the webhook what agents write to one another, which is most of all there is."""
    return not isinstance(event, MessageSent) or event.to == OPERATOR


class Webhook(pykka.ThreadingActor):
    """One notification at a time, oldest first. A crash loses what waited; what it was about stands in the log."""

    use_daemon_thread = True

    def __init__(
        self, door: ThreadDoor, clock: Clock, settings: Callable[[], Settings], dashboard: Callable[[], str | None]
    ):
        super().__init__()
        self._door = door
        self._clock = clock
        self._settings = settings
        self._dashboard = dashboard
        self._waiting: deque[Notification] = deque()
        self._attempts = 0
        self._cancel: Callable[[], None] = lambda: None

    def on_receive(self, message: object | Literal["again"]) -> None:
        if message == "again":
            self._try()
        elif (told := notification_for(message)) is not None and self._settings().webhook.url is not None:
            if len(self._waiting) >= WAITING_MAX:
                self._record(told, f"{WAITING_MAX} others wait already.", 0)
                return
            self._waiting.append(told)
            if len(self._waiting) == 1:
                self._try()

    def on_stop(self) -> None:
        self._cancel()

    def _try(self) -> None:
        url, told = self._settings().webhook.url, self._waiting[0]
        self._attempts += 1
        error: str | None = "hive.toml names no webhook any more."
        if url is not None:
            try:
                deliver(url, told, self._dashboard())
                error = None
            except NotTaken as refusal:
                error = str(refusal)
        now = self._clock.now_ms()
        if error is not None and url is not None and self._attempts <= len(PAUSES_MS):
            self._later(now + PAUSES_MS[self._attempts - 1])
            return
        self._record(told, error, self._attempts)
        self._waiting.popleft()
        self._attempts = 0
        if self._waiting:
            self._later(now)

    def _later(self, at: int) -> None:
        self._cancel = self._clock.call_at(at, lambda: mail.tell(self.actor_ref, "again"))

    def _record(self, told: Notification, error: str | None, attempts: int) -> None:
        self._door.tell(
            RecordNotification(by=BY, topic=told.topic, subject=told.subject, error=error, attempts=attempts)
        )
