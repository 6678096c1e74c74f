"""Gives the connections of one agent their turns on the broker's event loop, so that no other agent waits for them."""

import asyncio
import time
from collections import deque
from typing import Final

PER_SECOND: Final = 200
BURST: Final = 400
"""New connections and requests of an agent; one beyond is delayed."""
STEPS_PER_ROUND: Final = 2
"""Steps of an agent in one round of the loop, such as to pass on one piece; further ones wait for the next round."""


class Pace:
    """One for each agent. Callers wait instead of failing."""

    def __init__(self) -> None:
        self._tokens = float(BURST)
        self._at_s = time.monotonic()
        self._left = STEPS_PER_ROUND
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_due = False

    async def request(self) -> None:
        """Wait until the agent may have another connection or request."""
        now = time.monotonic()
        self._tokens = min(BURST, self._tokens + (now - self._at_s) * PER_SECOND) - 1
        self._at_s = now
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / PER_SECOND)
        await self.step()

    async def step(self) -> None:
        """Wait for a turn of this connection. A step takes well under a millisecond."""
        if self._left and not self._waiting:
            self._left -= 1
            self._next_round()
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._next_round()
        await turn

    def _next_round(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        self._is_due = False
        self._left = STEPS_PER_ROUND
        while self._left and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._left -= 1
        if self._left < STEPS_PER_ROUND:
            self._next_round()
