"""Telling an actor that may just have ended: timers, file watchers and signals do not know."""

from typing import Any

import pykka


def tell(ref: "pykka.ActorRef[Any]", message: object) -> bool:
    """Put a message into a mailbox; False when nobody will read it any more."""
    try:
        ref.tell(message)
    except pykka.ActorDeadError:
        return False
    return True
