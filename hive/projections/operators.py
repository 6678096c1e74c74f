"""Operators with dashboard access, by the hash of their token."""

import msgspec

from hive.clock import TimeMs
from hive.events.operators import OperatorAdded, OperatorRevoked
from hive.projections.table import Projection, Recorded, Table


class Operator(msgspec.Struct, frozen=True):
    name: str
    token_hash: str
    added_ms: TimeMs
    revoked_ms: TimeMs | None = None


class Operators(Projection):
    NAME = "operators"
    VERSION = 1

    def __init__(self) -> None:
        self.all: Table[str, Operator] = Table("operators", Operator)

    def handlers(self) -> dict[type, object]:
        return {OperatorAdded: self._on_added, OperatorRevoked: self._on_revoked}

    def holder(self, token_hash: str) -> Operator | None:
        """The operator of this token, unless it was revoked."""
        return next((row for row in self.all if row.token_hash == token_hash and row.revoked_ms is None), None)

    def _on_added(self, event: OperatorAdded, recorded: Recorded) -> None:
        self.all.put(event.name, Operator(event.name, event.token_hash, recorded.at_ms))

    def _on_revoked(self, event: OperatorRevoked, recorded: Recorded) -> None:
        self.all.put(event.name, msgspec.structs.replace(self.all[event.name], revoked_ms=recorded.at_ms))
