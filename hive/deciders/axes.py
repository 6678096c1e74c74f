"""Rules for observations of the crash watch and the harness: login, staleness, responsiveness, rate limits."""

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
    """What the crash watch observes of an agent."""

    agent: AgentName
    key_ms: TimeMs | None
    """Since when the host provides an API key or model URL; None: it does not."""
    credentials_ms: TimeMs | None
    """When the session's credentials were written; None: missing."""
    revision: str | None
    """The revision at the time of the observation."""
    stale: bool
    """The running revision is not the wanted one."""
    connected: bool
    """The harness is or was recently connected, or was just started."""
    seeds: bool = False
    """The first observation after a daemon start; sends no message."""


class ReportLogin(Command, frozen=True, kw_only=True):
    """The login state as the harness reports it."""

    agent: AgentName
    logged_in: bool


class ReportRateLimit(Command, frozen=True, kw_only=True):
    agent: AgentName
    until_ms: TimeMs | None


class SetStatus(Command, frozen=True, kw_only=True):
    agent: AgentName
    text: str


def look(command: Look, hive: Hive, now: TimeMs) -> Decision:
    """Record changes as events. Unchanged values write no event."""
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
    """False during a rebuild, and for an observation of an older revision."""
    return command.stale and command.revision == row.revision and hive.transient.held.get(row.name) is None


def report_login(command: ReportLogin, hive: Hive, now: TimeMs) -> Decision:
    """The harness's report counts: the API may refuse an existing key."""
    row = living(hive, command.agent)
    if row.needs_login is not command.logged_in:
        return []
    decision = DecisionBuilder(hive, now)
    _login_changed(decision, row, logged_in=command.logged_in, refused=True)
    return decision.events


def report_rate_limit(command: ReportRateLimit, hive: Hive, _: TimeMs) -> Decision:
    """Set or clear the rate limit."""
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
