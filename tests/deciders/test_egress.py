"""Network rules: requests, decisions, denials that end, and metered use."""

from typing import Any, Final

import pytest

from hive.clock import rfc3339
from hive.deciders.approvals import Approve, Deny
from hive.deciders.destroy import RecordDestroyed
from hive.deciders.egress import (
    DENIED_FOR_MS,
    PENDING_OF_AGENT_MAX,
    AllowEgress,
    DenyEgress,
    RecordModelUse,
    ReportTry,
    RequestEgress,
    RevokeEgress,
    SetPrices,
)
from hive.errors import AlreadyDone, BadRequest, LimitReached, NotFound, Refused
from hive.events import AnyEvent, notices
from hive.events.agents import Destroyed
from hive.events.approvals import ApprovalRequested, ApprovalResolved
from hive.events.base import ApprovalId
from hive.events.egress import EgressAllowed, EgressDenied, EgressRevoked, ModelUsed, PricesSet
from hive.hosts import Entry
from hive.hosts import entry as parsed
from hive.turn_columns import Price

from .check import DAEMON_BY, MANAGED, NOW, OPERATOR_BY, by, check, told

TRY: Final = ReportTry(by=DAEMON_BY, agent="coder", host="pypi.example", port=443)
UNTIL: Final = NOW + DENIED_FOR_MS


def requested(id: int = 1, agent: str = "coder", **more: Any) -> ApprovalRequested:
    target = {"host": "pypi.example", "port": 443, **more}
    return ApprovalRequested(id=ApprovalId(id), agent=agent, kind="egress", requester=agent, **target)


def resolved(id: int, status: Any, agent: str = "coder", note: str | None = None) -> ApprovalResolved:
    return ApprovalResolved(id=ApprovalId(id), agent=agent, kind="egress", status=status, note=note)


def notice(id: int, status: str, agent: str = "coder", **more: Any) -> notices.ApprovalResolved:
    fields = {"note": None, "host": "pypi.example", "port": 443, **more}
    return notices.ApprovalResolved(id=ApprovalId(id), agent=agent, kind="egress", status=status, **fields)


REQUESTED: Final[list[AnyEvent]] = [*MANAGED, requested()]


def test_first_try_requests_the_host() -> None:
    check(given=MANAGED, when=TRY, then=[requested()], answer=1)


def test_further_tries_keep_one_request() -> None:
    check(given=REQUESTED, when=TRY, then=[], answer=1)
    other_port = ReportTry(by=DAEMON_BY, agent="coder", host="PYPI.example.", port=80)
    check(given=REQUESTED, when=other_port, then=[requested(2, port=80)], answer=2)


def test_try_of_a_listed_or_denied_host_requests_nothing() -> None:
    for rule in (
        EgressAllowed(host="pypi.example"),
        EgressAllowed(agent="coder", host="*.example", port=443),
        EgressDenied(agent="coder", host="pypi.example", until_ms=UNTIL),
    ):
        check(given=[*MANAGED, rule], when=TRY, then=[], answer=None)


def test_try_after_a_denial_has_ended_requests_again() -> None:
    denied = EgressDenied(agent="coder", host="pypi.example", port=443, until_ms=UNTIL)
    check(given=[*MANAGED, denied], when=TRY, then=[], at=UNTIL - 1)
    check(given=[*MANAGED, denied], when=TRY, then=[requested()], at=UNTIL)


def test_tries_of_unknown_agents_and_bad_hosts_are_ignored() -> None:
    for agent, host in (("nobody", "pypi.example"), ("coder", "not a host"), ("coder", "2130706433")):
        check(given=MANAGED, when=ReportTry(by=DAEMON_BY, agent=agent, host=host, port=1), then=[], answer=None)


def test_pending_requests_of_an_agent_are_limited() -> None:
    many = [requested(id, host=f"h{id}.example") for id in range(1, PENDING_OF_AGENT_MAX + 1)]
    check(given=[*MANAGED, *many], when=TRY, then=[], answer=None)
    ask = RequestEgress(by=by("coder"), agent="coder", host="pypi.example", why="pip")
    check(given=[*MANAGED, *many], when=ask, then=LimitReached)
    of_tester = ReportTry(by=DAEMON_BY, agent="tester", host="pypi.example", port=443)
    check(given=[*MANAGED, *many], when=of_tester, then=[requested(21, "tester")])


def test_agent_requests_a_host_with_a_reason() -> None:
    ask = RequestEgress(by=by("coder"), agent="coder", host="*.pypi.example", why="pip installs")
    row = requested(host="*.pypi.example", port=None, description="pip installs")
    check(given=MANAGED, when=ask, then=[row], answer=1)
    check(given=[*MANAGED, row], when=ask, then=[], answer=1)


