"""Facts about the network: rules for hosts, and metered model use. Read by the egress and usage projections."""

import msgspec

from hive.clock import TimeMs
from hive.events.base import ApprovalId, Event
from hive.names import AgentName


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


class ModelUsed(Event, frozen=True, kw_only=True, omit_defaults=False):
    """Model requests of an agent since the previous event for this model, as the broker metered them."""

    agent: AgentName
    model: str
    requests: int = 0
    """Every request that got an answer, including failed ones."""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    errors: int = 0
    """Requests that the provider answered with an error."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars per million tokens of each kind; None is unknown."""

    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None


class PricesSet(Event, frozen=True, kw_only=True, omit_defaults=False):
    """The prices in `hive.toml` changed. Costs and `budget_usd` are computed from the newest prices."""

    prices: dict[str, Price]
    """By model."""
