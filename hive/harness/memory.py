"""What the harness remembers between starts: session, model, and why it rests. One small JSON file of the loop's."""

from pathlib import Path

import msgspec

from hive.clock import TimeMs
from hive.harness.environment import HARNESS_STATE_FILE

Fingerprint = tuple[int, int, int]
"""Of a file: inode, modification time in ns, size."""


class Refused(msgspec.Struct, omit_defaults=True):
    """Which login the API refused."""

    file: Fingerprint | None = None
    """The credentials file as it was then."""
    key: bool = False
    retry_ms: TimeMs | None = None
    """When it is tried again all the same."""
    doubtful: bool = False
    """It is being tried again; only a turn can tell."""


class Rest(msgspec.Struct, omit_defaults=True):
    """What holds while the harness starts over in the same process to be small; a new incarnation begins without."""

    incarnation: str = ""
    until_ms: TimeMs = 0
    limited: bool = False
    failures: int = 0
    too_long: int = 0
    note: str = ""
    """For the next turn's prompt."""
    control: str = ""
    """The operator's control that was acted on last."""
    refused: Refused = msgspec.field(default_factory=Refused)


class _Remembered(msgspec.Struct, omit_defaults=True):
    session_id: str | None = None
    model: str | None = None
    rest: Rest = msgspec.field(default_factory=Rest)


class Memory:
    """Reads the file once and writes it whole on every change. The agent can write it too: nothing in it is trusted."""

    def __init__(self, state: Path) -> None:
        self._path = state / HARNESS_STATE_FILE
        try:
            self._now = msgspec.json.decode(self._path.read_bytes(), type=_Remembered)
        except (OSError, msgspec.DecodeError):
            self._now = _Remembered()

    @property
    def session_id(self) -> str | None:
        """The CLI session to resume."""
        return self._now.session_id

    @session_id.setter
    def session_id(self, value: str | None) -> None:
        if value != self._now.session_id:
            self._now.session_id = value
            self._write()

    @property
    def model(self) -> str | None:
        """The operator's choice for this agent, above `agent.toml` and the host's default."""
        return self._now.model

    @model.setter
    def model(self, value: str | None) -> None:
        self._now.model = value
        self._write()

    def rest_of(self, incarnation: str) -> Rest:
        """What this incarnation was at when it started over; empty at its first start."""
        return self._now.rest if self._now.rest.incarnation == incarnation else Rest(incarnation=incarnation)

    def keep_rest(self, rest: Rest) -> None:
        """Raises OSError: the agent's disk is full, or its folder spoilt."""
        self._now.rest = rest
        self._write()

    def _write(self) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_bytes(msgspec.json.encode(self._now))
        beside.replace(self._path)