def test_agent_request_is_refused_with_the_reason() -> None:
    def ask(host: str, why: str = "pip") -> RequestEgress:
        return RequestEgress(by=by("coder"), agent="coder", host=host, why=why)

    allowed, denied = EgressAllowed(host="a.example"), EgressDenied(agent="coder", host="d.example")
    check(given=[*MANAGED, allowed], when=ask("a.example:443"), then=AlreadyDone, says="may already connect")
    check(given=[*MANAGED, denied], when=ask("d.example"), then=Refused, says="The operator denied d.example")
    check(given=MANAGED, when=ask("x.example", " "), then=BadRequest, says="why")
    check(given=MANAGED, when=ask("https://x.example/"), then=BadRequest)


def test_approval_allows_the_host_for_the_agent() -> None:
    hive = check(
        given=REQUESTED,
        when=Approve(by=OPERATOR_BY, id=ApprovalId(1)),
        then=[
            resolved(1, "approved"),
            told(1, "coder", notice(1, "approved")),
            EgressAllowed(agent="coder", host="pypi.example", port=443, approval_id=ApprovalId(1)),
        ],
    )
    assert hive.egress.entries_for("coder", NOW).allows("pypi.example", 443)
    assert not hive.egress.entries_for("tester", NOW).allows("pypi.example", 443)
    assert not hive.approvals.under_way()


def test_approval_for_all_also_approves_the_other_requests_for_the_host() -> None:
    hive = check(
        given=[*REQUESTED, requested(2, "tester"), requested(3, "tester", host="other.example")],
        when=Approve(by=OPERATOR_BY, id=ApprovalId(1), for_all=True),
        then=[
            resolved(1, "approved"),
            told(1, "coder", notice(1, "approved")),
            EgressAllowed(host="pypi.example", port=443, approval_id=ApprovalId(1)),
            resolved(2, "approved", "tester", "by the rule for pypi.example:443"),
            told(2, "tester", notice(2, "approved", "tester", note="by the rule for pypi.example:443")),
        ],
    )
    assert hive.egress.entries_for("tester", NOW).allow == (Entry("pypi.example", 443),)
    assert [row.id for row in hive.approvals.pending()] == [3]


def test_other_approvals_cannot_be_for_all() -> None:
    spawn = ApprovalRequested(id=ApprovalId(1), agent="new", kind="spawn", requester="manager")
    check(given=[*MANAGED, spawn], when=Approve(by=OPERATOR_BY, id=ApprovalId(1), for_all=True), then=Refused)
    with_sha = Approve(by=OPERATOR_BY, id=ApprovalId(1), sha="a" * 40)
    check(given=REQUESTED, when=with_sha, then=Refused)


def test_denial_holds_for_a_day_and_the_agent_hears_of_it() -> None:
    hive = check(
        given=REQUESTED,
        when=Deny(by=OPERATOR_BY, id=ApprovalId(1), note="use the mirror"),
        then=[
            resolved(1, "denied", note="use the mirror"),
            told(1, "coder", notice(1, "denied", note="use the mirror", until=rfc3339(UNTIL))),
            EgressDenied(agent="coder", host="pypi.example", port=443, until_ms=UNTIL, approval_id=ApprovalId(1)),
        ],
    )
    assert hive.egress.entries_for("coder", UNTIL - 1).denies("pypi.example", 443)
    assert not hive.egress.entries_for("coder", UNTIL).denies("pypi.example", 443)
    assert hive.egress.next_end("coder", NOW) == UNTIL


def test_operator_rule_settles_the_requests_it_covers() -> None:
    allow = AllowEgress(by=OPERATOR_BY, entry="*.example", agent="coder")
    note = "by the rule for *.example"
    check(
        given=[*REQUESTED, requested(2, "tester")],
        when=allow,
        then=[
            EgressAllowed(agent="coder", host="*.example"),
            resolved(1, "approved", note=note),
            told(1, "coder", notice(1, "approved", note=note)),
        ],
    )
    deny = DenyEgress(by=OPERATOR_BY, entry="pypi.example")
    note = "by the rule for pypi.example"
    check(
        given=REQUESTED,
        when=deny,
        then=[
            EgressDenied(host="pypi.example"),
            resolved(1, "denied", note=note),
            told(1, "coder", notice(1, "denied", note=note)),
        ],
    )


def test_allowance_ends_temporary_denials_and_keeps_permanent_ones() -> None:
    temporary = EgressDenied(agent="coder", host="pypi.example", port=443, until_ms=UNTIL)
    permanent = EgressDenied(agent="tester", host="pypi.example")
    hive = check(
        given=[*MANAGED, temporary, permanent],
        when=AllowEgress(by=OPERATOR_BY, entry="pypi.example"),
        then=[EgressAllowed(host="pypi.example")],
    )
    assert hive.egress.entries_for("coder", NOW).allows("pypi.example", 443)
    assert not hive.egress.entries_for("tester", NOW).allows("pypi.example", 443)


