"""`python -m hive.harness`: runs inside an agent's container, configured by its environment."""

import asyncio
import os
import sys

import structlog

from hive.errors import BadRequest, WireUnsupported
from hive.harness.environment import Environment, from_environment
from hive.harness.loop import Ending, Harness

STATE_UMASK = 0o077


async def serve(env: Environment) -> Ending:
    """Run one harness until it ends."""
    return await Harness(env).run()


def main() -> int:
    """Return the exit code: 0 after SIGTERM, 2: incomplete environment, 3: the daemon speaks another protocol."""
    os.umask(STATE_UMASK)
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper("iso", utc=True), _line],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        env = from_environment()
    except BadRequest as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        ending = asyncio.run(serve(env))
    except WireUnsupported as error:
        sys.stderr.write(f"{error}\n")  # The daemon starts a harness of its own in place of this one.
        return 3
    if ending == "shrink":
        # Only exec frees the memory of imported modules. Process and incarnation stay the same.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return 0


_line = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])

if __name__ == "__main__":
    sys.exit(main())
