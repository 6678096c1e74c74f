"""The runtime without a sandbox: the program runs as the daemon's user. It must be requested by name."""

import sys
from pathlib import Path

from hive.errors import Unavailable
from hive.runtimes import launch
from hive.runtimes.protocol import Container, Exit, Running, Status
from hive.runtimes.record import Record


class ProcessRuntime:
    """No isolation: host paths and the daemon's uid. Control groups still enforce limits where available."""

    kind = "process"
    ids_per_agent = 1

    def host_uid(self, first: int, slot: int) -> int | None:
        return None

    def unavailable_reason(self) -> str | None:
        if sys.platform != "linux":
            return "hive runs agents on Linux only (it needs /proc and pidfd)."
        return None

    def start(self, container: Container) -> Running:
        if container.mounts or container.binds:
            wanted = [mount.host_path for mount in container.mounts] + [bind.host_path for bind in container.binds]
            missing = [path for path in wanted if not path.exists()]
            if missing:
                raise Unavailable(f"Agent {container.name} could not be started: {missing[0]} does not exist.")
        container.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {
            "PATH": launch.PATH,
            "HOME": str(container.state),
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            **container.environment,
            "HIVE_AGENT_SOCKET": str(container.socket_folder / "hive.sock"),
            "HIVE_AGENT_STATE": str(container.state),
            "HIVE_AGENT_CONFIG": str(container.config),
        }
        return launch.start(container, environment=environment, folder=str(container.state), sandbox=None)

    def stop(self, record: Path, *, grace_s: float) -> Exit | None:
        return Record(record).stop(grace_s)

    def kill(self, record: Path) -> Exit | None:
        return Record(record).kill()

    def status(self, record: Path) -> Status:
        return Record(record).status()

    def output(self, record: Path, *, lines: int) -> list[str]:
        return Record(record).output(lines)
