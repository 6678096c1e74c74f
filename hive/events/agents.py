"""Facts about agents and their containers. Written by the lifecycle deciders; read by the agents projection."""

from typing import Literal

import msgspec

from hive.clock import TimeMs
from hive.events.base import ApprovalId, Event
from hive.names import AgentName

Act = Literal["spawn", "start", "stop", "kill", "restart", "rebuild", "destroy"]
StartReason = Literal["spawn", "start", "restart", "rebuild", "deploy", "crash", "boot"]


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent may use in a time window; None means no limit."""

    hours: int
    """Length of the window in clock hours: the current hour and this many before it."""
    tokens: int | None = None
    """Input, output and cache tokens together."""
    turns: int | None = None
    usd: float | None = None
    """Dollars, by the prices in `hive.toml`."""


class Share(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent's configuration asks for instead of the host's share; None: the host's."""

    events_per_minute: int | None = None
    burst_events: int | None = None
    kib_per_minute: int | None = None
    burst_kib: int | None = None


class ContainerLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of a container; None: no limit."""

    memory_mb: int | None = None
    processes: int | None = None
    cpu_percent: int | None = None
    """100 is one core. None: equal parts of all cores."""
    disk_mb: int | None = None
    disk_quota: bool = False
    """A project quota of the file system enforces `disk_mb`; otherwise a walk measures the folders."""
    open_files: int | None = None
    not_enforced: tuple[str, ...] = ()
    """What this host does not enforce, in sentences for people."""


class AgentAdded(Event, frozen=True, kw_only=True):
    """An agent is on the roster and wanted running; its spawn is under way."""

    agent: AgentName
    slot: int
    """Never reused; determines the agent's host uid."""
    approval_id: ApprovalId | None = None


class ActDecided(Event, frozen=True, kw_only=True):
    """A lifecycle act begins. A daemon that starts before its outcome is logged does it again."""

    agent: AgentName
    act: Act
    purge: bool = False


class ActFailed(Event, frozen=True, kw_only=True):
    """The act under way failed; the error is for people."""

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
    network: Literal["own", "host"] | None = None
    """`own`: a namespace of its own. A run keeps its network until it ends, whatever `hive.toml` says."""


class Stopped(Event, frozen=True, kw_only=True):
    """The container stopped on request."""

    agent: AgentName
    exit: str
    """How: `exit code 0`, `signal 15 (SIGTERM)`, …"""


class Killed(Event, frozen=True, kw_only=True):
    """The container was killed on request."""

    agent: AgentName


class Crashed(Event, frozen=True, kw_only=True):
    """The container ended without a request."""

    agent: AgentName
    incarnation: str
    reason: str
    """`exit code 3`, `signal 9 (SIGKILL)`, `out of memory`, `unknown`."""
    code: int | None = None
    signal: int | None = None
    out_of_memory: bool | None = None
    ended_ms: TimeMs | None = None
    restart_ms: TimeMs | None = None
    """When it is restarted; None: it stays stopped until somebody starts it."""
    last_line: str | None = None
    """The last line that the container wrote, escaped and shortened. The agent chooses it, so it proves nothing."""


class Rebuilt(Event, frozen=True, kw_only=True):
    """The build of the wanted configuration succeeded or failed."""

    agent: AgentName
    ok: bool
    revision: str | None = None
    error: str | None = None
    approval_id: ApprovalId | None = None
    """The approved change that was built; None: the agent was only brought up to date."""


class Destroyed(Event, frozen=True, kw_only=True):
    """The agent was destroyed; without `purge` its state stays as a tombstone."""

    agent: AgentName
    purge: bool = False


class Purged(Event, frozen=True, kw_only=True):
    """The tombstone's state was deleted."""

    agent: AgentName


class Revived(Event, frozen=True, kw_only=True):
    """A tombstone is an agent again and wanted running; its spawn is under way."""

    agent: AgentName


class Paused(Event, frozen=True, kw_only=True):
    """The harness takes no messages."""

    agent: AgentName


class Resumed(Event, frozen=True, kw_only=True):
    """The harness takes messages again."""

    agent: AgentName


