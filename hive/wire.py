"""The version of the protocol between a harness and its daemon. Both sides import it; `hello` carries it."""

from typing import Final

WIRE: Final = 2
"""What this hive's harness speaks. Version 2 named the version: harnesses before it sent none.

Raise it with the first change since the last release that a released harness or daemon would misunderstand. A verb or
a field that either side may ignore is no such change.
"""
OLDEST_WIRE: Final = WIRE - 1
"""The oldest one that this hive's daemon understands: agents of the release before go on under it.

A `hello` without a version is always understood: programs of agents send it, and they use the documented verbs.
"""
UNSUPPORTED: Final = "wire_unsupported"
"""The `code` of every reply to a harness that speaks another version."""
