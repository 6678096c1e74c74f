"""The network rules, per agent and for all agents. Read by the egress deciders, the broker and the screens."""

from typing import NamedTuple

import msgspec

from hive.clock import TimeMs
from hive.events.agents import Destroyed
from hive.events.base import ApprovalId
from hive.events.egress import EgressAllowed, EgressDenied, EgressRevoked
from hive.events.erasing import Erased, covers
from hive.events.texts import ERASED
from hive.hosts import Entry, is_covered
from hive.names import AgentName
from hive.projections.table import Projection, Recorded, Table

ALL_AGENTS = ""
"""The agent of a rule for every agent; no agent can have this name."""
ANY_PORT = 0
"""The port of a rule for every port."""


class Rule(msgspec.Struct, frozen=True):
    """One rule. A denial overrides every allowance."""

    agent: str
    """`ALL_AGENTS` or an agent's name."""
    host: str
    port: int
    """`ANY_PORT` or a port."""
    allowed: bool
    since_ms: TimeMs
    by: str
    until_ms: TimeMs | None = None
    """When a denial ends; None: until revoked."""
    approval_id: ApprovalId | None = None

    @property
    def entry(self) -> Entry:
        return Entry(self.host, None if self.port == ANY_PORT else self.port)

    def holds(self, now: TimeMs) -> bool:
        return self.until_ms is None or now < self.until_ms


class Entries(NamedTuple):
    """The rules that are valid for one agent. An entry in `deny` overrides `allow` and the lists in the settings."""

    allow: tuple[Entry, ...]
    deny: tuple[Entry, ...]

    def allows(self, host: str, port: int | None) -> bool:
        return is_covered(self.allow, host, port) and not self.denies(host, port)

    def denies(self, host: str, port: int | None) -> bool:
        return is_covered(self.deny, host, port)


Key = tuple[str, str, int]


class Egress(Projection):
    NAME = "egress"
    VERSION = 2

    def __init__(self) -> None:
        self.rules: Table[Key, Rule] = Table("egress_rules", Rule, key_parts=3)

    def handlers(self) -> dict[type, object]:
        return {
            EgressAllowed: self._on_allowed,
            EgressDenied: self._on_denied,
            EgressRevoked: lambda event, _: self.rules.drop(key_of(event.agent, Entry(event.host, event.port))),
            Destroyed: self._on_destroyed,
            Erased: self._on_erased,
        }

    def listed(self, agent: AgentName | None = None) -> list[Rule]:
        """Every rule, or those that are valid for one agent, in a fixed order."""
        wanted = None if agent is None else (ALL_AGENTS, agent)
        return [rule for _, rule in sorted(self.rules.rows.items()) if wanted is None or rule.agent in wanted]

    def entries_for(self, agent: AgentName, now: TimeMs) -> Entries:
        """The allow and deny entries that are valid for an agent now."""
        valid = [rule for rule in self.listed(agent) if rule.holds(now)]
        allow = tuple(rule.entry for rule in valid if rule.allowed)
        return Entries(allow, tuple(rule.entry for rule in valid if not rule.allowed))

    def next_end(self, agent: AgentName, now: TimeMs) -> TimeMs | None:
        """When the next temporary denial of an agent ends; None if there is none."""
        return min((rule.until_ms for rule in self.listed(agent) if rule.until_ms and rule.holds(now)), default=None)

    def _on_erased(self, event: Erased, _: Recorded) -> None:
        """An erased request takes its rule with it; with older texts, rules stay."""
        if event.subject == "older_than":
            return
        for key, rule in list(self.rules.rows.items()):
            if rule.approval_id is not None and covers(event.approvals, rule.approval_id):
                self.rules.drop(key)

    def _on_allowed(self, event: EgressAllowed, recorded: Recorded) -> None:
        entry = Entry(event.host, event.port)
        for key, rule in list(self.rules.rows.items()):
            is_ended = rule.until_ms is not None and entry.covers(rule.host, rule.entry.port)
            if is_ended and event.agent in (None, rule.agent):
                self.rules.drop(key)
        self._put(event, recorded, allowed=True)

    def _on_denied(self, event: EgressDenied, recorded: Recorded) -> None:
        for key, rule in list(self.rules.rows.items()):
            if not rule.holds(recorded.at_ms):
                self.rules.drop(key)
        self._put(event, recorded, allowed=False, until_ms=event.until_ms)

    def _put(
        self, event: EgressAllowed | EgressDenied, recorded: Recorded, *, allowed: bool, until_ms: TimeMs | None = None
    ) -> None:
        if event.host == ERASED:
            return
        key = key_of(event.agent, Entry(event.host, event.port))
        rule = Rule(*key, allowed, recorded.at_ms, recorded.by, until_ms=until_ms, approval_id=event.approval_id)
        self.rules.put(key, rule)

    def _on_destroyed(self, event: Destroyed, _: Recorded) -> None:
        for key in [key for key in self.rules.rows if key[0] == event.agent]:
            self.rules.drop(key)


def key_of(agent: AgentName | None, entry: Entry) -> Key:
    """The key of the rule for an entry."""
    return (agent or ALL_AGENTS, entry.host, entry.port or ANY_PORT)
