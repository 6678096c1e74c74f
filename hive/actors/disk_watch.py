"""Measures what each agent's folders take on disk, and tells the journal.

Where the file system has project quotas, each tick asks them; elsewhere a walk measures the folders.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import pykka
import structlog

from hive.actors import mail
from hive.actors.journal_clients import BlockingJournalClient
from hive.clock import MS_PER_S, Clock, DurationMs, TimeMs
from hive.deciders.disk import RecordDiskUse
from hive.events.base import actor
from hive.names import AgentName
from hive.paths import Paths
from hive.projections.agents import Agent, is_nearly_full
from hive.runtimes import disk_usage, quota

log = structlog.get_logger()

TICK_MS: DurationMs = 2_000
"""How often the free space of the file system is read; that costs one system call."""
MEASURE_MS: DurationMs = 60_000
"""The longest time between two measurements of all agents, unless one takes long."""
GROWTH_PARTS = 20
"""Growth of the file system by this part of the smallest limit causes a measurement at once."""
DUTY_PARTS = 20
"""A measurement pauses for at least this many times its own duration: it may use 5 % of one core."""
MEASURE_MAX_S = 120.0
"""A walk that takes longer is stopped; the folders it did not reach keep their last measurement."""
WALK_PARTS = 2
"""The walk of a folder ends at this many times the limit; an operator may have resumed an agent above the limit."""
MIB = 1024 * 1024
BY = actor("disk_watch")


class _Measured(msgspec.Struct, frozen=True):
    """To itself: the bytes of each agent's folders, as far as they were measured."""

    used_bytes: dict[AgentName, int]
    took_ms: DurationMs


Message = Literal["tick"] | _Measured


class DiskWatch(pykka.ThreadingActor):
    """Asks the quotas at each tick. Without them, walks the agents' folders if the disk filled up or a minute passed.

    The walk is a niced process of its own. A crash loses nothing: the next actor measures at its first tick.
    """

    use_daemon_thread = True

    def __init__(
        self,
        journal: BlockingJournalClient,
        clock: Clock,
        paths: Paths,
        quota_project: Callable[[Agent], int | None],
    ):
        """`quota_project`: the project of an agent; None: the file system has no project quotas."""
        super().__init__()
        self._journal = journal
        self._clock = clock
        self._paths = paths
        self._quota_project = quota_project
        self._cancel_tick: Callable[[], None] = lambda: None
        self._walk: subprocess.Popen[str] | None = None
        self._is_measuring = False
        self._measured_ms: TimeMs = 0
        self._not_before_ms: TimeMs = 0
        self._used_then = 0
        """Bytes in use on the file system at the last measurement."""

    def on_start(self) -> None:
        self._tick()

    def on_receive(self, message: Message) -> None:
        match message:
            case "tick":
                self._tick()
            case _Measured():
                self._record(message)

    def on_stop(self) -> None:
        self._cancel_tick()
        if self._walk is not None:
            self._walk.kill()

    def _tick(self) -> None:
        now = self._clock.now_ms()
        all_rows = [row for row in self._journal.read(lambda state: state.agents.living()) if _limit_mb(row)]
        rows = [row for row in all_rows if not self._ask_quota(row)]
        if rows and not self._is_measuring and now >= self._not_before_ms and self._is_due(now, rows):
            self._measure(rows)
        self._cancel_tick = self._clock.call_at(now + TICK_MS, lambda: mail.tell(self.actor_ref, "tick"))

    def _ask_quota(self, row: Agent) -> bool:
        """Read the agent's quota; False if it has none. If the operator resumed the agent, leave it room."""
        project = self._quota_project(row) if row.limits is not None and row.limits.disk_quota else None
        if project is None:
            return False
        top = str(self._paths.agents.resolve())
        try:
            usage = quota.usage(top, project)
            if usage.limit_bytes != (allowed := max(_limit_mb(row), row.disk_waived_mb or 0) * MIB):
                quota.limit(top, project, allowed)
        except OSError as error:
            log.warning("disk_watch.no_quota", agent=row.name, error=str(error))
            return False
        # Rounded up: the kernel refuses what would exceed the limit, so that an agent at its limit takes a bit less.
        used_mb = -(-usage.used_bytes // MIB)
        if row.disk_warned or is_nearly_full(used_mb, _limit_mb(row)):
            self._journal.tell(RecordDiskUse(by=BY, agent=row.name, used_mb=used_mb, limit_mb=_limit_mb(row)))
        return True

    def _is_due(self, now: TimeMs, rows: list[Agent]) -> bool:
        if now - self._measured_ms >= MEASURE_MS or any(row.disk_full for row in rows):
            return True
        smallest = min(_limit_mb(row) for row in rows) * MIB
        return self._used() - self._used_then >= smallest // GROWTH_PARTS

    def _used(self) -> int:
        facts = os.statvfs(self._paths.state)
        return (facts.f_blocks - facts.f_bfree) * facts.f_frsize

    def _measure(self, rows: list[Agent]) -> None:
        self._is_measuring, self._used_then = True, self._used()
        folders = [
            (row.name, _limit_mb(row) * MIB * WALK_PARTS, folder)
            for row in rows
            for folder in self._paths.limited_folders(row.name)
        ]
        command = [sys.executable, "-I", "-S", disk_usage.__file__]
        self._walk = walk = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._await, args=(walk, folders), name="disk-watch-walk", daemon=True).start()

    def _await(self, walk: "subprocess.Popen[str]", folders: list[tuple[AgentName, int, Path]]) -> None:
        """In a thread of its own, so that the actor can stop meanwhile."""
        began = time.monotonic()
        try:
            said, _ = walk.communicate("".join(f"{limit} {folder}\n" for _, limit, folder in folders), MEASURE_MAX_S)
        except subprocess.TimeoutExpired:
            walk.kill()
            said, _ = walk.communicate()
            log.warning("disk_watch.slow_walk", limit_s=MEASURE_MAX_S)
        used: dict[AgentName, int] = {}
        for (name, _, _), line in zip(folders, said.splitlines(), strict=False):
            used[name] = used.get(name, 0) + int(line)
        mail.tell(self.actor_ref, _Measured(used, int((time.monotonic() - began) * MS_PER_S)))

    def _record(self, measured: _Measured) -> None:
        self._is_measuring, self._walk = False, None
        self._measured_ms = self._clock.now_ms()
        self._not_before_ms = self._measured_ms + measured.took_ms * DUTY_PARTS
        for row in self._journal.read(lambda state: state.agents.living()):
            used = measured.used_bytes.get(row.name)
            if used is not None and _limit_mb(row):
                command = RecordDiskUse(by=BY, agent=row.name, used_mb=used // MIB, limit_mb=_limit_mb(row))
                self._journal.tell(command)


def _limit_mb(row: Agent) -> int:
    """0: unknown before its first start."""
    return (row.limits.disk_mb or 0) if row.limits is not None else 0
