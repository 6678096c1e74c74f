"""Sends to an actor that may have ended. For timers, file watchers and signals."""

from typing import Any

import pykka


def tell(ref: "pykka.ActorRef[Any]", message: object) -> bool:
    """Put a message into a mailbox. False: the actor has ended."""
    try:
        ref.tell(message)
    except pykka.ActorDeadError:
        return False
    return True
