"""Facts about approvals. Written by the approval deciders; read by the approvals projection and the config pipeline."""

from typing import Literal

from hive.events.base import ApprovalId, Event
from hive.names import AgentName

Kind = Literal["spawn", "apply_commit"]
Status = Literal["pending", "approved", "denied", "failed", "cancelled"]


class ApprovalRequested(Event, frozen=True, kw_only=True):
    """Something waits for the operator's decision."""

    id: ApprovalId
    agent: AgentName
    """Whom it is about."""
    kind: Kind
    requester: AgentName
    commit_ref: str = ""
    """What was asked for, as it was named; empty for a spawn."""
    description: str | None = None


class ProposalPinned(Event, frozen=True, kw_only=True):
    """The proposed commit is in `applied` under `refs/tags/proposal/<id>`; from here on it cannot change."""

    id: ApprovalId
    agent: AgentName
    fetched_sha: str
    """40 hex digits."""


class ApprovalResolved(Event, frozen=True, kw_only=True):
    """The one decision a request has."""

    id: ApprovalId
    agent: AgentName
    kind: Kind
    status: Literal["approved", "denied", "failed", "cancelled"]
    note: str | None = None


class ApprovalFailed(Event, frozen=True, kw_only=True):
    """What was approved could not be done; the approval's status is `failed` from here on."""

    id: ApprovalId
    agent: AgentName
    error: str
