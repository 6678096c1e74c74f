"""Resource limits of processes: the limit of open files, and what replaces control groups where there are none.

Stdlib only, because the shim and the container's init import it. The daemon chooses the limits; the shim's child, or
init in a sandbox, sets them.
"""

import resource

Rlimit = tuple[int, int]
"""The resource, and its soft and hard limit."""

TYPE_CHECKING = False
if TYPE_CHECKING:  # The shim must not load it.
    from hive.runtimes.protocol import Limits


def of_limits(limits: "Limits", *, sandboxed: bool) -> "list[Rlimit]":
    """The limits of each process in a container.

    Without the pids controller, a sandbox limits processes by RLIMIT_NPROC: under root each agent has its own uid;
    otherwise the kernel counts within the sandbox's user namespace. Without the memory controller RLIMIT_DATA limits
    each process, but not their sum. (RLIMIT_AS would not do: the CLI reserves much more than it uses.)
    """
    from hive.runtimes import cgroup

    controllers = {name for _, _, offered in cgroup.hierarchies() for name in offered}
    found: list[Rlimit] = []
    if limits.open_files is not None:
        found.append((resource.RLIMIT_NOFILE, limits.open_files))
    if limits.memory_bytes is not None and "memory" not in controllers:
        found.append((resource.RLIMIT_DATA, limits.memory_bytes))
    if limits.processes is not None and sandboxed and "pids" not in controllers:
        found.append((resource.RLIMIT_NPROC, limits.processes))
    return found


def apply(limits: "list[Rlimit]") -> None:
    """Set the limits of the calling process; the host's own lower ones stay."""
    for kind, value in limits:
        _, hard = resource.getrlimit(kind)
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (lower, lower))


def limit_data(limit_bytes: int) -> None:
    """Limit the memory of the calling process; only the soft limit, so that its children may have another one."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def unlimit_data() -> None:
    """Undo `limit_data` in a child."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
