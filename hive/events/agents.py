"""Facts about agents and their containers. Written by the lifecycle deciders; read by the agents projection."""

from typing import Literal

import msgspec

from hive.clock import TimeMs
from hive.events.base import ApprovalId, Event
from hive.names import AgentName

Act = Literal["spawn", "start", "stop", "kill", "restart", "rebuild", "destroy"]
StartReason = Literal["spawn", "start", "restart", "rebuild", "deploy", "crash", "boot"]


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent may use in a window; None: as much as it likes."""

    hours: int
    """The window, in hours of the clock: the one that runs and so many before it."""
    tokens: int | None = None
    """Input, output and cache tokens together."""
    turns: int | None = None


class AgentAdded(Event, frozen=True, kw_only=True):
    """An agent is on the roster and wanted running; its spawn is the act under way."""

    agent: AgentName
    slot: int
    """Never used twice; gives the agent its host uid."""
    approval_id: ApprovalId | None = None


class ActDecided(Event, frozen=True, kw_only=True):
    """A lifecycle act begins. Until its outcome is in the log, a start of the daemon does it again."""

    agent: AgentName
    act: Act
    purge: bool = False


class ActFailed(Event, frozen=True, kw_only=True):
    """The act under way did not work; the error is for people."""

    agent: AgentName
    act: Act
    error: str


class Spawned(Event, frozen=True, kw_only=True):
    """The agent exists: state folder, configuration, first run."""

    agent: AgentName


class Started(Event, frozen=True, kw_only=True):
    """A container runs."""

    agent: AgentName
    incarnation: str
    reason: StartReason
    revision: str | None = None
    """The commit of `applied` it runs, 40 hex digits."""
    harness_version: str | None = None


class Stopped(Event, frozen=True, kw_only=True):
    """The container ended because it was asked to."""

    agent: AgentName
    exit: str
    """How: `exit code 0`, `signal 15 (SIGTERM)`, …"""


class Killed(Event, frozen=True, kw_only=True):
    """The container was ended by force, on request."""

    agent: AgentName


class Crashed(Event, frozen=True, kw_only=True):
    """The container ended and nobody had asked for it."""

    agent: AgentName
    incarnation: str
    reason: str
    """`exit code 3`, `signal 9 (SIGKILL)`, `out of memory`, `unknown`."""
    code: int | None = None
    signal: int | None = None
    out_of_memory: bool | None = None
    ended_ms: TimeMs | None = None
    restart_ms: TimeMs | None = None
    """When it is started again; None: it rests until somebody starts it."""


class Rebuilt(Event, frozen=True, kw_only=True):
    """The wanted configuration was built, or could not be."""

    agent: AgentName
    ok: bool
    revision: str | None = None
    error: str | None = None
    approval_id: ApprovalId | None = None
    """The approved change that this carried out; None: it only brought the agent up to date."""


class Destroyed(Event, frozen=True, kw_only=True):
    """The agent is gone; without `purge` its state stays as a tombstone."""

    agent: AgentName
    purge: bool = False


class Purged(Event, frozen=True, kw_only=True):
    """The tombstone's state was wiped."""

    agent: AgentName


class Revived(Event, frozen=True, kw_only=True):
    """A tombstone is an agent again; it is wanted running and its spawn is the act under way."""

    agent: AgentName


class Paused(Event, frozen=True, kw_only=True):
    """The harness takes no messages."""

    agent: AgentName


class Resumed(Event, frozen=True, kw_only=True):
    """The harness takes messages again."""

    agent: AgentName


class NeedsLogin(Event, frozen=True, kw_only=True):
    """The agent's session has no credentials any more, never had, or the API refuses them."""

    agent: AgentName
    refused: bool = False
    """The harness said so: credentials that lie there now do not count."""


class LoggedIn(Event, frozen=True, kw_only=True):
    """Credentials are there again."""

    agent: AgentName


class NeedsUpdate(Event, frozen=True, kw_only=True):
    """What runs became older than what is wanted. The way back is `Rebuilt`."""

    agent: AgentName


class Unresponsive(Event, frozen=True, kw_only=True):
    """The container runs but its harness has not been connected for a while."""

    agent: AgentName


class Responsive(Event, frozen=True, kw_only=True):
    """The harness is connected again."""

    agent: AgentName


class AxesSeeded(Event, frozen=True, kw_only=True):
    """How the crash watch found an agent on its first look after a start of the daemon; tells nobody."""

    agent: AgentName
    needs_login: bool
    needs_update: bool


class IncarnationSeen(Event, frozen=True, kw_only=True):
    """The harness said hello as a run not seen before; what an earlier one held is requeued in the same commit."""

    agent: AgentName
    incarnation: str


class StatusSet(Event, frozen=True, kw_only=True):
    """What the agent says it is doing."""

    agent: AgentName
    text: str


class RateLimited(Event, frozen=True, kw_only=True):
    """The API refuses the agent's turns until then; None: it no longer does."""

    agent: AgentName
    until_ms: TimeMs | None


class ModelSet(Event, frozen=True, kw_only=True):
    """The operator picked a model for this agent; None: the configuration's."""

    agent: AgentName
    model: str | None


class RecipientsAllowed(Event, frozen=True, kw_only=True):
    """Whom the running configuration lets the agent write to; None: everyone."""

    agent: AgentName
    recipients: tuple[str, ...] | None


class BudgetSet(Event, frozen=True, kw_only=True):
    """What the running configuration lets the agent use; None: as much as it likes."""

    agent: AgentName
    budget: Budget | None


class BudgetReached(Event, frozen=True, kw_only=True):
    """The agent has used what it may, and is paused until the window has room again."""

    agent: AgentName
    budget: Budget
    turns: int
    """Used within the window, by what the agent's harness reported."""
    tokens: int
    until_ms: TimeMs


class BudgetFreed(Event, frozen=True, kw_only=True):
    """The window has room again, or the budget became larger: the pause is over."""

    agent: AgentName


class Mounted(Event, frozen=True, kw_only=True):
    """The operator gave the agent a project folder, from the next start on."""

    agent: AgentName
    host_path: str
    folder: str
    """Seen as `/work/<folder>`."""
    read_only: bool = False


class Unmounted(Event, frozen=True, kw_only=True):
    """The folder was taken away again."""

    agent: AgentName
    folder: str
