"""The rules of the network: who may reach which host, requests to the operator, and metered model use."""

import msgspec

from hive.clock import DurationMs, TimeMs, rfc3339
from hive.deciders.base import Answered, Command, Decision, DecisionBuilder, checked_label, checked_text, living
from hive.deciders.budgets import enforce_budget
from hive.errors import AlreadyDone, BadRequest, LimitReached, NotFound, Refused
from hive.events import notices
from hive.events.approvals import ApprovalRequested, ApprovalResolved, Outcome
from hive.events.base import ApprovalId
from hive.events.egress import EgressAllowed, EgressDenied, EgressRevoked, ModelUsed, PricesSet
from hive.events.texts import ERASED
from hive.hosts import Entry, canonical
from hive.hosts import entry as parsed
from hive.names import AgentName
from hive.projections.approvals import Approval
from hive.projections.egress import Rule, key_of
from hive.projections.hive import Hive
from hive.projections.turns import HOUR_MS, counted_model
from hive.turn_columns import METERED, Price

DENIED_FOR_MS: DurationMs = 24 * 3_600_000
"""How long a denied host is not asked for again."""
RULES_MAX = 2_000
"""Rules of one hive."""
PENDING_OF_AGENT_MAX = 20
"""Pending requests of one agent; beyond it, tries make no further requests."""
COUNT_MAX = 10**12
"""The largest count of one event; sums of such counts fit 64 bits."""
PRICE_MAX = 1_000_000
"""Dollars per million tokens."""
PENDING_MAX = 200
"""Pending requests of all agents."""


class AllowEgress(Command, frozen=True, kw_only=True):
    """The operator's. `entry` is HOST, HOST:PORT or *.DOMAIN; without `agent`, the rule is for every agent."""

    entry: str
    agent: AgentName | None = None


class DenyEgress(Command, frozen=True, kw_only=True):
    """The operator's. Holds until it is revoked."""

    entry: str
    agent: AgentName | None = None


class RevokeEgress(Command, frozen=True, kw_only=True):
    """The operator's. Removes an allowance or a denial."""

    entry: str
    agent: AgentName | None = None


class ReportTry(Command, frozen=True, kw_only=True):
    """The broker's, under mode `ask`: an agent tried a host that no rule and no setting lists."""

    agent: AgentName
    host: str
    port: int


class RequestEgress(Command, frozen=True, kw_only=True):
    """The agent's: asks the operator for a host before it tries it."""

    agent: AgentName
    host: str
    """HOST, HOST:PORT or *.DOMAIN."""
    why: str


class RecordModelUse(Command, frozen=True, kw_only=True):
    """The broker's: what was metered since the last command for this model."""

    used: ModelUsed


class SetPrices(Command, frozen=True, kw_only=True):
    """The prices in `hive.toml` were read."""

    prices: dict[str, Price]


def allow_egress(command: AllowEgress, hive: Hive, now: TimeMs) -> Decision:
    """Allow a host, and approve the pending requests that the rule covers.

    Raises:
        BadRequest: a bad entry. NotFound: no such agent. LimitReached.
    """
    entry, rule = _named(command, hive)
    decision = DecisionBuilder(hive, now)
    if rule is None or not rule.allowed:
        _refuse_more(hive, rule)
        decision.add(EgressAllowed(agent=command.agent, host=entry.host, port=entry.port))
    settle(decision, command.agent, entry, "approved")
    return decision.events


def deny_egress(command: DenyEgress, hive: Hive, now: TimeMs) -> Decision:
    """Deny a host until the rule is revoked, and deny the pending requests that the rule covers.

    Raises:
        BadRequest: a bad entry. NotFound: no such agent. LimitReached.
    """
    entry, rule = _named(command, hive)
    decision = DecisionBuilder(hive, now)
    if rule is None or rule.allowed or rule.until_ms is not None:
        _refuse_more(hive, rule)
        decision.add(EgressDenied(agent=command.agent, host=entry.host, port=entry.port))
    settle(decision, command.agent, entry, "denied")
    return decision.events


