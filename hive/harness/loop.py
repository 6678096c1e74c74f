"""The harness's main loop: receives messages, runs turns, acks or requeues messages, backs off after failures."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

import structlog

from hive.clock import SystemClock, TimeMs, rfc3339
from hive.harness.agent import Agent, cli_path, program_file, sdk_loaded
from hive.harness.connection import Daemon, DaemonLimited, DaemonRefused
from hive.harness.controls import Controls
from hive.harness.environment import Environment
from hive.harness.live import Live
from hive.harness.login import Login, LoginFlow, watch
from hive.harness.memory import Memory, Rest
from hive.harness.outcome import TurnOutcome
from hive.harness.reports import Reports

RECV_WAIT_S = 180
BATCH = 8
"""Maximum messages in one turn: a message may be large, and all go into one prompt."""
STOP_FINISH_S = 2.0
"""Time for a turn to finish before a stop interrupts it."""
STOP_REPORT_S = 1.5
"""Time for the last reports. The daemon derives missing ones from the end of the incarnation."""
STOP_CLI_S = 2.0
FAILED_FIRST_S, FAILED_CAP_S = 1.0, 60.0
OVERLOADED_FIRST_S, OVERLOADED_CAP_S = 5.0, 120.0
BUDGET_REST_S = 5.0
"""Delay after a turn that the budget ended. Usually the daemon has paused the agent by then."""
LOGIN_LOOK_S = 15 * 60.0
"""Interval of a check for a credentials file that the watch missed."""
SHRINK_LOOK_S = 30.0
"""Interval of the check whether a resting harness can restart without the SDK."""
RECV_REFUSED_S = 5.0
PAUSE_LOOK_S = 10.0
"""Two connections report the pause and may arrive out of order, so a paused harness asks again."""

CANCELLED_NOTE = (
    "The operator cancelled the turn that had these messages before. Do not just do the same again: check what is"
    " done. If it is not clear what was wrong, ask the operator and end your turn."
)

TOO_LONG_TURNS = 2
"""After this many consecutive turns that cannot be compacted, start a new session; otherwise every message fails."""
TOO_LONG_NOTE = (
    "Your conversation became too long and could not be compacted, so this is a new one. Read your notes and check"
    " what is already done."
)

Ending = Literal["stopped", "shrink"]
"""`shrink`: exec the harness again to free memory."""

log = structlog.get_logger()

_now_ms = SystemClock().now_ms
_Result = TypeVar("_Result")


class Harness:
    """One agent's loop. Other tasks change state and wake the loop."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._program = program_file()
        self._daemon = Daemon(env.socket, env.incarnation)
        self._live = Live(self._daemon.live)
        self._reports = Reports(self._daemon.reports)
        self._memory = Memory(env.state)
        was = self._memory.rest_of(env.incarnation)
        self._login = Login(env, was.refused)
        self._login_flow = LoginFlow(env, self._live, cli_path)
        self._agent = Agent(env, self._daemon, self._live, self._login, self._memory)
        self._controls = Controls(
            self._daemon.controls,
            self._agent,
            self._login_flow,
            self._live,
            on_paused=self._set_paused,
            on_change=self._end_rest,
            done=was.control,
        )
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._broken: BaseException | None = None
        self._paused = False
        self._pause_known = asyncio.Event()
        """Set when the daemon has reported whether the agent is paused."""
        self._login_told: bool | None = None
        self._limited = was.limited
        self._rest_until_ms: TimeMs = was.until_ms
        self._failures = was.failures
        self._too_long = was.too_long
        self._note = was.note
        self._used_at = time.monotonic()

    async def run(self) -> Ending:
        """Run until SIGTERM, or until an idle or resting agent has ended its CLI."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        beside = [
            asyncio.create_task(self._controls.follow_forever()),
            asyncio.create_task(self._live.send_forever()),
        ]
        for task in beside:
            task.add_done_callback(self._beside_ended)
        log.info("harness.started", agent=self._env.name, incarnation=self._env.incarnation)
        try:
            ending = await self._serve()
            if self._broken is not None:
                raise self._broken
            return ending
        finally:
            for task in beside:
                task.cancel()
            self._login_flow.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_REPORT_S):
                    await self._live.flush()
            await self._give_cli_back()
            self._daemon.close()
            await asyncio.gather(*beside, return_exceptions=True)
            log.info("harness.ended", agent=self._env.name)

    async def _serve(self) -> Ending:
        if not self._limited:
            await self._or_stop(self._reports.rate_limited(None))
        # Do not recv while paused: received messages would be requeued and marked as redelivered.
        await self._or_stop(self._pause_known.wait())
        while (may := await self._may_take()) == "take":
            reply = await self._receive()
            if reply is None:
                continue
            if reply.get("paused"):
                self._paused = True
            messages = reply.get("messages") or []
            if messages and self._paused:
                await self._or_stop(self._reports.requeue([row["id"] for row in messages], "paused"))
            elif messages and self._renews():
                await self._or_stop(self._reports.requeue([row["id"] for row in messages], "stopping"))
                return "shrink"
            elif messages:
                await self._take(messages, int(reply.get("remaining") or 0))
            elif self._idle_left_s() <= 0 and not self._agent.busy.locked():
                await self._give_cli_back()
                if self._shrinks():
                    return "shrink"
                self._used_at = time.monotonic()
        return may

    async def _may_take(self) -> Literal["take"] | Ending:
        """Wait until a turn may start, or the harness must end or shrink."""
        while not self._stopping.is_set():
            self._wake.clear()
            if self._renews() or (self._rests() and self._shrinks()):
                return "shrink"
            if self._paused:
                if not await self._park(PAUSE_LOOK_S):
                    who = await self._or_stop(self._daemon.inbox.call("whoami"))
                    self._paused = who is None or bool(who.get("paused"))
            elif not self._login.usable():
                await self._rest_without_login()
            elif (left_ms := self._rest_until_ms - _now_ms()) > 0:
                await self._park(left_ms / 1000)
            else:
                if not self._login.doubtful:
                    await self._tell_login(True)
                if self._limited:
                    self._limited = False
                    await self._or_stop(self._reports.rate_limited(None))
                return "stopped" if self._stopping.is_set() else "take"
        return "stopped"

    def _rests(self) -> bool:
        return self._paused or not self._login.usable() or self._rest_until_ms > _now_ms()

    def _shrinks(self) -> bool:
        """Whether the process can exec itself to free the SDK's memory: no work is in progress."""
        if self._at_work() or not sdk_loaded():
            return False
        if self._idle_left_s() > 0 and self._login.usable():
            return False
        return self._keeps_rest()

    def _renews(self) -> bool:
        """Whether the process must exec itself before a turn: hive was upgraded in place.

        The modules of a turn are imported with the first one. They would be newer than those in memory.
        """
        found = program_file()
        is_new = found is not None and found != self._program
        return is_new and not sdk_loaded() and not self._at_work() and self._keeps_rest()

    def _at_work(self) -> bool:
        in_use = self._agent.connected or self._agent.busy.locked() or self._controls.busy or self._login_flow.active
        return in_use or self._stopping.is_set()

    def _keeps_rest(self) -> bool:
        rest = Rest(
            incarnation=self._env.incarnation,
            until_ms=self._rest_until_ms,
            limited=self._limited,
            failures=self._failures,
            too_long=self._too_long,
            note=self._note,
            control=self._controls.done,
            refused=self._login.state,
        )
        try:
            self._memory.keep_rest(rest)
        except OSError as error:
            log.warning("harness.cannot_shrink", error=str(error))
            return False
        return True

    async def _park(self, seconds: float) -> bool:
        """Wait; return whether the loop was woken before the time was over. An idle CLI is ended meanwhile."""
        idle_s = self._idle_left_s()
        if not sdk_loaded():
            return await self._woken_within(seconds)
        if idle_s <= 0 and (not self._agent.connected or self._agent.busy.locked()):
            return await self._woken_within(min(seconds, SHRINK_LOOK_S))
        if idle_s >= seconds:
            return await self._woken_within(seconds)
        if await self._woken_within(max(0.0, idle_s)):
            return True
        if not self._agent.busy.locked():
            await self._give_cli_back()
        return False

    async def _rest_without_login(self) -> None:
        await self._tell_login(False)
        await self._give_cli_back()
        self._env.cli_settings.mkdir(parents=True, exist_ok=True, mode=0o700)
        watching = asyncio.create_task(watch(self._env.credentials, self._wake.set))
        try:
            # The watch is active after its first step; check once more for earlier changes.
            await asyncio.sleep(0)
            retry_s = self._login.retry_in_s()
            wait_s = LOGIN_LOOK_S if retry_s is None else retry_s
            if self._login.usable() or await self._woken_within(min(wait_s, SHRINK_LOOK_S) if sdk_loaded() else wait_s):
                return
            if self._login.retry_in_s() == 0:
                self._login.forgive()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _receive(self) -> dict[str, Any] | None:
        wait_s = RECV_WAIT_S
        if self._agent.connected or sdk_loaded():
            wait_s = max(1, min(RECV_WAIT_S, round(self._idle_left_s())))
        try:
            # No messages are held here: the daemon redelivers those of a lost reply.
            return await self._or_stop(
                self._daemon.inbox.call("recv", waits_s=wait_s, wait_seconds=wait_s, max=BATCH, holding=[])
            )
        except DaemonRefused as refused:
            log.warning("harness.recv_refused", error=str(refused))
            await self._woken_within(refused.retry_after_s if isinstance(refused, DaemonLimited) else RECV_REFUSED_S)
            return None

    async def _take(self, messages: list[dict[str, Any]], remaining: int) -> None:
        """Run one turn with these messages, then ack or requeue each of them."""
        ids = [int(row["id"]) for row in messages]
        await self._or_stop(
            self._reports.turn_started(model=self._agent.model(), wake_from=str(messages[0].get("from")), ids=ids)
        )
        if self._stopping.is_set():
            await self._or_stop(self._reports.requeue(ids, "stopping"), grace_s=STOP_REPORT_S)
            return
        note, self._note = self._note, ""
        outcome, row = await self._agent.turn(messages, remaining, note=note)
        ids += [id for id in self._agent.taken if id not in ids]
        self._used_at = time.monotonic()
        log.info("harness.turn_ended", result=outcome.result_kind, requeue=outcome.requeue, took_ms=row.duration_ms)

        async def settle() -> None:
            if outcome.requeue is None:
                await self._reports.ack(ids)
            else:
                await self._reports.requeue(ids, outcome.requeue)
            await self._reports.turn_ended(row)

        await self._or_stop(settle(), grace_s=STOP_REPORT_S)
        await self._draw_conclusions(outcome)

    async def _draw_conclusions(self, outcome: TurnOutcome) -> None:
        """Set the delay before the next turn."""
        self._failures = 0 if outcome.requeue in (None, "cancelled") else self._failures + 1
        if outcome.requeue is None:
            self._login.accepted()
        self._too_long = self._too_long + 1 if outcome.result_kind == "prompt_too_long" else 0
        if self._too_long >= TOO_LONG_TURNS:
            self._too_long = 0
            await self._agent.new_session()
            self._note = TOO_LONG_NOTE
        match outcome.requeue:
            case "needs_login":
                self._login.refused()
                self._live.notice(f"The API refused the login: {outcome.note}")
            case "rate_limited":
                self._rest_until_ms = outcome.limited_until_ms or _now_ms()
                self._limited = True
                self._live.notice(f"Rate limited until {rfc3339(self._rest_until_ms)}.")
                await self._or_stop(self._reports.rate_limited(self._rest_until_ms))
            case "overloaded":
                self._rest(OVERLOADED_FIRST_S, OVERLOADED_CAP_S)
            case "budget":
                self._rest_until_ms = _now_ms() + round(BUDGET_REST_S * 1000)
                self._live.notice(outcome.note or "The budget is used up.")
            case "failed":
                self._rest(FAILED_FIRST_S, FAILED_CAP_S)
            case "cancelled":
                self._note = CANCELLED_NOTE
            case _:
                pass

    def _rest(self, first_s: float, cap_s: float) -> None:
        rest_s = min(cap_s, first_s * 2.0 ** min(self._failures - 1, 16))
        self._rest_until_ms = _now_ms() + round(rest_s * 1000)
        self._live.notice(f"The turn failed; the next one starts in {rest_s:.0f} s.")

    async def _tell_login(self, logged_in: bool) -> None:
        if self._login_told != logged_in:
            self._login_told = logged_in
            await self._or_stop(self._reports.login(logged_in))

    def _idle_left_s(self) -> float:
        return self._env.idle_minutes * 60 - (time.monotonic() - self._used_at)

    async def _give_cli_back(self) -> None:
        if self._agent.connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_CLI_S):
                    await self._agent.busy.acquire()
                    self._agent.busy.release()
            await self._agent.put_down_locked(at_once=self._stopping.is_set())

    def _stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._agent.in_turn:
            asyncio.get_running_loop().call_later(STOP_FINISH_S, self._agent.interrupt, "stopping")

    def _beside_ended(self, task: asyncio.Task[None]) -> None:
        """End the harness when its controls or live stream task fails; the daemon starts another."""
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()
            self._stop()

    def _set_paused(self, paused: bool) -> None:
        self._pause_known.set()
        if paused != self._paused:
            self._paused = paused
            self._wake.set()

    def _end_rest(self) -> None:
        """Clear limits of the previous model: another model may have none."""
        self._rest_until_ms = 0
        self._wake.set()

    async def _woken_within(self, seconds: float) -> bool:
        """Wait; return whether the loop was woken before the time was over."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _or_stop(self, work: Coroutine[Any, Any, _Result], *, grace_s: float = 0.0) -> _Result | None:
        """Wait for the result; while the harness stops, wait no longer than the grace period and return None."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and grace_s:
                await asyncio.wait({task}, timeout=grace_s)
            if task.done():
                return task.result()
            return None
        finally:
            stopping.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
