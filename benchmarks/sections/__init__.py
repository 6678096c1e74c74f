"""One file per comparison. Each starts its contenders, then measures round by round."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from benchmarks.contender import Contender
from benchmarks.figures import Figure, Round
from benchmarks.peers import Peer


class Scale(NamedTuple):
    """The amount of work."""

    rounds: int
    events: float
    """Factor for the number of events per measurement."""

    def of(self, events: int, multiple_of: int = 1) -> int:
        return max(1, int(events * self.events) // multiple_of) * multiple_of


class Setting(NamedTuple):
    """The inputs of every section."""

    folder: Path
    scale: Scale
    peers: list[Peer]

    def peer(self, name: str) -> Contender | None:
        """A running peer, or None if it is not available."""
        peer = next((peer for peer in self.peers if peer.name == name), None)
        if peer is None or peer.missing is not None:
            return None
        folder = self.folder / name
        return Contender(folder, [*peer.argv, str(folder)])


class Section(Protocol):
    """One module of this package."""

    TITLE: str
    FIGURES: list[Figure]

    def measuring(self, setting: Setting) -> AbstractContextManager["Measuring"]:
        """Start the contenders; they end with the block."""
        ...


class Measuring(Protocol):
    """Called once per round."""

    def __call__(self) -> Round: ...
