"""Controls one live Claude Code CLI, kept between turns. Imported when the first turn starts."""

import asyncio
import collections
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, ClaudeSDKError, Message, ResultMessage

from hive.errors import HiveError

CONNECT_LIMIT_S = 120.0
"""A cold start takes about a second; on a host that swaps it may take this long."""
SEND_LIMIT_S = 30.0
CONTROL_LIMIT_S = 10.0
DRAIN_S = 2.0
"""From the end of the CLI's process to the end of its output; a grandchild may hold the pipe open."""
STDERR_LINES = 20
NO_SESSION = "No conversation found with session ID"


class CliEnded(HiveError):
    """The CLI's process or output stream ended without a result."""

    code = "unavailable"


class SessionGone(CliEnded):
    """The session to resume no longer exists."""


class Interjection(str):
    """Inserted by the harness into the CLI's messages: the reason to end the turn."""

    __slots__ = ()


class Claude:
    """A client of one CLI process. `next` returns the CLI's messages and what `interject` inserts."""

    def __init__(self, options: Callable[[Callable[[str], None]], ClaudeAgentOptions]) -> None:
        self._stderr: collections.deque[str] = collections.deque(maxlen=STDERR_LINES)
        self._client = ClaudeSDKClient(options(self._stderr.append))
        self._said: asyncio.Queue[Message | Interjection | CliEnded] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._asked = ""

    async def connect(self) -> None:
        """Start the CLI.

        Raises:
            CliEnded: the CLI did not start.
            SessionGone: the session to resume does not exist.
        """
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await self._client.connect()
        except TimeoutError as error:
            await self.put_down()
            raise CliEnded(f"The Claude Code CLI did not start within {CONNECT_LIMIT_S:.0f} s.") from error
        except Exception as error:  # The SDK raises plain Exception for an error reply of the CLI.
            raise self._ended(error) from error
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._watch_process())]

    async def ask(self, prompt: str, *, command: bool = False) -> None:
        """Begin a turn. A prompt is sent literally; a command (`/compact`) is executed.

        Raises:
            CliEnded: the CLI has ended.
        """
        while not self._said.empty():
            left = self._said.get_nowait()
            if isinstance(left, CliEnded):
                raise left
        self._asked = str(uuid.uuid4())
        message = {
            "type": "user",
            "message": {"role": "user", "content": prompt},
            "parent_tool_use_id": None,
            "uuid": self._asked,
            # Otherwise `@/path` in a message makes the CLI read that file into the prompt.
            "client_composed": not command,
        }
        try:
            async with asyncio.timeout(SEND_LIMIT_S):
                await self._client.query(_one(message))
        except (ClaudeSDKError, OSError, TimeoutError) as error:
            raise self._ended(error) from error

    async def next(self) -> Message | Interjection:
        """Return the next CLI message or interjection. No timeout: a long tool call sends nothing for minutes.

        Raises:
            CliEnded: the process or the stream ended.
        """
        while True:
            said = await self._said.get()
            if isinstance(said, CliEnded):
                raise said
            if isinstance(said, ResultMessage) and said.user_message_uuids:
                if self._asked in said.user_message_uuids:
                    return said
                continue  # The late result of an interrupted turn.
            return said

    def interject(self, why: str) -> None:
        """Make `next` return this."""
        self._said.put_nowait(Interjection(why))

    async def interrupt(self) -> None:
        """Ask the CLI to end the turn; its result still arrives. The caller kills a CLI that does not react."""
        # The SDK raises plain Exception for a refused control request.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CONTROL_LIMIT_S):
                await self._client.interrupt()

    async def set_model(self, model: str | None) -> None:
        """Change the model from the next request on.

        Raises:
            CliEnded: the CLI refused or has ended.
        """
        try:
            async with asyncio.timeout(CONTROL_LIMIT_S):
                await self._client.set_model(model)
        except Exception as error:
            raise CliEnded(f"The CLI did not take the model: {error}") from error

    async def put_down(self, *, at_once: bool = False) -> None:
        """End the CLI, either at once or after it has saved its session."""
        for task in self._tasks:
            task.cancel()
        process = self._process()
        if at_once and process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        # The process may have ended already; errors of the SDK are ignored.
        with contextlib.suppress(Exception):
            await self._client.disconnect()

    @property
    def pid(self) -> int | None:
        """The CLI's process."""
        process = self._process()
        return None if process is None else int(process.pid)

    def _process(self) -> Any:
        # The SDK has no public access to its process, and a hung CLI must be killed.
        return getattr(getattr(self._client, "_transport", None), "_process", None)

    async def _listen(self) -> None:
        """Always read the SDK's stream: unread messages block the replies to control requests."""
        try:
            async for message in self._client.receive_messages():
                self._said.put_nowait(message)
            self._said.put_nowait(self._ended(None))
        except Exception as error:  # noqa: BLE001 - the turn must see every error that ends the stream
            self._said.put_nowait(self._ended(error))

    async def _watch_process(self) -> None:
        process = self._process()
        if process is not None:
            await process.wait()
            await asyncio.sleep(DRAIN_S)
            self._said.put_nowait(self._ended(None))

    def _ended(self, error: BaseException | None) -> CliEnded:
        words = "; ".join(self._stderr)
        if NO_SESSION in words:
            return SessionGone("The session to resume does not exist any more.")
        reason = str(error).partition("\n")[0] if error else "its stream ended without a result"
        return CliEnded(f"The Claude Code CLI ended: {reason}" + (f" ({words[-500:]})" if words else ""))


async def _one(message: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield message
