"""Facts about webhook notifications. Written for the webhook actor; read by the notifications projection."""

from typing import Literal

from hive.events.base import Event, Seq

Topic = Literal["question", "approval", "needs_login", "crash", "budget", "disk", "test"]


class NotificationDelivered(Event, frozen=True, kw_only=True):
    """The webhook accepted the notification."""

    topic: Topic
    subject: str
    """The question's or approval's number, or the agent."""
    attempts: int = 1
    of: Seq | None = None
    """The event of the notification; None for a test."""


class NotificationFailed(Event, frozen=True, kw_only=True):
    """The webhook did not accept the notification; it is not retried. Nothing waits for it."""

    topic: Topic
    subject: str
    error: str
    """Without the webhook's address, which may hold a secret."""
    attempts: int = 1
    of: Seq | None = None