def test_the_same_rule_twice_is_one_event() -> None:
    for event, command in (
        (EgressAllowed(host="a.example"), AllowEgress(by=OPERATOR_BY, entry="A.example")),
        (EgressDenied(host="a.example"), DenyEgress(by=OPERATOR_BY, entry="a.example")),
    ):
        check(given=[*MANAGED, event], when=command, then=[])


def test_revoked_rule_is_gone() -> None:
    revoke = RevokeEgress(by=OPERATOR_BY, entry="a.example:443", agent="coder")
    given = [*MANAGED, EgressAllowed(agent="coder", host="a.example", port=443)]
    gone = EgressRevoked(agent="coder", host="a.example", port=443)
    assert check(given=given, when=revoke, then=[gone]).egress.listed() == []
    check(given=MANAGED, when=revoke, then=NotFound, says="hive egress list")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("", "not a host name"),
        ("*", 'network.mode = "open"'),
        ("https://a.example", "a port is a number"),
        ("a.example/x", "without a scheme"),
        ("a.example:0", "a port is a number"),
        ("a.example:70000", "a port is a number"),
        ("*.192.0.2.7", "before an address"),
        ("127.1", "not a valid address"),
        ("0x7f000001", "not a valid address"),
        ("[::1", "bracket"),
        ("a..example", "not a host name"),
    ],
)
def test_bad_entry_is_refused_with_the_reason(entry: str, says: str) -> None:
    check(given=MANAGED, when=AllowEgress(by=OPERATOR_BY, entry=entry), then=BadRequest)
    with pytest.raises(BadRequest, match="(?i)" + says.replace(".", r"\.").replace("*", r"\*")):
        parsed(entry)


@pytest.mark.parametrize(
    ("text", "host", "port", "covered"),
    [
        ("Example.ORG.", "example.org", 1, True),
        ("example.org:443", "example.org", 443, True),
        ("example.org:443", "example.org", 80, False),
        ("*.example.org", "a.b.example.org", 443, True),
        ("*.example.org", "example.org", 443, False),
        ("*.example.org", "badexample.org", 443, False),
        ("bücher.example", "xn--bcher-kva.example", 443, True),
        ("[2001:DB8::7]:22", "2001:db8::7", 22, True),
        ("2001:db8::7", "2001:db8::7", 22, True),
        ("::ffff:192.0.2.7", "192.0.2.7", 22, True),
    ],
)
def test_entry_covers_hosts_in_their_canonical_spelling(text: str, host: str, port: int, covered: bool) -> None:
    assert parsed(text).covers(host, port) is covered


def test_destroyed_agent_leaves_no_request_and_no_rule() -> None:
    given = [*REQUESTED, EgressAllowed(agent="coder", host="a.example"), EgressAllowed(host="b.example")]
    destroyed = notices.Destroyed(agent="coder", unread=0)
    hive = check(
        given=given,
        when=RecordDestroyed(by=DAEMON_BY, agent="coder", purge=False),
        then=[
            Destroyed(agent="coder", purge=False),
            resolved(1, "cancelled", note="coder was destroyed"),
            told(1, "operator", destroyed),
            told(2, "manager", destroyed),
        ],
    )
    assert hive.approvals.pending() == []
    assert [rule.host for rule in hive.egress.listed()] == ["b.example"]


def test_metered_use_is_recorded_within_limits() -> None:
    told = ModelUsed(agent="coder", model="claude-x", requests=2, input_tokens=9, output_tokens=-4)
    use = RecordModelUse(by=DAEMON_BY, used=told)
    used = ModelUsed(agent="coder", model="claude-x", requests=2, input_tokens=9)
    hive = check(given=MANAGED, when=use, then=[used])
    assert hive.usage.metered("coder", NOW // 3_600_000)["claude-x"].input_tokens == 9
    check(given=MANAGED, when=RecordModelUse(by=DAEMON_BY, used=ModelUsed(agent="coder", model="claude-x")), then=[])
    check(
        given=MANAGED, when=RecordModelUse(by=DAEMON_BY, used=ModelUsed(agent="nobody", model="x", requests=1)), then=[]
    )


def test_model_names_of_an_agent_are_limited() -> None:
    many = [ModelUsed(agent="coder", model=f"m{number}", requests=1) for number in range(20)]
    use = RecordModelUse(by=DAEMON_BY, used=ModelUsed(agent="coder", model="m20", requests=1))
    check(given=[*MANAGED, *many], when=use, then=[ModelUsed(agent="coder", model="other", requests=1)])


def test_prices_are_recorded_when_they_change() -> None:
    prices = {"claude-x": Price(input=3.0)}
    command = SetPrices(by=DAEMON_BY, prices=prices)
    check(given=MANAGED, when=command, then=[PricesSet(prices=prices)])
    check(given=[*MANAGED, PricesSet(prices=prices)], when=command, then=[])
    for bad in (-1.0, float("nan")):
        check(given=MANAGED, when=SetPrices(by=DAEMON_BY, prices={"x": Price(input=bad)}), then=BadRequest)
