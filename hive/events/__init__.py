"""The event types, a closed union, and the append-only log that stores them."""

from typing import Final, get_args

from hive.events import (
    agents,
    approvals,
    daemon,
    egress,
    erasing,
    messages,
    moves,
    notifications,
    operators,
    questions,
    reminders,
    swarm,
    transient,
    turns,
)
from hive.events.base import Event

AnyEvent = (
    messages.MessageSent
    | messages.MessageDelivered
    | messages.MessageAcked
    | messages.MessageRequeued
    | messages.MessageDead
    | messages.SendRefused
    | questions.QuestionAdded
    | questions.QuestionResolved
    | approvals.ApprovalRequested
    | approvals.ProposalPinned
    | approvals.ApprovalResolved
    | approvals.ApprovalFailed
    | agents.AgentAdded
    | agents.ActDecided
    | agents.ActFailed
    | agents.Spawned
    | agents.Started
    | agents.Stopped
    | agents.Killed
    | agents.Crashed
    | agents.Rebuilt
    | agents.Destroyed
    | agents.Purged
    | agents.Revived
    | agents.Paused
    | agents.Resumed
    | agents.NeedsLogin
    | agents.LoggedIn
    | agents.NeedsUpdate
    | agents.Unresponsive
    | agents.Responsive
    | agents.AxesSeeded
    | agents.IncarnationSeen
    | agents.StatusSet
    | agents.RateLimited
    | agents.ModelSet
    | agents.RecipientsAllowed
    | agents.BudgetSet
    | agents.BudgetReached
    | agents.BudgetFreed
    | agents.ShareSet
    | agents.Throttled
    | agents.LimitsSet
    | agents.DiskNearlyFull
    | agents.DiskFull
    | agents.DiskNoLongerFull
    | agents.Mounted
    | agents.Unmounted
    | reminders.ReminderSet
    | reminders.ReminderFired
    | reminders.ReminderDropped
    | turns.TurnStarted
    | turns.TurnEnded
    | transient.TransientSet
    | transient.TransientCleared
    | operators.OperatorAdded
    | operators.OperatorRevoked
    | operators.SignedIn
    | operators.SignInRefused
    | notifications.NotificationDelivered
    | notifications.NotificationFailed
    | egress.EgressAllowed
    | egress.EgressDenied
    | egress.EgressRevoked
    | egress.ModelUsed
    | egress.PricesSet
    | moves.MoveBegun
    | moves.MoveSent
    | moves.MoveFailed
    | moves.MoveArrived
    | moves.MoveRefused
    | moves.Moved
    | moves.Adopted
    | moves.AdoptionBegun
    | moves.AdoptionEnded
    | moves.ClaimSeen
    | moves.AdoptionRefused
    | swarm.PeersSet
    | swarm.EnvelopeReceived
    | swarm.EnvelopeRefused
    | swarm.ReceiptTaken
    | swarm.PeerAhead
    | swarm.DecisionSent
    | swarm.DecisionDone
    | swarm.DecisionAnswered
    | daemon.Booted
    | daemon.DiskLow
    | daemon.DiskFreed
    | daemon.ShutDown
    | daemon.LogCarriedOver
    | daemon.CommandKeyed
    | daemon.Warned
    | erasing.Erased
    | erasing.ErasureFinished
)

EVENT_TYPES: Final[dict[str, type[Event]]] = {cls.__name__: cls for cls in get_args(AnyEvent)}
"""Every event by its name in the log."""