class NeedsLogin(Event, frozen=True, kw_only=True):
    """The agent's session has no credentials, or the API refuses them."""

    agent: AgentName
    refused: bool = False
    """The API refused the credentials: the existing ones do not count."""


class LoggedIn(Event, frozen=True, kw_only=True):
    """The session has credentials again."""

    agent: AgentName


class NeedsUpdate(Event, frozen=True, kw_only=True):
    """The running configuration is older than the wanted one. `Rebuilt` ends this."""

    agent: AgentName


class Unresponsive(Event, frozen=True, kw_only=True):
    """The container runs, but its harness has not been connected for some time."""

    agent: AgentName


class Responsive(Event, frozen=True, kw_only=True):
    """The harness is connected again."""

    agent: AgentName


class AxesSeeded(Event, frozen=True, kw_only=True):
    """The crash watch's first observation of an agent after a daemon start; sends no message."""

    agent: AgentName
    needs_login: bool
    needs_update: bool


class IncarnationSeen(Event, frozen=True, kw_only=True):
    """The harness said hello with a new incarnation; the same commit requeues messages of an earlier one."""

    agent: AgentName
    incarnation: str


class StatusSet(Event, frozen=True, kw_only=True):
    """The status text of the agent."""

    agent: AgentName
    text: str


class RateLimited(Event, frozen=True, kw_only=True):
    """The API refuses the agent's turns until this time; None: no longer."""

    agent: AgentName
    until_ms: TimeMs | None


class ModelSet(Event, frozen=True, kw_only=True):
    """The operator chose a model for this agent; None: the configuration decides."""

    agent: AgentName
    model: str | None


class RecipientsAllowed(Event, frozen=True, kw_only=True):
    """The recipients that the running configuration allows; None: everyone."""

    agent: AgentName
    recipients: tuple[str, ...] | None


class BudgetSet(Event, frozen=True, kw_only=True):
    """The budget in the running configuration; None: no limit."""

    agent: AgentName
    budget: Budget | None


class BudgetReached(Event, frozen=True, kw_only=True):
    """The agent used its budget and is paused until the window has room."""

    agent: AgentName
    budget: Budget
    turns: int
    """Used within the window: metered by the broker, or reported by the harness where nothing was metered."""
    tokens: int
    dollars: float | None = None
    """Only of a budget in dollars."""
    until_ms: TimeMs


class BudgetFreed(Event, frozen=True, kw_only=True):
    """The window has room again or the budget was raised: the pause ends."""

    agent: AgentName


class ShareSet(Event, frozen=True, kw_only=True):
    """The share in the running configuration; None: the host's."""

    agent: AgentName
    share: Share | None


class Throttled(Event, frozen=True, kw_only=True):
    """Requests of the agent were refused because its share is used up. At most one event a minute."""

    agent: AgentName
    refused: int
    """Requests refused since the last such event that this daemon wrote."""
    share: Literal["events", "bytes", "traffic", "connections"]
    """What was used up at the first refusal."""
    told: bool = False
    """The operator was told in the same commit; at most once an hour."""


class LimitsSet(Event, frozen=True, kw_only=True):
    """The limits of the agent's runs from now on."""

    agent: AgentName
    limits: ContainerLimits


class DiskNearlyFull(Event, frozen=True, kw_only=True):
    """The agent's folders take 90 % of its disk limit."""

    agent: AgentName
    used_mb: int
    limit_mb: int


class DiskFull(Event, frozen=True, kw_only=True):
    """The agent's folders reached its disk limit. It is paused and its turn is cancelled; nothing is deleted."""

    agent: AgentName
    used_mb: int
    limit_mb: int


class DiskNoLongerFull(Event, frozen=True, kw_only=True):
    """The agent's folders take less again. This ends the pause of `DiskFull`."""

    agent: AgentName
    used_mb: int
    limit_mb: int


class Mounted(Event, frozen=True, kw_only=True):
    """The operator mounted a project folder; effective from the next start."""

    agent: AgentName
    host_path: str
    folder: str
    """Seen as `/work/<folder>`."""
    read_only: bool = False


class Unmounted(Event, frozen=True, kw_only=True):
    """The folder was unmounted."""

    agent: AgentName
    folder: str
