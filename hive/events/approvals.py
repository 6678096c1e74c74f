"""Facts about approvals. Written by the approval deciders; read by the approvals projection and the config pipeline."""

from typing import Literal

from hive.events.base import ApprovalId, Event
from hive.names import AgentName

Kind = Literal["spawn", "apply_commit", "egress"]
Status = Literal["pending", "approved", "denied", "failed", "cancelled"]


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
    status: Literal["approved", "denied", "failed", "cancelled"]
    note: str | None = None


class ApprovalFailed(Event, frozen=True, kw_only=True):
    """An approved request could not be carried out; its status becomes `failed`."""

    id: ApprovalId
    agent: AgentName
    error: str
