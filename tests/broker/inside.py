"""Programs in a real sandbox whose way out is the broker of the tests."""

import shutil

from missing_tool import missing_tool
from runtimes.contract import Lab

from .lab import BrokerLab

NAME = "127.0.0.2"
"""Loopback too, and not in NO_PROXY: clients use the proxy for it, and the policy lists it by address."""


class Inside:
    """A sandbox whose way out is the broker of the tests."""

    def __init__(self, lab: Lab, broker: BrokerLab) -> None:
        self._lab = lab
        self._broker = broker
        self._served: set[str] = set()

    def sh(self, script: str, name: str, environment: dict[str, str] | None = None, **policy: object) -> list[str]:
        container = self._lab.container("sh", "-ec", script, name=name, environment=environment)
        if name not in self._served:
            self._served.add(name)
            self._broker.agent(name, container.socket_folder, **policy)
        self._lab.start(container)
        ended = self._lab.ended(container)
        output = self._lab.output(container)
        assert ended.code == 0, output
        return output


def needs(program: str, package: str) -> str:
    """Its path, which the sandbox sees too."""
    path = shutil.which(program, path="/usr/bin:/usr/sbin:/usr/local/bin")
    if path is None:
        missing_tool(f"{program} is not installed: apt-get install {package}")
    return path
