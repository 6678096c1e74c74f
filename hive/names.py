"""Who can be named in hive: agents, the operator, the daemon itself. Knows no other module."""

import re
from typing import Final

AgentName = str
"""`[a-z0-9][a-z0-9-]{0,31}`, checked where it enters; a plain string everywhere else."""

MANAGER: Final = "manager"
"""The one privileged agent."""
OPERATOR: Final = "operator"
"""The human."""
SYSTEM: Final = "system"
"""What the daemon itself says."""
EVERYONE: Final = "*"
"""Recipient of a broadcast."""

AGENT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
RESERVED: Final = frozenset({MANAGER, OPERATOR, SYSTEM})


def is_agent_name(name: str) -> bool:
    """Whether an agent may be called so; `manager` counts, `operator` and `system` do not."""
    return AGENT_NAME.fullmatch(name) is not None and name not in (OPERATOR, SYSTEM)
