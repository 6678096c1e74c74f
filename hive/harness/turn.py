"""Runs one turn on a live CLI; compacts once if the prompt is too long. Used by `agent`."""

import asyncio

from claude_agent_sdk import ResultMessage

from hive.clock import SystemClock
from hive.harness import outcome
from hive.harness.claude import Claude, CliEnded, Interjection
from hive.harness.outcome import TurnOutcome
from hive.harness.turn_statistics import TurnStatistics

INTERRUPT_LIMIT_S = 15.0
"""Timeout from an interrupt to the CLI's result; then the CLI is killed."""
STOPPING_LIMIT_S = 4.0
"""The same while the agent is being stopped: the caller waits."""
RATE_LIMIT_WAIT_S = 5.0
"""The CLI waits out a shorter rate limit. A longer one ends the turn, and the loop waits with a badge."""

CANCELLED = "cancelled"
STOPPING = "stopping"
TIME_LIMIT = "time_limit"
RATE_LIMITED = "rate_limited"
GIVE_UP = "give_up"
"""The CLI did not answer the interrupt."""

_now_ms = SystemClock().now_ms


class Turn:
    """Runs one prompt to its end. `interrupt` may be called from any task at any time."""

    def __init__(self, claude: Claude, statistics: TurnStatistics, *, limit_s: float) -> None:
        self._claude = claude
        self._statistics = statistics
        self._limit_s = limit_s
        self._asked = False
        self._early: str | None = None
        self._why: str | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._interrupting: asyncio.Task[None] | None = None

    async def run(self, prompt: str) -> TurnOutcome:
        """Send the prompt and read messages until the turn has ended.

        Raises:
            CliEnded: the process or stream ended; the caller needs a new client.
        """
        self._after(self._limit_s, TIME_LIMIT)
        try:
            end = await self._ask(prompt)
            if end.result_kind == "prompt_too_long" and await self._compact():
                end = await self._ask(prompt)
        finally:
            self._settle()
        return end

    async def compact(self) -> bool:
        """Compact the conversation, without a prompt.

        Raises:
            CliEnded: the process or stream ended.
        """
        self._after(self._limit_s, TIME_LIMIT)
        try:
            return await self._compact()
        finally:
            self._settle()

    def interrupt(self, why: str) -> None:
        """End the turn: `cancelled`, `stopping`, `rate_limited` or `time_limit`. The first reason is kept."""
        self._early = self._early or why
        if self._asked:
            self._claude.interject(why)

    def _settle(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._interrupting is not None:
            self._interrupting.cancel()

    async def _ask(self, prompt: str) -> TurnOutcome:
        await self._claude.ask(prompt)
        self._asked = True
        if self._early is not None:
            # The interrupt was requested before the prompt was sent.
            self._claude.interject(self._early)
        return self._judge(await self._result())

    async def _compact(self) -> bool:
        """Compact the conversation; return whether it worked. The CLI reports a failed compaction as a success."""
        self._statistics.compacted = False
        await self._claude.ask("/compact", command=True)
        await self._result()
        return self._statistics.compacted and self._why is None

    async def _result(self) -> ResultMessage:
        while True:
            said = await self._claude.next()
            if isinstance(said, Interjection):
                await self._heed(str(said))
                continue
            now_ms = _now_ms()
            self._statistics.see(said, now_ms)
            if isinstance(said, ResultMessage):
                return said
            until = self._statistics.limited_until_ms
            if until is not None and until - now_ms > RATE_LIMIT_WAIT_S * 1000 and self._why is None:
                await self._heed(RATE_LIMITED)

    async def _heed(self, why: str) -> None:
        if why == GIVE_UP:
            await self._claude.put_down(at_once=True)
            raise Interrupted(self._why_outcome())
        if self._why is None:
            self._why = why
            # The control request waits for the CLI, so keep reading its messages meanwhile.
            self._interrupting = asyncio.create_task(self._claude.interrupt())
            self._after(STOPPING_LIMIT_S if why == STOPPING else INTERRUPT_LIMIT_S, GIVE_UP)

    def _after(self, delay_s: float, why: str) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, self._claude.interject, why))

    def _judge(self, result: ResultMessage) -> TurnOutcome:
        if not result.is_error:
            return outcome.OK
        if self._why is not None:
            return self._why_outcome()
        return outcome.of_error(
            result.result or "; ".join(result.errors or []) or result.subtype,
            status=result.api_error_status,
            reason=result.terminal_reason,
            limited_until_ms=self._statistics.limited_until_ms,
            now_ms=_now_ms(),
        )

    def _why_outcome(self) -> TurnOutcome:
        match self._why:
            case "time_limit":
                return outcome.failed(f"The turn was cancelled: it took longer than {self._limit_s / 60:g} minutes.")
            case "rate_limited":
                return TurnOutcome(
                    result_kind="failed",
                    requeue="rate_limited",
                    note="The API refused the request: rate limit.",
                    limited_until_ms=self._statistics.limited_until_ms,
                )
            case "stopping":
                return outcome.failed("The turn was interrupted: the agent is being stopped.", requeue="stopping")
            case _:
                return outcome.failed("The operator cancelled the turn.", requeue="cancelled")


class Interrupted(CliEnded):
    """The turn was interrupted and the CLI was killed."""

    def __init__(self, outcome: TurnOutcome) -> None:
        super().__init__(outcome.note or "interrupted")
        self.outcome = outcome
