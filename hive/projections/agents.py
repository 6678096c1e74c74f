"""The roster: the wanted and actual state of each agent, and its project folders."""

import msgspec

from hive.clock import DurationMs, TimeMs
from hive.events import agents as facts
from hive.events.erasing import Erased
from hive.events.moves import Adopted, ClaimSeen, MoveBegun, MoveFailed
from hive.events.texts import erased_value
from hive.events.turns import TurnEnded, TurnStarted
from hive.names import AgentName
from hive.projections.table import Projection, Recorded, Table

STABLE_RUN_MS: DurationMs = 600_000
"""A run of at least this length resets the count of crashes in a row."""


NEARLY_FULL_PERCENT = 90
"""Of its disk limit: the agent, the manager and the operator are told once."""
WAIVED_PERCENT = 110
"""An agent that the operator resumed on a full disk may use this part of what it had then."""


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """One agent or tombstone."""

    name: AgentName
    slot: int
    added_ms: TimeMs
    destroyed_ms: TimeMs | None = None
    """Set: a tombstone."""
    spawned: bool = False
    act: facts.Act | None = None
    """The lifecycle act that has no outcome yet."""
    act_purges: bool = False
    wanted_running: bool = True
    running: bool = False
    incarnation: str | None = None
    """Of the running container."""
    hello: str | None = None
    """The incarnation of the harness's last hello."""
    started_ms: TimeMs | None = None
    failure: str | None = None
    """Why it does not run although it should, for people."""
    last_line: str | None = None
    """The last line that the container of a crashed agent wrote."""
    crashes: int = 0
    """Crashes in a row."""
    restart_ms: TimeMs | None = None
    """When it is restarted after a crash."""
    needs_login: bool = False
    login_refused_ms: TimeMs | None = None
    """When the API refused the credentials; older credentials do not count."""
    needs_update: bool = False
    unresponsive: bool = False
    paused: bool = False
    revision: str | None = None
    """The commit of `applied` it last ran."""
    harness_version: str | None = None
    network: str | None = None
    """Of the running container: `own` or `host`."""
    model: str | None = None
    """The operator's choice; None: the configuration decides."""
    model_set_ms: TimeMs | None = None
    active_model: str | None = None
    """Of the newest turn."""
    status_text: str | None = None
    status_set_ms: TimeMs | None = None
    rate_limited_until_ms: TimeMs | None = None
    recipients: tuple[str, ...] | None = None
    budget: facts.Budget | None = None
    budget_until_ms: TimeMs | None = None
    """Set while the budget pauses it: the end of the pause."""
    budget_waived_ms: TimeMs | None = None
    """Set if the operator resumed it anyway: until then the budget does not pause it."""
    share: facts.Share | None = None
    throttled_ms: TimeMs | None = None
    """When requests were last recorded as refused for the agent's share."""
    throttle_told_ms: TimeMs | None = None
    """When the operator was last told of that."""
    limits: facts.ContainerLimits | None = None
    """Of its newest start."""
    disk_warned: bool = False
    """Its disk is nearly full, and the notice was sent."""
    disk_full: bool = False
    """Its disk limit pauses it."""
    disk_used_mb: int | None = None
    """Known while its disk is nearly full."""
    disk_waived_mb: int | None = None
    """Set if the operator resumed it anyway: below this its disk limit does not pause it."""


class Mount(msgspec.Struct, frozen=True):
    agent: AgentName
    folder: str
    host_path: str
    read_only: bool


