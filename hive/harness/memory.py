"""State that the harness keeps between starts: session, model and refused login. One small JSON file."""

from pathlib import Path

import msgspec

from hive.clock import TimeMs
from hive.harness.environment import HARNESS_STATE_FILE

Fingerprint = tuple[int, int, int]
"""A file's inode, modification time in ns and size."""


class Refused(msgspec.Struct, omit_defaults=True):
    """The credentials that the API refused."""

    file: Fingerprint | None = None
    """The credentials file at that time."""
    key: bool = False
    retry_ms: TimeMs | None = None
    """When the credentials are retried."""
    doubtful: bool = False
    """The credentials are being retried; only a turn shows if they work."""


class Rest(msgspec.Struct, omit_defaults=True):
    """State kept across an exec of the harness; a new incarnation starts without it."""

    incarnation: str = ""
    until_ms: TimeMs = 0
    limited: bool = False
    failures: int = 0
    too_long: int = 0
    note: str = ""
    """For the next turn's prompt."""
    control: str = ""
    """Id of the last control executed."""
    refused: Refused = msgspec.field(default_factory=Refused)


class _Remembered(msgspec.Struct, omit_defaults=True):
    session_id: str | None = None
    model: str | None = None
    rest: Rest = msgspec.field(default_factory=Rest)


class Memory:
    """Reads the file once and rewrites it on each change. The agent can write it too, so its content is not trusted."""

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
        """The model set by the operator; it overrides `agent.toml` and the host's default."""
        return self._now.model

    @model.setter
    def model(self, value: str | None) -> None:
        self._now.model = value
        self._write()

    def rest_of(self, incarnation: str) -> Rest:
        """State of this incarnation before its exec; empty at its first start."""
        return self._now.rest if self._now.rest.incarnation == incarnation else Rest(incarnation=incarnation)

    def keep_rest(self, rest: Rest) -> None:
        """Raises OSError: the disk is full or the folder is not writable."""
        self._now.rest = rest
        self._write()

    def _write(self) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_bytes(msgspec.json.encode(self._now))
        beside.replace(self._path)
