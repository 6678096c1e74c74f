"""Posts notifications for the operator to a webhook in ntfy's format, with retries."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import pykka
import structlog

from hive.actors import mail
from hive.actors.journal_clients import BlockingJournalClient
from hive.clock import Clock, DurationMs
from hive.deciders.record import RecordNotification
from hive.errors import HiveError, Unavailable
from hive.events.agents import BudgetReached, Crashed, DiskFull, DiskNearlyFull, NeedsLogin
from hive.events.approvals import ApprovalRequested
from hive.events.base import Seq, actor
from hive.events.questions import QuestionAdded
from hive.projections.notifications import Notification, Pending
from hive.settings import Settings

log = structlog.get_logger()

BY: Final = actor("webhook")
LISTENS: Final = (QuestionAdded, ApprovalRequested, NeedsLogin, Crashed, BudgetReached, DiskNearlyFull, DiskFull)
PAUSES_MS: Final[tuple[DurationMs, ...]] = (1_000, 10_000, 60_000)
"""Delays before the second, third and fourth attempt. After the fourth, delivery has failed."""
POST_TIMEOUT_S: Final = 10.0
WAITING_MAX: Final = 200
"""Waiting notifications. Further ones are recorded as not delivered."""


class NotTaken(HiveError):
    """The webhook refused or is unreachable. The text omits its address, which may hold a secret."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


def deliver(url: str, told: Notification, dashboard: str | None) -> None:
    """Try to deliver once; blocks.

    Raises:
        NotTaken.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise NotTaken("webhook.url in hive.toml is not an http or https address.")
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
        request = urllib.request.Request(url, told.text.encode(errors="replace"), headers)
        with _opener.open(request, timeout=POST_TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        raise NotTaken(f"It answered {error.code}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NotTaken(f"It cannot be reached: {type(reason).__name__}.") from error


class Webhook(pykka.ThreadingActor):
    """One notification at a time, oldest first.

    A crash loses nothing: the next actor reads undelivered notifications from the projection and counts attempts from
    one. A notification delivered just before a crash, but not yet recorded, is delivered twice.
    """

    use_daemon_thread = True

    def __init__(
        self,
        journal: BlockingJournalClient,
        clock: Clock,
        settings: Callable[[], Settings],
        dashboard: Callable[[], str | None],
    ):
        super().__init__()
        self._journal = journal
        self._clock = clock
        self._settings = settings
        self._dashboard = dashboard
        self._tried: Seq = 0
        """The event of the last attempt."""
        self._attempts = 0
        self._rests = False
        """Waiting for a retry: the webhook failed, or the log could not be written."""
        self._cancel: Callable[[], None] = lambda: None

    def on_start(self) -> None:
        mail.tell(self.actor_ref, "next")

    def on_receive(self, message: object | Literal["next", "rested"]) -> None:
        """Every message only wakes the actor. The state says what to deliver."""
        if message == "rested":
            self._rests = False
        if self._rests:
            return
        try:
            self._tell_first()
        except Unavailable as error:
            log.warning("webhook.no_journal", error=str(error))
            self._rest(PAUSES_MS[-1])

    def on_stop(self) -> None:
        self._cancel()

    def _tell_first(self) -> None:
        url = self._settings().webhook.url
        if url is None:
            return
        now = self._clock.now_ms()
        waiting = self._journal.read(lambda hive: hive.notifications.waiting(now))
        for one in waiting[WAITING_MAX:]:
            self._record(one, f"{WAITING_MAX} others already wait.", 0)
        if not waiting:
            return
        first = waiting[0]
        self._attempts = self._attempts + 1 if first.seq == self._tried else 1
        self._tried = first.seq
        error: str | None = None
        try:
            deliver(url, first.told, self._dashboard())
        except NotTaken as refusal:
            error = str(refusal)
            if self._attempts <= len(PAUSES_MS):
                self._rest(PAUSES_MS[self._attempts - 1])
                return
        self._record(first, error, self._attempts)
        mail.tell(self.actor_ref, "next")

    def _rest(self, pause_ms: DurationMs) -> None:
        self._rests = True
        self._cancel = self._clock.call_at(self._clock.now_ms() + pause_ms, lambda: mail.tell(self.actor_ref, "rested"))

    def _record(self, one: Pending, error: str | None, attempts: int) -> None:
        """Record the outcome. It is committed on return, so that the next read does not find the notification again."""
        told = one.told
        self._journal.ask(
            RecordNotification(
                by=BY, topic=told.topic, subject=told.subject, error=error, attempts=attempts, of=one.seq
            )
        )
