"""Mirrors every applied repository to the forge. Best effort: a failure here blocks and fails nothing else."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pykka
import structlog

from hive.actors import mail
from hive.actors.journal_clients import BlockingJournalClient
from hive.clock import Clock, DurationMs, TimeMs, rfc3339
from hive.config.forge import Forge, ForgeUnreachable
from hive.config.repositories import Repositories
from hive.deciders.record import Warn
from hive.errors import HiveError, NotFound
from hive.events.agents import Spawned
from hive.events.base import actor
from hive.names import AgentName
from hive.settings import ForgeSettings, secret

log = structlog.get_logger()

RETRY_FIRST_MS: DurationMs = 5_000
"""Delay after the first failure; doubled for each consecutive one."""
RETRY_MAX_MS: DurationMs = 600_000
SETTLE_MS: DurationMs = 200
"""A deploy sets several tags in a row. This delay lets one push send them all."""
SETTINGS_LOOK_MS: DurationMs = 30_000
"""How often to check whether hive.toml now names a forge."""
BY = actor("forge_mirror")


class Changed(msgspec.Struct, frozen=True):
    """Message: a ref of this agent's applied repository changed."""

    agent: AgentName


class _Pushed(msgspec.Struct, frozen=True):
    """To itself, from the pushing thread: the error of each agent's push; None is success."""

    outcomes: dict[AgentName, str | None]


Message = Changed | Spawned | _Pushed | Literal["due"]
LISTENS = (Spawned,)


class MirrorStatus:
    """The state of the mirror, for display. Written by the actor, read by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: dict[str, Any] = {"state": "off"}

    def show(self, shown: dict[str, Any]) -> None:
        with self._lock:
            self._shown = shown

    def now(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._shown)


class ForgeMirror(pykka.ThreadingActor):
    """Pushes on its own thread, one round at a time, so that a forge that hangs does not block this actor.

    A crash loses nothing: the next actor pushes every agent. An up-to-date repository costs one request.
    """

    use_daemon_thread = True

    def __init__(
        self,
        journal: BlockingJournalClient,
        clock: Clock,
        repositories: Repositories,
        state: Path,
        settings: Callable[[], ForgeSettings],
        status: MirrorStatus,
    ):
        super().__init__()
        self._journal = journal
        self._clock = clock
        self._repositories = repositories
        self._state = state
        self._settings = settings
        self._status = status
        self._behind: set[AgentName] = set()
        self._errors: dict[AgentName, str] = {}
        self._failures = 0
        """Consecutive failed rounds."""
        self._pushing = False
        self._due_ms: TimeMs | None = None
        self._cancel: Callable[[], None] = lambda: None

    def on_start(self) -> None:
        self._behind = set(self._journal.read(lambda hive: {row.name for row in hive.agents.living() if row.spawned}))
        self._push_at(self._clock.now_ms())

    def on_receive(self, message: Message) -> None:
        match message:
            case Changed(agent=name) | Spawned(agent=name):
                self._behind.add(name)
                if self._failures == 0:  # After a failure, it waits for the next retry.
                    self._push_at(self._clock.now_ms() + SETTLE_MS)
            case "due":
                self._due_ms = None
                self._push()
            case _Pushed(outcomes=outcomes):
                self._pushing = False
                self._take(outcomes)
        self._show()

    def on_stop(self) -> None:
        self._cancel()

    def _push_at(self, at: TimeMs) -> None:
        if self._due_ms is None or at < self._due_ms:
            self._cancel()
            self._due_ms = at
            self._cancel = self._clock.call_at(at, lambda: mail.tell(self.actor_ref, "due"))

    def _push(self) -> None:
        if self._settings().url is None:
            self._push_at(self._clock.now_ms() + SETTINGS_LOOK_MS)
            return
        if self._pushing or not self._behind:
            return
        self._pushing = True
        names, self._behind = sorted(self._behind), set()
        threading.Thread(target=self._round, args=(names,), name="forge-mirror", daemon=True).start()

    def _round(self, names: list[AgentName]) -> None:
        """Runs on its own thread."""
        outcomes: dict[AgentName, str | None] = {}
        try:
            with self._forge() as forge:
                forge.ensure_org()
                for name in names:
                    outcomes[name] = self._push_one(forge, name)
        except (HiveError, OSError) as error:
            outcomes |= {name: str(error) for name in names if name not in outcomes}
        except Exception as bug:  # An unexpected reply of the forge must not stop the mirror.
            log.exception("forge.round_crashed")
            outcomes |= {name: f"internal error ({type(bug).__name__})" for name in names if name not in outcomes}
        mail.tell(self.actor_ref, _Pushed(outcomes))

    def _forge(self) -> Forge:
        settings = self._settings()
        assert settings.url is not None
        token = secret(self._state, settings.token_file or "forge.token")
        return Forge(settings.url, settings.org, token)

    def _push_one(self, forge: Forge, name: AgentName) -> str | None:
        try:
            applied = self._repositories.applied(name)
            forge.ensure_repository(name)
            forge.push(name, applied)
        except ForgeUnreachable:
            raise  # The next push would fail, too.
        except NotFound:
            return None  # The agent was purged meanwhile.
        except HiveError as error:
            return str(error)
        return None

    def _take(self, outcomes: dict[AgentName, str | None]) -> None:
        errors = {name: error for name, error in outcomes.items() if error is not None}
        for name in outcomes:
            self._errors.pop(name, None)
        self._errors |= errors
        self._behind |= set(errors)
        if errors:
            self._warn(next(iter(errors.values())))
            wait = min(RETRY_FIRST_MS << min(self._failures, 16), RETRY_MAX_MS)
            self._failures += 1
            self._due_ms = None  # Newer changes wait for the same retry.
            self._push_at(self._clock.now_ms() + wait)
        else:
            if self._failures:
                log.info("forge.caught_up")
            self._failures = 0
            if self._behind:
                self._push_at(self._clock.now_ms())

    def _warn(self, why: str) -> None:
        """Record one event per outage, not per attempt."""
        log.warning("forge.not_mirrored", error=why, attempts=self._failures + 1)
        if self._failures == 0:
            self._journal.tell(Warn(by=BY, source="forge_mirror", text=why))

    def _show(self) -> None:
        settings = self._settings()
        if settings.url is None:
            self._status.show({"state": "off"})
            return
        state = "failing" if self._failures else "behind" if self._behind or self._pushing else "up to date"
        shown: dict[str, Any] = {"state": state, "url": settings.url, "org": settings.org}
        if self._behind:
            shown["behind"] = sorted(self._behind)
        if self._errors:
            shown["errors"] = dict(sorted(self._errors.items()))
        if self._failures and self._due_ms is not None:
            shown["retry_at"] = rfc3339(self._due_ms)
        self._status.show(shown)