def revoke_egress(command: RevokeEgress, hive: Hive, _: TimeMs) -> Decision:
    """Remove a rule.

    Raises:
        BadRequest: a bad entry. NotFound: no such rule.
    """
    entry, rule = _named(command, hive)
    if rule is None:
        whose = f"agent {command.agent}" if command.agent else "all agents"
        raise NotFound(f"There is no rule for {entry} of {whose}. `hive egress list` shows the rules.")
    return [EgressRevoked(agent=command.agent, host=entry.host, port=entry.port)]


def report_try(command: ReportTry, hive: Hive, now: TimeMs) -> Decision:
    """Request the host from the operator, once however often the agent tries. Never refuses.

    The answer is the id of the pending request, or None where there is none.
    """
    try:
        entry = Entry(canonical(command.host), command.port)
    except BadRequest:
        return Answered([], None)
    known = hive.egress.entries_for(command.agent, now)
    is_decided = known.allows(entry.host, entry.port) or known.denies(entry.host, entry.port)
    if hive.agents.living_one(command.agent) is None or is_decided:
        return Answered([], None)
    waiting = _waiting_for(hive, command.agent, entry)
    if waiting is not None:
        return Answered([], waiting.id)
    if _has_too_many(hive, command.agent):
        return Answered([], None)
    requested = _requested(hive, command.agent, entry, None)
    return Answered([requested], requested.id)


def request_egress(command: RequestEgress, hive: Hive, now: TimeMs) -> Decision:
    """Request a host from the operator. The answer is the id of the request; a pending one is answered again.

    Raises:
        BadRequest: a bad entry or no reason. AlreadyDone: the host is allowed. Refused: it is denied. LimitReached.
    """
    name, entry = living(hive, command.agent).name, parsed(command.host)
    checked_text(command.why, "why")
    checked_label(command.why, "why")
    known = hive.egress.entries_for(name, now)
    if known.denies(entry.host, entry.port):
        raise Refused(f"The operator denied {entry} for {name}. Work without it, or ask the operator in a question.")
    if known.allows(entry.host, entry.port):
        raise AlreadyDone(f"{name} may already connect to {entry}.")
    waiting = _waiting_for(hive, name, entry)
    if waiting is not None:
        return Answered([], waiting.id)
    if _has_too_many(hive, name):
        raise LimitReached(f"{PENDING_OF_AGENT_MAX} requests of {name} wait for the operator. Wait for a decision.")
    requested = _requested(hive, name, entry, command.why)
    return Answered([requested], requested.id)


def record_model_use(command: RecordModelUse, hive: Hive, now: TimeMs) -> Decision:
    """Record metered use; use that exhausts the budget pauses the agent in the same commit."""
    row = hive.agents.living_one(command.used.agent)
    used = _bounded(command.used, hive, now)
    if row is None or used == ModelUsed(agent=used.agent, model=used.model):
        return []
    decision = DecisionBuilder(hive, now)
    decision.add(used)
    enforce_budget(decision, row, row.budget, used=[used])
    return decision.events


def set_prices(command: SetPrices, hive: Hive, now: TimeMs) -> Decision:
    """Record changed prices; a budget in dollars that is used up at the new prices pauses its agent.

    Raises:
        BadRequest: a price that is negative or not a number.
    """
    for model, price in command.prices.items():
        for dollars in msgspec.structs.astuple(price):
            if dollars is not None and not 0 <= dollars <= PRICE_MAX:
                raise BadRequest(f"The price of {model!r} is not between 0 and {PRICE_MAX}.")
    if command.prices == hive.usage.prices:
        return []
    decision = DecisionBuilder(hive, now)
    decision.add(PricesSet(prices=command.prices))
    for row in hive.agents.living():
        if row.budget is not None and row.budget.usd is not None:
            enforce_budget(decision, row, row.budget, prices=command.prices)
    return decision.events