class Agents(Projection):
    NAME = "agents"
    VERSION = 5

    def __init__(self) -> None:
        self.all: Table[AgentName, Agent] = Table("agents", Agent)
        self.mounts: Table[tuple[AgentName, str], Mount] = Table("mounts", Mount, key_parts=2)

    def handlers(self) -> dict[type, object]:
        return {
            facts.AgentAdded: self._on_added,
            facts.ActDecided: self._on_act_decided,
            facts.ActFailed: self._on_act_failed,
            facts.Spawned: lambda event, _: self._set(event.agent, spawned=True, act=None),
            facts.Started: self._on_started,
            facts.Stopped: lambda event, _: self._on_down(event.agent),
            facts.Killed: lambda event, _: self._on_down(event.agent),
            facts.Crashed: self._on_crashed,
            facts.Rebuilt: self._on_rebuilt,
            facts.Destroyed: self._on_destroyed,
            facts.Purged: lambda event, _: self.all.drop(event.agent),
            facts.Revived: self._on_revived,
            facts.Paused: lambda event, _: self._set(event.agent, paused=True, budget_until_ms=None, disk_full=False),
            facts.Resumed: self._on_resumed,
            facts.NeedsLogin: self._on_needs_login,
            facts.LoggedIn: lambda event, _: self._set(event.agent, needs_login=False, login_refused_ms=None),
            facts.NeedsUpdate: lambda event, _: self._set(event.agent, needs_update=True),
            facts.Unresponsive: lambda event, _: self._set(event.agent, unresponsive=True),
            facts.Responsive: lambda event, _: self._set(event.agent, unresponsive=False),
            facts.AxesSeeded: lambda event, _: self._set(
                event.agent, needs_login=event.needs_login, needs_update=event.needs_update
            ),
            facts.IncarnationSeen: lambda event, _: self._set(event.agent, hello=event.incarnation),
            facts.StatusSet: lambda event, at: self._set(event.agent, status_text=event.text, status_set_ms=at.at_ms),
            facts.RateLimited: lambda event, _: self._set(event.agent, rate_limited_until_ms=event.until_ms),
            facts.ModelSet: lambda event, at: self._set(event.agent, model=event.model, model_set_ms=at.at_ms),
            facts.RecipientsAllowed: lambda event, _: self._set(event.agent, recipients=event.recipients),
            facts.BudgetSet: lambda event, _: self._set(event.agent, budget=event.budget),
            facts.BudgetReached: lambda event, _: self._set(event.agent, paused=True, budget_until_ms=event.until_ms),
            facts.ShareSet: lambda event, _: self._set(event.agent, share=event.share),
            facts.Throttled: self._on_throttled,
            facts.BudgetFreed: self._on_budget_freed,
            facts.LimitsSet: lambda event, _: self._set(event.agent, limits=event.limits),
            facts.DiskNearlyFull: lambda event, _: self._set(event.agent, disk_warned=True, disk_used_mb=event.used_mb),
            facts.DiskFull: lambda event, _: self._set(
                event.agent, disk_warned=True, disk_full=True, paused=True, disk_used_mb=event.used_mb
            ),
            facts.DiskNoLongerFull: self._on_disk_freed,
            facts.Mounted: self._on_mounted,
            MoveBegun: lambda event, _: self._set(event.agent, wanted_running=False, restart_ms=None),
            Adopted: lambda event, _: self._set(event.agent, wanted_running=False, restart_ms=None),
            ClaimSeen: lambda event, _: self._set(event.agent, wanted_running=False, restart_ms=None),
            MoveFailed: lambda event, _: self._set(event.agent, wanted_running=event.wanted),
            facts.Unmounted: lambda event, _: self.mounts.drop((event.agent, event.folder)),
            Erased: self._on_erased,
            TurnStarted: self._on_model_seen,
            TurnEnded: self._on_model_seen,
        }

    def living(self) -> list[Agent]:
        """Every agent except tombstones, by name."""
        return sorted((row for row in self.all if row.destroyed_ms is None), key=lambda row: row.name)

    def tombstones(self) -> list[Agent]:
        """Destroyed agents with kept state, by name."""
        return sorted((row for row in self.all if row.destroyed_ms is not None), key=lambda row: row.name)

    def living_one(self, name: AgentName) -> Agent | None:
        """The agent of this name, unless it is unknown or a tombstone."""
        row = self.all.rows.get(name)
        return row if row is not None and row.destroyed_ms is None else None

    def mounts_of(self, name: AgentName) -> list[Mount]:
        """An agent's project folders, by folder."""
        return [row for key, row in sorted(self.mounts.rows.items()) if key[0] == name]

    def _set(self, name: AgentName, **changes: object) -> None:
        row = self.all.get(name)
        if row is not None:
            self.all.put(name, msgspec.structs.replace(row, **changes))

    def _on_added(self, event: facts.AgentAdded, recorded: Recorded) -> None:
        self.all.put(event.agent, Agent(name=event.agent, slot=event.slot, added_ms=recorded.at_ms, act="spawn"))

    def _on_act_decided(self, event: facts.ActDecided, _: Recorded) -> None:
        changes: dict[str, object] = {"act": event.act, "act_purges": event.purge, "restart_ms": None}
        if event.act in ("start", "restart"):
            changes["wanted_running"] = True
        elif event.act in ("stop", "kill", "destroy"):
            changes["wanted_running"] = False
        self._set(event.agent, **changes)

    def _on_act_failed(self, event: facts.ActFailed, _: Recorded) -> None:
        self._set(event.agent, act=None, failure=event.error)

    def _on_started(self, event: facts.Started, recorded: Recorded) -> None:
        row = self.all[event.agent]
        self._set(
            event.agent,
            act="spawn" if row.act == "spawn" else None,
            running=True,
            incarnation=event.incarnation,
            started_ms=recorded.at_ms,
            failure=None,
            restart_ms=None,
            crashes=row.crashes if event.reason == "crash" else 0,
            unresponsive=False,
            rate_limited_until_ms=None,
            status_text=None,
            status_set_ms=None,
            needs_update=False,  # It starts what is wanted, on this daemon's harness.
            revision=event.revision,
            harness_version=event.harness_version,
            network=event.network,
        )

    def _on_down(self, name: AgentName) -> None:
        row = self.all.get(name)
        if row is not None:
            act = None if row.act in ("stop", "kill") else row.act
            self._set(name, act=act, running=False, incarnation=None, failure=None, unresponsive=False, **_QUIET)

    def _on_crashed(self, event: facts.Crashed, recorded: Recorded) -> None:
        row = self.all[event.agent]
        self._set(
            event.agent,
            running=False,
            incarnation=None,
            failure=event.reason,
            last_line=event.last_line,
            crashes=crashes_in_a_row(row, recorded.at_ms),
            restart_ms=event.restart_ms,
            unresponsive=False,
            **_QUIET,
        )

    def _on_rebuilt(self, event: facts.Rebuilt, _: Recorded) -> None:
        row = self.all.get(event.agent)
        if row is None:
            return
        act = None if row.act == "rebuild" else row.act
        if event.ok:
            self._set(event.agent, act=act, needs_update=False, revision=event.revision)
        else:
            self._set(event.agent, act=act)

    def _on_needs_login(self, event: facts.NeedsLogin, recorded: Recorded) -> None:
        self._set(event.agent, needs_login=True, login_refused_ms=recorded.at_ms if event.refused else None)

    def _on_resumed(self, event: facts.Resumed, _: Recorded) -> None:
        row = self.all.get(event.agent)
        if row is not None:
            waived = row.budget_waived_ms if row.budget_until_ms is None else row.budget_until_ms
            self._set(event.agent, paused=False, budget_until_ms=None, budget_waived_ms=waived)
            if row.disk_full and row.disk_used_mb is not None:
                self._set(event.agent, disk_full=False, disk_waived_mb=row.disk_used_mb * WAIVED_PERCENT // 100 + 1)

    def _on_budget_freed(self, event: facts.BudgetFreed, _: Recorded) -> None:
        row = self.all.get(event.agent)
        if row is not None:
            self._set(event.agent, paused=row.disk_full, budget_until_ms=None)

    def _on_disk_freed(self, event: facts.DiskNoLongerFull, _: Recorded) -> None:
        row = self.all.get(event.agent)
        if row is None:
            return
        paused = row.budget_until_ms is not None if row.disk_full else row.paused
        nearly = is_nearly_full(event.used_mb, event.limit_mb)
        self._set(
            event.agent,
            paused=paused,
            disk_full=False,
            disk_warned=nearly,
            disk_used_mb=event.used_mb if nearly else None,
            disk_waived_mb=None,
        )

    def _on_throttled(self, event: facts.Throttled, recorded: Recorded) -> None:
        told = {"throttle_told_ms": recorded.at_ms} if event.told else {}
        self._set(event.agent, throttled_ms=recorded.at_ms, **told)

    def _on_model_seen(self, event: TurnStarted | TurnEnded, _: Recorded) -> None:
        if event.model is not None:
            row = self.all.rows.get(event.agent)
            if row is not None and row.active_model != event.model:
                self._set(event.agent, active_model=event.model)

    def _on_destroyed(self, event: facts.Destroyed, recorded: Recorded) -> None:
        self._on_down(event.agent)
        self._set(
            event.agent,
            act=None,
            destroyed_ms=recorded.at_ms,
            wanted_running=False,
            restart_ms=None,
            paused=False,
            budget_until_ms=None,
            disk_full=False,
        )
        if event.purge:
            self.all.drop(event.agent)
        for mount in self.mounts_of(event.agent):
            self.mounts.drop((event.agent, mount.folder))

    def _on_revived(self, event: facts.Revived, recorded: Recorded) -> None:
        row = self.all[event.agent]
        self.all.put(
            event.agent, Agent(name=row.name, slot=row.slot, added_ms=recorded.at_ms, act="spawn", model=row.model)
        )

    def _on_erased(self, event: Erased, _: Recorded) -> None:
        for row in list(self.all):
            if row.name in event.statuses:
                self._set(row.name, status_text=erased_value(row.status_text))
            if row.name in event.failures:
                self._set(row.name, failure=erased_value(row.failure))

    def _on_mounted(self, event: facts.Mounted, _: Recorded) -> None:
        mount = Mount(event.agent, event.folder, event.host_path, event.read_only)
        self.mounts.put((event.agent, event.folder), mount)


def is_nearly_full(used_mb: int, limit_mb: int) -> bool:
    """Whether an agent must be told that its disk fills up."""
    return used_mb * 100 >= limit_mb * NEARLY_FULL_PERCENT


_QUIET = {"status_text": None, "status_set_ms": None, "rate_limited_until_ms": None}
"""Fields that are cleared when the container ends."""


def crashes_in_a_row(row: Agent, now: TimeMs) -> int:
    """The count after a crash now."""
    stable = row.started_ms is not None and now - row.started_ms >= STABLE_RUN_MS
    return 1 if stable else row.crashes + 1
