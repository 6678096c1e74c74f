"""The rules: pure functions from a command and the state to events or a refusal. Called only by the journal."""

from collections.abc import Callable
from typing import Any, Final

from hive.clock import TimeMs
from hive.deciders import (
    adoption,
    approvals,
    axes,
    budgets,
    controls,
    destroy,
    disk,
    egress,
    erasing,
    lifecycle,
    messages,
    moves,
    questions,
    record,
    reminders,
    roster,
    swarm,
    throttling,
)
from hive.deciders.base import Command, Decision
from hive.projections.hive import Hive

Rule = Callable[[Any, Hive, TimeMs], Decision]

RULES: Final[dict[type[Command], Rule]] = {
    messages.Send: messages.send,
    messages.Recv: messages.recv,
    messages.Ack: messages.ack,
    messages.Requeue: messages.requeue,
    messages.Hello: messages.hello,
    questions.Ask: questions.ask,
    questions.Answer: questions.answer,
    questions.Cancel: questions.cancel,
    questions.Expire: questions.expire,
    approvals.RequestSpawn: approvals.request_spawn,
    approvals.RequestCommit: approvals.request_commit,
    approvals.Pin: approvals.pin,
    approvals.FailRequest: approvals.fail_request,
    approvals.Approve: approvals.approve,
    approvals.Deny: approvals.deny,
    approvals.Withdraw: approvals.withdraw,
    roster.Spawn: roster.spawn,
    roster.Revive: roster.revive,
    destroy.RecordDestroyed: destroy.record_destroyed,
    roster.RecordPurged: roster.record_purged,
    lifecycle.BeginAct: lifecycle.begin_act,
    lifecycle.RecordStarted: lifecycle.record_started,
    lifecycle.RecordStopped: lifecycle.record_stopped,
    lifecycle.RecordKilled: lifecycle.record_killed,
    lifecycle.RecordCrash: lifecycle.record_crash,
    lifecycle.RecordRebuilt: lifecycle.record_rebuilt,
    lifecycle.RecordActFailed: lifecycle.record_act_failed,
    axes.Look: axes.look,
    axes.ReportLogin: axes.report_login,
    axes.ReportRateLimit: axes.report_rate_limit,
    axes.SetStatus: axes.set_status,
    budgets.CheckBudget: budgets.check_budget,
    egress.AllowEgress: egress.allow_egress,
    egress.DenyEgress: egress.deny_egress,
    egress.RevokeEgress: egress.revoke_egress,
    egress.ReportTry: egress.report_try,
    egress.RequestEgress: egress.request_egress,
    egress.RecordModelUse: egress.record_model_use,
    egress.SetPrices: egress.set_prices,
    throttling.RecordThrottled: throttling.record_throttled,
    throttling.RecordDisk: throttling.record_disk,
    disk.RecordDiskUse: disk.record_disk_use,
    controls.SetPaused: controls.set_paused,
    controls.SetModel: controls.set_model,
    controls.Mount: controls.mount,
    controls.Unmount: controls.unmount,
    controls.AddOperator: controls.add_operator,
    controls.RevokeOperator: controls.revoke_operator,
    controls.SignIn: controls.sign_in,
    controls.RefuseSignIn: controls.refuse_sign_in,
    reminders.Remind: reminders.remind,
    reminders.Fire: reminders.fire,
    record.StartTurn: record.start_turn,
    record.EndTurn: record.end_turn,
    record.SetTransient: record.set_transient,
    record.ClearTransient: record.clear_transient,
    record.Boot: record.boot,
    record.Shut: record.shut,
    record.Warn: record.warn,
    record.RecordNotification: record.record_notification,
    adoption.Adopt: adoption.adopt,
    adoption.BeginAdoption: adoption.begin_adoption,
    adoption.EndAdoption: adoption.end_adoption,
    adoption.SeeClaims: adoption.see_claims,
    adoption.EndAdopted: adoption.end_adopted,
    moves.BeginMove: moves.begin_move,
    moves.SendMove: moves.send_move,
    moves.FailMove: moves.fail_move,
    moves.FinishMove: moves.finish_move,
    swarm.SetPeers: swarm.set_peers,
    swarm.Receive: swarm.receive,
    swarm.RefuseEnvelope: swarm.refuse_envelope,
    swarm.TakeReceipt: swarm.take_receipt,
    swarm.DecideThere: swarm.decide_there,
    erasing.Erase: erasing.erase,
    erasing.FinishErasure: erasing.finish_erasure,
}
"""Every command and its rule."""


def decide(command: Command, hive: Hive, now: TimeMs) -> Decision:
    """Decide a command in this state.

    Raises:
        Refused, or one of its kinds: nothing changes.
    """
    return RULES[type(command)](command, hive, now)
