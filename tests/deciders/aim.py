"""Points random commands at existing ids and names, so that random histories reach deep states."""

from typing import Any, Final

import msgspec

from hive.deciders import RULES
from hive.deciders.approvals import Approve, Deny, FailRequest, Pin, Withdraw
from hive.deciders.base import Command
from hive.deciders.controls import RevokeOperator, SetPaused, Unmount
from hive.deciders.lifecycle import RecordCrash
from hive.deciders.messages import Ack, Recv, Requeue, Send
from hive.deciders.questions import Answer, Cancel, Expire
from hive.deciders.record import ClearTransient
from hive.deciders.reminders import Fire
from hive.deciders.roster import RecordPurged, Revive
from hive.projections.hive import Hive

AIMED: Final = (
    Send,
    Recv,
    Ack,
    Requeue,
    Answer,
    Cancel,
    Expire,
    Pin,
    FailRequest,
    Approve,
    Deny,
    Withdraw,
    Fire,
    Revive,
    RecordPurged,
    RecordCrash,
    ClearTransient,
    Unmount,
    RevokeOperator,
    SetPaused,
)
assert set(AIMED) <= set(RULES)


def aim(command: Command, hive: Hive, pick: int) -> Command:
    """The same command with an existing id or name, if there is one."""
    targets = _targets(command, hive)
    if not targets:
        return command
    return msgspec.structs.replace(command, **targets[pick % len(targets)])


def _targets(command: Command, hive: Hive) -> list[dict[str, Any]]:  # noqa: PLR0911  # One line a command.
    match command:
        case Ack() | Requeue():
            flying = [message for message in hive.messages.open if message.state == "in_flight"]
            return [{"agent": message.to, "ids": (message.id,)} for message in flying]
        case Recv():
            return [{"agent": message.to} for message in hive.messages.open if message.state == "waiting"]
        case Send() | SetPaused():
            name = "to" if isinstance(command, Send) else "agent"
            return [{name: row.name} for row in hive.agents.living()]
        case Answer() | Cancel() | Expire():
            return [{"id": row.id} for row in hive.questions.pending()]
        case Pin() | Deny() | Withdraw():
            return [{"id": row.id} for row in hive.approvals.pending()]
        case Approve():
            return [{"id": row.id, "sha": row.fetched_sha} for row in hive.approvals.pending()]
        case FailRequest():
            return [{"id": row.id} for row in [*hive.approvals.pending(), *hive.approvals.under_way()]]
        case Fire():
            return [{"id": row.id} for row in hive.reminders.pending]
        case Revive() | RecordPurged():
            return [{"agent": row.name} for row in hive.agents.tombstones()]
        case RecordCrash():
            return [{"agent": row.name, "incarnation": row.incarnation} for row in hive.agents.living() if row.running]
        case ClearTransient():
            return [{"agent": row.agent, "kind": row.kind} for row in hive.transient.held]
        case Unmount():
            return [{"agent": row.agent, "path": row.folder} for row in hive.agents.mounts]
        case RevokeOperator():
            return [{"name": row.name} for row in hive.operators.all if row.revoked_ms is None]
        case _:
            return []
