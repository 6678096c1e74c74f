"""Names of agents, of the operator and of the daemon. Imports no other module of hive."""

import re
from typing import Final, NamedTuple

AgentName = str
"""`[a-z0-9][a-z0-9-]{0,31}`, validated at the edges; a plain string elsewhere."""

MANAGER: Final = "manager"
"""The privileged agent."""
OPERATOR: Final = "operator"
"""The human."""
SYSTEM: Final = "system"
"""Sender of the daemon's own messages."""
EVERYONE: Final = "*"
"""Recipient of a broadcast."""

BUDGET_USED_UP: Final = "hive: the budget of this agent is used up"
"""How the broker's refusal of a model request begins. The harness ends the turn when it reads this."""

AGENT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
RESERVED: Final = frozenset({MANAGER, OPERATOR, SYSTEM})

AT: Final = "@"
"""Between an agent and its hive in an address: `coder@berlin`."""


class Address(NamedTuple):
    """A recipient: an agent or the operator, here or in another hive."""

    name: str
    hive: str | None
    """None: this hive."""


def is_agent_name(name: str) -> bool:
    """Whether an agent may have this name. `manager` is valid; `operator` and `system` are reserved."""
    return AGENT_NAME.fullmatch(name) is not None and name not in (OPERATOR, SYSTEM)


def is_hive_name(name: str) -> bool:
    """Whether a hive may be called so: the same letters as an agent."""
    return AGENT_NAME.fullmatch(name) is not None


def address(text: str) -> Address:
    """Split `coder@berlin`; a name without `@` is in this hive."""
    name, at, hive = text.partition(AT)
    return Address(name, hive if at else None)


def is_remote(text: str) -> bool:
    """Whether an address names another hive."""
    return AT in text
