"""Facts about the network: rules for hosts, and metered model use. Read by the egress and usage projections."""

from hive.clock import TimeMs
from hive.events.base import ApprovalId, Event
from hive.names import AgentName
from hive.turn_columns import MeteredUse, Price


class EgressAllowed(Event, frozen=True, kw_only=True, omit_defaults=False):
    """Agents may connect to this host. Ends temporary denials of it, and replaces a rule for the same entry."""

    agent: AgentName | None = None
    """None: every agent."""
    host: str
    """A canonical host name, `*.domain`, or an IP address."""
    port: int | None = None
    """None: every port."""
    approval_id: ApprovalId | None = None
    """The approval that asked for it, if one did."""


class EgressDenied(Event, frozen=True, kw_only=True, omit_defaults=False):
    """Agents may not connect to this host. A denial overrides every allowance."""

    agent: AgentName | None = None
    host: str
    port: int | None = None
    until_ms: TimeMs | None = None
    """When the denial ends, and a try asks the operator again; None: it holds until revoked."""
    approval_id: ApprovalId | None = None


class EgressRevoked(Event, frozen=True, kw_only=True, omit_defaults=False):
    """The rule for this entry no longer exists."""

    agent: AgentName | None = None
    host: str
    port: int | None = None


class ModelUsed(MeteredUse, Event, frozen=True, omit_defaults=False):
    """Model requests of an agent since the previous event for this model, as the broker metered them."""

    agent: AgentName
    model: str


class PricesSet(Event, frozen=True, kw_only=True, omit_defaults=False):
    """The prices in `hive.toml` changed. Costs and `budget_usd` are computed from the newest prices."""

    prices: dict[str, Price]
    """By model."""
