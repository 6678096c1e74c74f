"""Approvals: every pending one, every one under way, and the newest finished ones."""

from collections import deque

import msgspec

from hive.clock import TimeMs
from hive.events.agents import Rebuilt, Spawned
from hive.events.approvals import (
    KINDS,
    ApprovalFailed,
    ApprovalRequested,
    ApprovalResolved,
    Kind,
    ProposalPinned,
    Status,
)
from hive.events.base import ApprovalId, Seq
from hive.events.erasing import Erased, covers
from hive.events.texts import erased_value
from hive.names import AgentName
from hive.projections.table import Projection, Recorded, Table

OVER_KEPT = 500
"""Finished approvals kept as history; older ones are only in the log."""


class Approval(msgspec.Struct, frozen=True):
    """One request and its outcome."""

    id: ApprovalId
    agent: AgentName
    kind: Kind
    requester: AgentName
    commit_ref: str
    requested_ms: TimeMs
    status: Status = "pending"
    fetched_sha: str | None = None
    resolved_ms: TimeMs | None = None
    resolved_by: str | None = None
    note: str | None = None
    description: str | None = None
    carried_out: bool = False
    """Approved, and the change succeeded or failed."""
    host: str | None = None
    """Of kind `egress`."""
    port: int | None = None
    over_seq: Seq | None = None
    """The event that ended it; orders the history, since times can be equal."""


class Approvals(Projection):
    NAME = "approvals"
    VERSION = 4

    def __init__(self) -> None:
        self.all: Table[ApprovalId, Approval] = Table("approvals", Approval)
        self._over: deque[ApprovalId] = deque()

    def handlers(self) -> dict[type, object]:
        return {
            ApprovalRequested: self._on_requested,
            ProposalPinned: self._on_pinned,
            ApprovalResolved: self._on_resolved,
            ApprovalFailed: self._on_failed,
            Spawned: self._on_spawned,
            Rebuilt: self._on_rebuilt,
            Erased: self._on_erased,
        }

    def restored(self) -> None:
        over = [row for row in self.all if _is_over(row)]
        self._over = deque(row.id for row in sorted(over, key=lambda row: row.over_seq or 0))

    def pending(self) -> list[Approval]:
        """Pending approvals, by ascending id."""
        return sorted((row for row in self.all if row.status == "pending"), key=lambda row: row.id)

    def pending_commit(self, id: ApprovalId) -> tuple[AgentName, str] | None:
        """Agent and commit of a pending approval whose commit is pinned; None if it is no such approval."""
        row = self.all.get(id)
        if row is None or row.status != "pending" or row.fetched_sha is None or not KINDS[row.kind].has_commit:
            return None
        return row.agent, row.fetched_sha

    def pending_egress(self, agent: AgentName | None = None) -> list[Approval]:
        """Pending requests for hosts, of one agent or of all, by ascending id."""
        return [row for row in self.pending() if row.kind == "egress" and agent in (None, row.agent)]

    def under_way(self) -> list[Approval]:
        """Approved and not yet carried out, by ascending id."""
        rows = (row for row in self.all if row.status == "approved" and not row.carried_out)
        return sorted(rows, key=lambda row: row.id)

    def over(self) -> list[Approval]:
        """The newest finished ones, oldest first."""
        return [self.all[id] for id in self._over]

    def _on_requested(self, event: ApprovalRequested, recorded: Recorded) -> None:
        row = Approval(
            event.id,
            event.agent,
            event.kind,
            event.requester,
            event.commit_ref,
            recorded.at_ms,
            description=event.description,
            host=event.host,
            port=event.port,
        )
        self.all.put(event.id, row)

    def _on_pinned(self, event: ProposalPinned, _: Recorded) -> None:
        self.all.put(event.id, msgspec.structs.replace(self.all[event.id], fetched_sha=event.fetched_sha))

    def _on_resolved(self, event: ApprovalResolved, recorded: Recorded) -> None:
        row = msgspec.structs.replace(
            self.all[event.id],
            status=event.status,
            note=event.note,
            resolved_ms=recorded.at_ms,
            resolved_by=recorded.by,
            carried_out=KINDS[event.kind].is_immediate,
        )
        self._put(row, recorded)

    def _on_failed(self, event: ApprovalFailed, recorded: Recorded) -> None:
        row = self.all.get(event.id)
        if row is not None:
            failed = msgspec.structs.replace(row, status="failed", note=event.error, carried_out=True)
            self._put(failed, recorded)

    def _on_spawned(self, event: Spawned, recorded: Recorded) -> None:
        for row in self.under_way():
            if row.agent == event.agent and row.kind == "spawn":
                self._put(msgspec.structs.replace(row, carried_out=True), recorded)

    def _on_rebuilt(self, event: Rebuilt, recorded: Recorded) -> None:
        row = None if event.approval_id is None else self.all.get(event.approval_id)
        if row is not None and event.ok and row.status == "approved":
            self._put(msgspec.structs.replace(row, carried_out=True), recorded)

    def _on_erased(self, event: Erased, _: Recorded) -> None:
        for id, before in list(self.all.rows.items()):
            row = before
            if covers(event.approvals, id):
                description, host = erased_value(row.description), erased_value(row.host)
                row = msgspec.structs.replace(row, description=description, host=host)
            if covers(event.decisions, id):
                row = msgspec.structs.replace(row, note=erased_value(row.note))
            if row is not before:
                self.all.put(id, row)

    def _put(self, row: Approval, recorded: Recorded) -> None:
        if not _is_over(row) or row.over_seq is not None:
            self.all.put(row.id, row)
            return
        self.all.put(row.id, msgspec.structs.replace(row, over_seq=recorded.seq))
        self._over.append(row.id)
        if len(self._over) > OVER_KEPT:
            self.all.drop(self._over.popleft())


def _is_over(row: Approval) -> bool:
    return row.status in ("denied", "failed", "cancelled") or row.carried_out
