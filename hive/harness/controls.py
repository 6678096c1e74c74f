"""Executes the operator's controls: cancel, model, compact, new session, login and pause."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from hive.harness.agent import Agent
from hive.harness.connection import Connection, DaemonAway, DaemonRefused
from hive.harness.live import Live
from hive.harness.login import LoginFlow

WAIT_S = 180
RETRY_FIRST_S = 0.1
RETRY_CAP_S = 2.0

log = structlog.get_logger()


class Controls:
    """Polls `next_control` and executes controls. Slow ones run as tasks, so that a cancel never waits."""

    def __init__(
        self,
        connection: Connection,
        agent: Agent,
        login_flow: LoginFlow,
        live: Live,
        *,
        on_paused: Callable[[bool], None],
        on_change: Callable[[], None],
        done: str,
    ) -> None:
        self._connection = connection
        self._agent = agent
        self._login_flow = login_flow
        self._live = live
        self._on_paused = on_paused
        self._on_change = on_change
        self._beside: set[asyncio.Task[None]] = set()
        self.done = done
        """Id of the last control executed. The daemon repeats a control until it receives this id, so none is lost."""

    @property
    def busy(self) -> bool:
        """A control is being executed."""
        return bool(self._beside)

    async def follow_forever(self) -> None:
        """Run until cancelled. After each reconnect the pause is requested again; it may have changed."""
        pause_s = RETRY_FIRST_S
        while True:
            try:
                reply = await self._connection.call("whoami", away_s=0)
                pause_s = RETRY_FIRST_S
                while True:
                    paused = bool(reply.get("paused"))
                    self._on_paused(paused)
                    control = reply.get("control")
                    if isinstance(control, dict) and (id := str(control.get("id"))) != self.done:
                        # Record the id first: otherwise a control that fails is repeated forever.
                        self.done = id
                        await self._act(str(control.get("action")), control.get("value"))
                    # Send the last known state, so that a change between two requests is not missed.
                    reply = await self._connection.call(
                        "next_control", waits_s=WAIT_S, away_s=0, wait_seconds=WAIT_S, paused=paused, done=self.done
                    )
            except DaemonRefused as refused:
                log.warning("harness.controls_refused", error=str(refused))
                await asyncio.sleep(RETRY_CAP_S)
            except DaemonAway:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_CAP_S)

    async def _act(self, action: str, value: Any) -> None:
        log.info("harness.control", action=action)
        match action:
            case "cancel":
                if self._agent.in_turn:
                    self._agent.interrupt("cancelled")
                else:
                    self._live.notice("There is no turn to cancel.")
            case "model":
                await self._agent.set_model(str(value) if value else None)
                self._on_change()
            case "compact":
                self._run_beside(self._agent.compact())
            case "new_session":
                self._run_beside(self._agent.new_session())
            case "login_start":
                self._login_flow.start()
            case "login_code":
                self._login_flow.code(str(value or ""))
            case _:
                log.warning("harness.control_unknown", action=action)

    def _run_beside(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._beside.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("harness.control_failed", error=repr(error))
            self._live.notice(f"That did not work: {error}")
