"""Checks four properties of every agent, every ten seconds and when a watched file changes."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pykka
import structlog
import watchfiles

import hive
from hive.actors import mail
from hive.actors.agent import ContainerEnded, Do, Ticket
from hive.actors.journal_clients import BlockingJournalClient
from hive.actors.provision import Provisioner
from hive.clock import MS_PER_S, Clock, DurationMs, TimeMs
from hive.deciders.axes import Look
from hive.errors import HiveError
from hive.events.agents import LoggedIn, Started
from hive.events.base import actor
from hive.names import AgentName
from hive.projections.agents import Agent
from hive.runtimes.ownership import open_folder
from hive.runtimes.protocol import Ended, Exit, NeverRan

log = structlog.get_logger()

TICK_MS: DurationMs = 10_000
SILENT_MS: DurationMs = 60_000
"""A running agent whose harness is disconnected for this long gets the badge `unresponsive`. It is never killed."""
SETTLE_MS: DurationMs = 50
"""File changes within this time cause one check."""
NEW_WATCH_MS: DurationMs = 500
"""Delay of an extra check after the watched folders change: a container may have ended before that."""
BY = actor("crash_watch")
WATCHED_NAMES = frozenset({"exit.json", ".credentials.json", "main", "hive.toml"})
"""Files of an ended run, a login, a deploy and the host's settings."""
_UNSEEN = Exit()

Message = Literal["tick", "files", "look"] | Started


class CrashWatch(pykka.ThreadingActor):
    """Tells agents' actors about ended containers, and the journal about other changes.

    A crash loses nothing: the next actor checks everything again. Its first check reports no logins and updates.
    """

    use_daemon_thread = True

    def __init__(
        self,
        journal: BlockingJournalClient,
        provisioner: Provisioner,
        clock: Clock,
        last_seen: Callable[[AgentName], TimeMs | None],
        tell_agent: Callable[[ContainerEnded | Do], object],
        settings_changed: Callable[[], None],
    ):
        super().__init__()
        self._journal = journal
        self._provisioner = provisioner
        self._paths = provisioner.paths
        self._clock = clock
        self._last_seen = last_seen
        self._tell_agent = tell_agent
        self._settings_changed = settings_changed
        self._is_first = True
        self._cancel_tick: Callable[[], None] = lambda: None
        self._cancel_look: Callable[[], None] | None = None
        self._stop_watching = threading.Event()
        self._watched: frozenset[Path] = frozenset()
        self._wanted: dict[AgentName, tuple[int, str]] = {}
        self._began_ms = clock.now_ms()

    def on_start(self) -> None:
        self._tick()

    def on_receive(self, message: Message) -> None:
        match message:
            case "tick":
                self._tick()
            case "files":
                self._settings_changed()
                self._look_at_all()
            case "look":
                self._cancel_look = None
                self._look_at_all()
            case Started():  # Its folder may be new and not watched yet.
                self._look_soon(SETTLE_MS)

    def on_stop(self) -> None:
        self._cancel_tick()
        if self._cancel_look is not None:
            self._cancel_look()
        self._stop_watching.set()

    def _tick(self) -> None:
        self._look_at_all()
        self._cancel_tick = self._clock.call_at(
            self._clock.now_ms() + TICK_MS, lambda: mail.tell(self.actor_ref, "tick")
        )

    def _look_soon(self, after_ms: DurationMs) -> None:
        """Schedule one check, unless one is scheduled."""
        if self._cancel_look is None:
            at = self._clock.now_ms() + after_ms
            self._cancel_look = self._clock.call_at(at, lambda: mail.tell(self.actor_ref, "look"))

    def _look_at_all(self) -> None:
        rows = self._journal.read(lambda state: state.agents.living())
        for row in rows:
            try:
                self._look_at(row)
            except (HiveError, OSError) as error:
                log.warning("crash_watch.cannot_look", agent=row.name, error=str(error))
        self._is_first = False
        self._watch(rows)

    def _look_at(self, row: Agent) -> None:
        if row.running and row.act is None:
            status = self._provisioner.runtime.status(self._paths.record(row.name))
            if isinstance(status, Ended | NeverRan):
                found = status if isinstance(status, Ended) else Ended(incarnation=row.incarnation or "", exit=_UNSEEN)
                self._tell_agent(ContainerEnded(row.name, found))
                return
        if not row.spawned:
            return
        key_ms = self._provisioner.key_ms()
        look = Look(
            by=BY,
            agent=row.name,
            key_ms=key_ms,
            credentials_ms=self._credentials_ms(row.name),
            revision=row.revision,
            stale=self._is_stale(row),
            connected=self._is_connected(row),
            seeds=self._is_first,
        )
        changes = self._journal.ask(look).events
        if (
            row.running
            and key_ms is not None
            and key_ms > (row.started_ms or 0)
            and LoggedIn(agent=row.name) in changes
        ):
            self._tell_agent(
                Do(agent=row.name, act="restart", by=BY, ticket=Ticket())
            )  # Its environment has the old key.

    def _is_stale(self, row: Agent) -> bool:
        if row.revision is None:
            return False
        return row.revision != self._wanted_revision(row.name) or row.harness_version != hive.__version__

    def _wanted_revision(self, name: AgentName) -> str:
        """Asks git only when the ref changed: one process per agent and check is too expensive on an idle host."""
        ref = self._paths.applied(name) / ".git" / "refs" / "heads" / "main"
        written = ref.stat().st_mtime_ns if ref.exists() else 0
        known = self._wanted.get(name)
        if known is None or known[0] != written:
            known = self._wanted[name] = (written, self._provisioner.repositories.main(name))
        return known[1]

    def _is_connected(self, row: Agent) -> bool:
        since = max(self._last_seen(row.name) or 0, row.started_ms or 0, self._began_ms)
        return self._clock.now_ms() - since < SILENT_MS

    def _credentials_ms(self, name: AgentName) -> TimeMs | None:
        path = self._provisioner.credentials(name)
        try:
            folder = open_folder(str(path.parent))
        except OSError:
            return None
        try:
            return int(os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mtime * MS_PER_S)
        except OSError:
            return None
        finally:
            os.close(folder)

    # Files

    def _watch(self, rows: list[Agent]) -> None:
        folders = [self._paths.state, *(self._paths.record(row.name) for row in rows)]
        folders += [self._provisioner.credentials(row.name).parent for row in rows]
        folders += [self._paths.applied(row.name) / ".git" / "refs" / "heads" for row in rows]
        wanted = frozenset(folder for folder in folders if folder.is_dir())
        if wanted == self._watched:
            return
        self._stop_watching.set()
        self._stop_watching, self._watched = threading.Event(), wanted
        arguments = (tuple(wanted), self._stop_watching)
        threading.Thread(target=self._watch_files, args=arguments, name="crash-watch-files", daemon=True).start()
        self._look_soon(NEW_WATCH_MS)

    def _watch_files(self, folders: tuple[Path, ...], stop: threading.Event) -> None:
        try:
            for _ in watchfiles.watch(
                *folders, watch_filter=_matters, recursive=False, stop_event=stop, debounce=SETTLE_MS, step=SETTLE_MS
            ):
                mail.tell(self.actor_ref, "files")
        except (OSError, RuntimeError) as error:
            log.warning("crash_watch.no_file_events", error=str(error))  # The periodic check still runs.


def _matters(_change: watchfiles.Change, path: str) -> bool:
    return Path(path).name in WATCHED_NAMES
