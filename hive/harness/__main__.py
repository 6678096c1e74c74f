"""`python -m hive.harness`: run by a runtime inside an agent's container, as the daemon says in the environment."""

import asyncio
import os
import sys

import structlog

from hive.errors import BadRequest
from hive.harness.environment import Environment, from_environment
from hive.harness.loop import Ending, Harness

STATE_UMASK = 0o077


async def serve(env: Environment) -> Ending:
    """One harness, from here to its end."""
    return await Harness(env).run()


def main() -> int:
    """Returns the exit code: 0 after SIGTERM, 2 when started by hand."""
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
    if asyncio.run(serve(env)) == "shrink":
        # Nothing else gives back the memory of modules once imported. Same process, same incarnation.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return 0


_line = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])

if __name__ == "__main__":
    sys.exit(main())
