"""Dashboard sessions of operators. A token or link opens a session; the daemon checks it on every request.

Event loop only. Only hashes are stored, in memory and in a file of mode 0600, so sessions survive a daemon restart.
"""

import hashlib
import os
import secrets
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final

import msgspec
import structlog

from hive.clock import Clock, DurationMs, TimeMs
from hive.errors import LimitReached, Refused

log = structlog.get_logger()

IDLE_MAX_MS: Final[DurationMs] = 12 * 3_600_000
"""Maximum time without a request from a person. Requests that a page sends by itself do not count."""
SESSION_MAX_MS: Final[DurationMs] = 7 * 24 * 3_600_000
LINK_MAX_MS: Final[DurationMs] = 10 * 60_000
SESSIONS_MAX: Final = 200
"""Above it the least recently used session ends."""
LINKS_MAX: Final = 16
FAILURES_MAX: Final = 10
"""Wrong tokens from one source within the window. Above it, valid tokens are refused too."""
FAILURES_OF_ALL_MAX: Final = 200
FAILURE_WINDOW_MS: Final[DurationMs] = 60_000
SEEN_STEP_MS: Final[DurationMs] = 60_000
"""Resolution of the last-used time in the file."""
SECRET_BYTES: Final = 32
FILE_MAX_BYTES: Final = 1024 * 1024


class SignedOut(Refused):
    """The session is missing or ended, or the token is not valid."""

    code: ClassVar[str] = "signed_out"


class OperatorSession(msgspec.Struct):
    """One signed-in browser."""

    hash: str
    """SHA-256 of the session's secret, hex."""
    name: str
    token_hash: str | None
    """Hash of the operator's token; None if a link opened the session."""
    began_ms: TimeMs
    seen_ms: TimeMs


class _Link(msgspec.Struct):
    name: str
    until_ms: TimeMs


class Sessions:
    """All sessions of one hive."""

    def __init__(self, path: Path, clock: Clock):
        self._path = path
        self._clock = clock
        self._open: dict[str, OperatorSession] = {row.hash: row for row in _loaded(path)}
        self._links: dict[str, _Link] = {}
        self._failures: dict[str, deque[TimeMs]] = {}
        self._hang_ups: dict[str, set[Callable[[], None]]] = {}

    def open(self, name: str, token_hash: str | None) -> str:
        """Open a session and return its secret. The secret itself is not stored."""
        secret, now = secrets.token_urlsafe(SECRET_BYTES), self._clock.now_ms()
        for row in [row for row in self._open.values() if self._is_over(row, now)]:
            self._end(row)
        if len(self._open) >= SESSIONS_MAX:
            self._end(min(self._open.values(), key=lambda row: row.seen_ms))
        row = OperatorSession(hashed(secret), name, token_hash, now, now)
        self._open[row.hash] = row
        self._save()
        return secret

    def holder(self, secret: str | None, *, background: bool = False) -> OperatorSession:
        """Return the session of this secret. A background request does not reset its idle time.

        Raises:
            SignedOut: the session is unknown or has ended.
        """
        row = self._open.get(hashed(secret or ""))
        now = self._clock.now_ms()
        if row is None or self._is_over(row, now):
            if row is not None:
                self._end(row)
                self._save()
            raise SignedOut("Your session has ended; sign in again.")
        if not background and now - row.seen_ms >= SEEN_STEP_MS:
            row.seen_ms = now
            self._save()
        return row

    def close(self, row: OperatorSession) -> None:
        self._end(row)
        self._save()

    def close_all(self, name: str) -> int:
        """End all sessions of an operator; return how many ended."""
        ended = [row for row in self._open.values() if row.name == name]
        for row in ended:
            self._end(row)
        self._save()
        return len(ended)

    def count(self, name: str) -> int:
        return sum(row.name == name for row in self._open.values())

    def forget_unknown(self, known_hashes: frozenset[str]) -> None:
        """At start: end sessions of tokens that are not known any more."""
        for row in [row for row in self._open.values() if row.token_hash not in (None, *known_hashes)]:
            self._end(row)
        self._save()

    def on_end(self, row: OperatorSession, hang_up: Callable[[], None]) -> Callable[[], None]:
        """Call `hang_up` when the session ends, so that streams stop. Returns a function that cancels this."""
        calls = self._hang_ups.setdefault(row.hash, set())
        calls.add(hang_up)
        return lambda: calls.discard(hang_up)

    # Links and wrong tokens

    def new_link(self, name: str) -> str:
        """Return a secret that opens one session in an operator's name. Valid once, for minutes."""
        if len(self._links) >= LINKS_MAX:
            self._links.pop(next(iter(self._links)))
        secret = secrets.token_urlsafe(SECRET_BYTES)
        self._links[hashed(secret)] = _Link(name, self._clock.now_ms() + LINK_MAX_MS)
        return secret

    def take_link(self, secret: str) -> str | None:
        """Return the link's operator, and invalidate the link."""
        link = self._links.pop(hashed(secret), None)
        return None if link is None or link.until_ms < self._clock.now_ms() else link.name

    def refuse_flood(self, source: str) -> None:
        """Raises LimitReached: too many wrong tokens from this source or from all sources together."""
        since = self._clock.now_ms() - FAILURE_WINDOW_MS
        for key, times in list(self._failures.items()):
            while times and times[0] < since:
                times.popleft()
            if not times:
                del self._failures[key]
        of_all = sum(map(len, self._failures.values()))
        if len(self._failures.get(source, ())) >= FAILURES_MAX or of_all >= FAILURES_OF_ALL_MAX:
            raise LimitReached("Too many wrong tokens; wait a minute and try again.")

    def note_failure(self, source: str) -> None:
        self._failures.setdefault(source, deque()).append(self._clock.now_ms())
        log.warning("sessions.wrong_token", source=source)

    @staticmethod
    def _is_over(row: OperatorSession, now: TimeMs) -> bool:
        return now - row.began_ms >= SESSION_MAX_MS or now - row.seen_ms >= IDLE_MAX_MS

    def _end(self, row: OperatorSession) -> None:
        self._open.pop(row.hash, None)
        for hang_up in self._hang_ups.pop(row.hash, set()):
            hang_up()

    def _save(self) -> None:
        fresh = self._path.with_suffix(".new")
        try:
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as opened:
                opened.write(msgspec.json.encode(list(self._open.values())))
            fresh.replace(self._path)
        except OSError as error:
            log.warning("sessions.not_saved", error=str(error))  # The sessions then end with this daemon.


def hashed(secret: str) -> str:
    """Hash of a token or secret as it is stored. Secrets have 256 random bits, so they need no salt."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _loaded(path: Path) -> list[OperatorSession]:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(FILE_MAX_BYTES), type=list[OperatorSession])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        log.warning("sessions.not_loaded", error=str(error))
        return []
