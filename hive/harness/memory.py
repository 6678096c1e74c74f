"""What the harness remembers between starts: the CLI's session and the operator's model. One small JSON file."""

from pathlib import Path

import msgspec

from hive.harness.surroundings import HARNESS_STATE_FILE


class _Remembered(msgspec.Struct, omit_defaults=True):
    session_id: str | None = None
    model: str | None = None


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

    def _write(self) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_bytes(msgspec.json.encode(self._now))
        beside.replace(self._path)
