"""The rules of what the crash watch and the harness observe: logged in, up to date, responsive, rate limited."""

from hive.clock import TimeMs
from hive.deciders.base import Command, Decision, DecisionBuilder, checked_label, living
from hive.events import notices
from hive.events.agents import (
    AxesSeeded,
    LoggedIn,
    NeedsLogin,
    NeedsUpdate,
    RateLimited,
    Responsive,
    StatusSet,
    Unresponsive,
)
from hive.names import MANAGER, OPERATOR, AgentName
from hive.projections.agents import Agent
from hive.projections.hive import Hive


class Look(Command, frozen=True, kw_only=True):
    """What the crash watch sees of a running or stopped agent."""

    agent: AgentName
    key_ms: TimeMs | None
    """Since when the host gives an API key or a model of its own; None: it gives none."""
    credentials_ms: TimeMs | None
    """When the session's credentials were written; None: there are none."""
    revision: str | None
    """What ran when this was looked at."""
    stale: bool
    """What runs is not what is wanted."""
    connected: bool
    """The harness is connected, was a moment ago, or has only just been started."""
    seeds: bool = False
    """The first look after a start of the daemon, which tells nobody."""


class ReportLogin(Command, frozen=True, kw_only=True):
    """What the harness found out about its login."""

    agent: AgentName
    logged_in: bool


class ReportRateLimit(Command, frozen=True, kw_only=True):
    agent: AgentName
    until_ms: TimeMs | None


class SetStatus(Command, frozen=True, kw_only=True):
    agent: AgentName
    text: str


def look(command: Look, hive: Hive, now: TimeMs) -> Decision:
    """Turn what changed into events; what is as it was is none."""
    row = hive.agents.living_one(command.agent)
    if row is None:
        return []
    needs_login, stale = _needs_login(row, command), _is_stale(row, command, hive)
    if command.seeds:
        if (needs_login, stale) == (row.needs_login, row.needs_update):
            return []
        return [AxesSeeded(agent=row.name, needs_login=needs_login, needs_update=stale)]
    decision = DecisionBuilder(hive, now)
    if needs_login != row.needs_login:
        _login_changed(decision, row, logged_in=not needs_login, refused=False)
    if stale and not row.needs_update:
        decision.add(NeedsUpdate(agent=row.name))
        decision.tell(MANAGER, notices.NeedsUpdate(agent=row.name))
    if command.connected is row.unresponsive and row.running:
        decision.add(Responsive(agent=row.name) if command.connected else Unresponsive(agent=row.name))
    return decision.events


def _is_stale(row: Agent, command: Look, hive: Hive) -> bool:
    """Not while it is being brought up to date, nor by a look at what has been replaced since."""
    return command.stale and command.revision == row.revision and hive.transient.held.get(row.name) is None


def report_login(command: ReportLogin, hive: Hive, now: TimeMs) -> Decision:
    """The harness knows best: a key that is there may be refused."""
    row = living(hive, command.agent)
    if row.needs_login is not command.logged_in:
        return []
    decision = DecisionBuilder(hive, now)
    _login_changed(decision, row, logged_in=command.logged_in, refused=True)
    return decision.events


def report_rate_limit(command: ReportRateLimit, hive: Hive, _: TimeMs) -> Decision:
    """Set or clear the badge."""
    row = living(hive, command.agent)
    if row.rate_limited_until_ms == command.until_ms:
        return []
    return [RateLimited(agent=row.name, until_ms=command.until_ms)]


def set_status(command: SetStatus, hive: Hive, _: TimeMs) -> Decision:
    """Raises BadRequest: too long."""
    row = living(hive, command.agent)
    return [StatusSet(agent=row.name, text=checked_label(command.text, "status"))]


def _needs_login(row: Agent, seen: Look) -> bool:
    newest = max((time for time in (seen.key_ms, seen.credentials_ms) if time is not None), default=None)
    return newest is None or (row.login_refused_ms is not None and newest <= row.login_refused_ms)


def _login_changed(decision: DecisionBuilder, row: Agent, *, logged_in: bool, refused: bool) -> None:
    to = OPERATOR if row.name == MANAGER else MANAGER
    if logged_in:
        decision.add(LoggedIn(agent=row.name))
        decision.tell(to, notices.LoggedIn(agent=row.name))
    else:
        decision.add(NeedsLogin(agent=row.name, refused=refused))
        decision.tell(to, notices.NeedsLogin(agent=row.name))