def approve_one(decision: DecisionBuilder, row: Approval, for_all: bool) -> None:
    """Carry out an approved request: add the rule, and approve the other pending requests that it covers.

    Raises:
        Refused: the host was erased.
    """
    if row.host == ERASED:
        raise Refused(f"The host of approval {row.id} was erased. Deny it; the agent can ask again.")
    entry = Entry(row.host or "", row.port)
    agent = None if for_all else row.agent
    decision.add(EgressAllowed(agent=agent, host=entry.host, port=entry.port, approval_id=row.id))
    settle(decision, agent, entry, "approved", but=row.id)


def deny_one(decision: DecisionBuilder, row: Approval) -> None:
    """Carry out a denied request: the host is not asked for again for a day, unless it was erased."""
    if row.host == ERASED:
        return
    until = decision.now + DENIED_FOR_MS
    denied = EgressDenied(agent=row.agent, host=row.host or "", port=row.port, until_ms=until, approval_id=row.id)
    decision.add(denied)


def settle(
    decision: DecisionBuilder, agent: AgentName | None, entry: Entry, status: Outcome, but: ApprovalId | None = None
) -> None:
    """Resolve the pending requests that a rule covers, and notify their agents."""
    for row in decision.hive.approvals.pending_egress(agent):
        if row.id != but and entry.covers(row.host or "", row.port):
            note = f"by the rule for {entry}"
            decision.add(ApprovalResolved(id=row.id, agent=row.agent, kind=row.kind, status=status, note=note))
            _tell(decision, row, status, note, None)


def tell_agent(decision: DecisionBuilder, row: Approval, status: Outcome, note: str | None) -> None:
    """The agent that asked hears of the decision."""
    _tell(decision, row, status, note, decision.now + DENIED_FOR_MS if status == "denied" else None)


def _tell(
    decision: DecisionBuilder, row: Approval, status: Outcome, note: str | None, denied_until: TimeMs | None
) -> None:
    if status == "cancelled":  # The agent was destroyed.
        return
    until = None if denied_until is None else rfc3339(denied_until)
    notice = notices.ApprovalResolved(
        id=row.id, agent=row.agent, kind=row.kind, status=status, note=note, host=row.host, port=row.port, until=until
    )
    decision.tell(row.agent, notice)


def _named(command: AllowEgress | DenyEgress | RevokeEgress, hive: Hive) -> tuple[Entry, Rule | None]:
    entry = parsed(command.entry)
    if command.agent is not None:
        living(hive, command.agent)
    return entry, hive.egress.rules.get(key_of(command.agent, entry))


def _refuse_more(hive: Hive, replaced: Rule | None) -> None:
    if replaced is None and len(hive.egress.rules) >= RULES_MAX:
        raise LimitReached(f"This hive has {RULES_MAX} network rules. Revoke some first, or use *.DOMAIN entries.")


def _waiting_for(hive: Hive, agent: AgentName, entry: Entry) -> Approval | None:
    """The pending request of an agent that covers an entry."""
    for row in hive.approvals.pending_egress(agent):
        if Entry(row.host or "", row.port).covers(entry.host, entry.port):
            return row
    return None


def _has_too_many(hive: Hive, agent: AgentName) -> bool:
    of_agent = len(hive.approvals.pending_egress(agent))
    return of_agent >= PENDING_OF_AGENT_MAX or len(hive.approvals.pending_egress()) >= PENDING_MAX


def _requested(hive: Hive, agent: AgentName, entry: Entry, why: str | None) -> ApprovalRequested:
    return ApprovalRequested(
        id=hive.ids.next_approval(),
        agent=agent,
        kind="egress",
        requester=agent,
        description=why,
        host=entry.host,
        port=entry.port,
    )


def _count(figure: int) -> int:
    return min(max(figure, 0), COUNT_MAX)


def _bounded(used: ModelUsed, hive: Hive, now: TimeMs) -> ModelUsed:
    """Agents influence these figures, so the counts and the number of model names are limited."""
    model = counted_model(used.model, hive.usage.metered(used.agent, now // HOUR_MS))
    return msgspec.structs.replace(used, model=model, **{name: _count(getattr(used, name)) for name in METERED})
