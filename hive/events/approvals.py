"""Facts about approvals. Written by the approval deciders; read by the approvals projection and the config pipeline."""

from typing import Final, Literal

import msgspec

from hive.events.base import ApprovalId, Event
from hive.names import AgentName

Kind = Literal["spawn", "apply_commit", "egress"]
Outcome = Literal["approved", "denied", "failed", "cancelled"]
Status = Literal["pending"] | Outcome


class KindOfApproval(msgspec.Struct, frozen=True, kw_only=True):
    """What readers and screens know about a kind of request. Its rules are in `deciders/approvals.py`."""

    label: str
    button: str = "Approve"
    """`{agent}` is the agent that the request is about."""
    has_commit: bool = False
    """The request is about a commit. Only a pinned one can be approved."""
    is_for_new_agent: bool = False
    can_be_for_all: bool = False
    """The operator may approve it for every agent."""
    is_immediate: bool = False
    """The commit of the decision also carries it out."""
    carried_out_by: tuple[str, ...]
    """The last event of what an approval starts."""


KINDS: Final[dict[Kind, KindOfApproval]] = {
    "spawn": KindOfApproval(label="spawn", is_for_new_agent=True, carried_out_by=("Spawned", "ActFailed")),
    "apply_commit": KindOfApproval(label="apply commit", has_commit=True, carried_out_by=("Started", "ActFailed")),
    "egress": KindOfApproval(
        label="egress",
        button="Allow for {agent}",
        can_be_for_all=True,
        is_immediate=True,
        carried_out_by=("EgressAllowed", "EgressDenied", "EgressRevoked"),
    ),
}


class ApprovalRequested(Event, frozen=True, kw_only=True):
    """A request waits for the operator's decision."""

    id: ApprovalId
    agent: AgentName
    """The agent that the request is about."""
    kind: Kind
    requester: AgentName
    commit_ref: str = ""
    """What was asked for, as it was named; empty unless the kind is `apply_commit`."""
    description: str | None = None
    host: str | None = None
    """Of kind `egress`: the host that the agent wants to reach."""
    port: int | None = None
    """Of kind `egress`; None: every port."""


class ProposalPinned(Event, frozen=True, kw_only=True):
    """The proposed commit is in `applied` as `refs/tags/proposal/<id>` and cannot change any more."""

    id: ApprovalId
    agent: AgentName
    fetched_sha: str
    """40 hex digits."""


class ApprovalResolved(Event, frozen=True, kw_only=True):
    """The only decision on a request."""

    id: ApprovalId
    agent: AgentName
    kind: Kind
    status: Outcome
    note: str | None = None


class ApprovalFailed(Event, frozen=True, kw_only=True):
    """An approved request could not be carried out; its status becomes `failed`."""

    id: ApprovalId
    agent: AgentName
    error: str
