"""The CLI and its session: runs one turn or compaction at a time. Used by the loop and the controls."""

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

import hive
from hive.clock import rfc3339
from hive.config import agent_file
from hive.errors import BadRequest
from hive.harness import framing
from hive.harness.connection import Daemon, DaemonAway, DaemonRefused
from hive.harness.environment import Environment
from hive.harness.live import Live
from hive.harness.login import Login
from hive.harness.memory import Memory
from hive.harness.outcome import TurnOutcome, failed
from hive.harness.stats import TurnRow, TurnStats
from hive.harness.tools import Toolbox
from hive.turn_columns import TOKEN_COLUMNS

if TYPE_CHECKING:
    # Importing the SDK takes 70 MB; a resting harness does not load it.
    from hive.harness.claude import Claude
    from hive.harness.turn import Turn
    from hive.harness.turn_statistics import TurnStatistics

TURN_LIMIT_MINUTES = 60
"""The default, if agent.toml sets no limit."""
COUNTS_AWAY_S = 2.0
"""Timeout of the requests for open threads and reminders at the end of a turn."""
NOTE_LIMIT_CHARACTERS = 1_000

log = structlog.get_logger()


class Agent:
    """Owns the CLI. A turn, a compaction or a session change holds `busy` while it uses the CLI."""

    def __init__(self, env: Environment, daemon: Daemon, live: Live, login: Login, memory: Memory) -> None:
        self._env = env
        self._daemon = daemon
        self._live = live
        self._login = login
        self._memory = memory
        self._stats = TurnStats(env.state)
        self._toolbox = Toolbox(daemon)
        self._claude: Claude | None = None
        self._turn: Turn | None = None
        self._interrupt_as: str | None = None
        self._in_turn = False
        self._complaint = ""
        self.busy = asyncio.Lock()

    @property
    def stats(self) -> TurnStats:
        return self._stats

    @property
    def taken(self) -> list[int]:
        """Ids of the messages that the model received with `recv` during the last turn."""
        return self._toolbox.taken

    @property
    def in_turn(self) -> bool:
        return self._in_turn

    @property
    def connected(self) -> bool:
        return self._claude is not None

    def configuration(self) -> agent_file.AgentFile:
        """The agent file of the running generation. An invalid file is reported and treated as empty."""
        try:
            return agent_file.load(self._env.config)
        except BadRequest as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                self._live.notice(f"The agent's configuration is ignored: {error}")
            return agent_file.AgentFile()

    def model(self) -> str | None:
        """The model set by the operator, else by agent.toml, else by the host. None: the CLI's default."""
        return self._memory.model or self.configuration().model or self._env.default_model

    async def turn(
        self, messages: list[dict[str, Any]], remaining: int, *, note: str = ""
    ) -> tuple[TurnOutcome, TurnRow]:
        """Run one turn with these messages and return its outcome."""
        # Accept an interrupt from here on, also while the turn waits for a compaction.
        self._interrupt_as = None
        self._in_turn = True
        async with self.busy:
            self._toolbox.taken.clear()
            started = time.monotonic()
            row = TurnRow(
                model=self.model(),
                wake_from=str(messages[0].get("from")),
                started_at=rfc3339(time.time_ns() // 1_000_000),
            )
            self._live.line("turn_started", wake_from=row.wake_from, messages=len(messages))
            try:
                outcome = await self._run(framing.wake_prompt(messages, remaining, note=note), row)
            finally:
                self._in_turn = False
                self._turn = None
            row.ended_at = rfc3339(time.time_ns() // 1_000_000)
            row.duration_ms = round((time.monotonic() - started) * 1000)
            row.result_kind = outcome.result_kind
            row.note = outcome.note[:NOTE_LIMIT_CHARACTERS] if outcome.note else None
            await self._count_open(row)
            self._record(row)
            return outcome, row

    def interrupt(self, why: str) -> None:
        """Interrupt the running turn, if any. `why` is passed to `Turn.interrupt`."""
        if self._turn is not None:
            self._turn.interrupt(why)
        elif self._in_turn:
            self._interrupt_as = why

    async def compact(self) -> None:
        """Compact the conversation, after the running turn if there is one."""
        async with self.busy:
            if self._memory.session_id is None:
                self._live.notice("There is no conversation to compact yet.")
                return
            from hive.harness.claude import CliEnded

            try:
                claude = await self._connected()
                turn, statistics = self._new_turn(claude)
                if not await turn.compact():
                    self._live.notice("The conversation could not be compacted.")
                self._memory.session_id = statistics.session_id or self._memory.session_id
            except CliEnded as ended:
                await self._discard(ended)
                self._live.notice(f"The conversation could not be compacted: {ended}")

    async def set_model(self, model: str | None) -> None:
        """Use another model from the next request on; the choice survives restarts."""
        self._memory.model = model
        claude = self._claude
        if claude is not None:
            from hive.harness.claude import CliEnded

            try:
                await claude.set_model(self.model())
            except CliEnded as error:
                self._live.notice(str(error))
                return
        self._live.notice(f"The model is now {self.model() or 'the default'}.")

    async def new_session(self) -> None:
        """Start a new session, after the running turn if there is one."""
        async with self.busy:
            await self.put_down_locked()
            self._memory.session_id = None
            self._live.notice("The next turn starts a new session.")

    async def put_down_locked(self, *, at_once: bool = False) -> None:
        """End the CLI; the next turn resumes the session. The caller holds `busy` or ends the process."""
        claude, self._claude = self._claude, None
        if claude is not None:
            await claude.put_down(at_once=at_once)

    async def _run(self, prompt: str, row: TurnRow) -> TurnOutcome:
        # The first use of the SDK.
        from hive.harness.claude import CliEnded
        from hive.harness.turn import Interrupted

        statistics = None
        try:
            claude = await self._connected()
            self._turn, statistics = self._new_turn(claude)
            if self._interrupt_as is not None:
                self._turn.interrupt(self._interrupt_as)
            outcome = await self._turn.run(prompt)
        except CliEnded as ended:
            await self._discard(ended)
            outcome = ended.outcome if isinstance(ended, Interrupted) else failed(str(ended))
        if statistics is not None:
            statistics.fill(row)
            self._memory.session_id = statistics.session_id or self._memory.session_id
        if outcome.requeue == "needs_login":
            # The CLI reads its credentials only at its start.
            await self.put_down_locked()
        return outcome

    async def _connected(self) -> "Claude":
        """Return the live CLI; start it if none runs.

        Raises:
            CliEnded: the CLI does not start.
        """
        if self._claude is not None:
            return self._claude
        from hive.harness.claude import Claude, SessionGone

        claude = Claude(self._options)
        try:
            await claude.connect()
        except SessionGone as gone:
            self._live.notice(f"{gone} A new one is started.")
            self._memory.session_id = None
            await claude.put_down(at_once=True)
            claude = Claude(self._options)
            await claude.connect()
        self._claude = claude
        return claude

    def _options(self, on_stderr: Any) -> Any:
        from hive.harness import options

        self._env.cli_settings.mkdir(parents=True, exist_ok=True, mode=0o700)
        return options.build(
            self._env,
            self.configuration(),
            self._toolbox,
            model=self.model(),
            resume=self._memory.session_id,
            use_key=self._login.use_key,
            on_stderr=on_stderr,
        )

    def _new_turn(self, claude: "Claude") -> "tuple[Turn, TurnStatistics]":
        from hive.harness.turn import Turn
        from hive.harness.turn_statistics import TurnStatistics

        statistics = TurnStatistics(self._live)
        minutes = self.configuration().limits.turn_minutes or TURN_LIMIT_MINUTES
        return Turn(claude, statistics, limit_s=minutes * 60.0), statistics

    async def _discard(self, ended: Exception) -> None:
        """Drop a CLI that has ended. Keep its session, unless the CLI reported that the session does not exist."""
        from hive.harness.claude import SessionGone

        if isinstance(ended, SessionGone):
            self._memory.session_id = None
        await self.put_down_locked(at_once=True)

    async def _count_open(self, row: TurnRow) -> None:
        with contextlib.suppress(DaemonAway, DaemonRefused, TimeoutError):
            async with asyncio.timeout(COUNTS_AWAY_S):
                threads = await self._daemon.tool("open_threads", waits_s=0, away_s=COUNTS_AWAY_S)
                reminders = await self._daemon.tool("count_pending_reminders", waits_s=0, away_s=COUNTS_AWAY_S)
                row.open_threads_count = len(threads.get("threads", []))
                row.open_reminders_count = reminders.get("count")

    def _record(self, row: TurnRow) -> None:
        problem = self._stats.record(row, time.time_ns() // 1_000_000)
        if problem:
            log.warning("harness.stats_failed", error=problem)
        self._live.line(
            "turn_ended",
            result_kind=row.result_kind,
            note=row.note,
            duration_ms=row.duration_ms,
            model=row.model,
            **{name: getattr(row, name) for name in TOKEN_COLUMNS},
            tool_calls=row.tool_call_count,
        )


def cli_path() -> Path:
    """Path of the CLI bundled with the SDK, found without importing the SDK."""
    import importlib.util

    found = importlib.util.find_spec("claude_agent_sdk")
    if found is None or found.origin is None:
        raise FileNotFoundError("claude_agent_sdk is not installed")
    return Path(found.origin).parent / "_bundled" / "claude"


def program_file() -> tuple[int, int] | None:
    """Identifies the installed package: inode and time of its first file. None while an installer replaces it."""
    try:
        found = Path(hive.__file__).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def sdk_loaded() -> bool:
    """Whether this process has imported the SDK."""
    return "claude_agent_sdk" in sys.modules
