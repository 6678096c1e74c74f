"""The runtime `nspawn`: systemd-nspawn boots an OS tree for each agent, with private users and a private network."""

from pathlib import Path

from hive.errors import Unavailable
from hive.runtimes import os_tree
from hive.runtimes.os_tree import BootedRuntime, Tree
from hive.runtimes.protocol import Container

INITS = ("usr/lib/systemd/systemd", "lib/systemd/systemd")
BUILD = 'Build one with `hive image build DIR` and set `[runtime] image = "DIR"` in hive.toml.'


class NspawnRuntime(BootedRuntime):
    """Agents share one tree, read-only. What they write to it is in memory and gone at the next start."""

    kind = "nspawn"

    def __init__(self, image: Path | None = None) -> None:
        self._image = image

    def unavailable_reason(self) -> str | None:
        if (why := os_tree.host_lacks(self.kind)) is not None:
            return why
        if self._image is None:
            return f"The runtime nspawn needs an image, an OS tree. {BUILD}"
        if not any((self._image / init).exists() for init in INITS):
            return f"{self._image} is not an OS tree with systemd. {BUILD}"
        return os_tree.tree_lacks(self._image) or os_tree.interpreter_lacks(self._image)

    def tree(self, container: Container) -> Tree:
        if self._image is None or not self._image.is_dir():
            raise Unavailable(f"The runtime nspawn needs an image, an OS tree. {BUILD}")
        return Tree(root=self._image)
