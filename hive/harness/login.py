"""Tracks whether the CLI has valid credentials, and runs the CLI's login flow in a pseudo-terminal."""

import asyncio
import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import ptyprocess  # type: ignore[import-untyped]
import watchfiles

from hive.clock import SystemClock
from hive.harness.environment import Environment
from hive.harness.live import Live
from hive.harness.memory import Fingerprint, Refused

TERMINAL_COLUMNS = 4_000
"""Wide enough to keep the URL in one line."""
TERMINAL_ROWS = 60
FLOW_LIMIT_S = 15 * 60.0
OUTPUT_LIMIT_BYTES = 64 * 1024
CODE_PROMPT = "Paste code"
WATCH_STEP_MS = 200
WATCH_DEBOUNCE_MS = 400
REFUSED_RETRY_MS = 15 * 60_000
"""A refused key is tried again after this time; it may be valid again."""

_ESCAPES = re.compile(r"\x1b(\[[0-9;?<>=]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|[=>78cDEM])")
_URL = re.compile(r"https://[^\s\"'<>\x1b]+")

_now_ms = SystemClock().now_ms


class Login:
    """Tracks which credentials exist and which of them the API refused."""

    def __init__(self, env: Environment, was: Refused) -> None:
        self._env = env
        self.state = was

    def usable(self) -> bool:
        """Whether there are credentials that the API has not refused."""
        return self.use_key or self._fresh_file()

    @property
    def use_key(self) -> bool:
        """Whether to use the environment's key. A login made after the key was refused replaces it."""
        return self._env.has_key and not self.state.key

    @property
    def doubtful(self) -> bool:
        """Whether refused credentials are being retried; only a turn shows if they work."""
        return self.state.doubtful

    def retry_in_s(self) -> float | None:
        """Time until refused credentials are retried; None if none were refused."""
        return None if self.state.retry_ms is None else max(0.0, (self.state.retry_ms - _now_ms()) / 1000)

    def refused(self) -> None:
        """Record that the API refused the current credentials with 401."""
        self.state = Refused(file=self._fingerprint(), key=self._env.has_key, retry_ms=_now_ms() + REFUSED_RETRY_MS)

    def forgive(self) -> None:
        """Allow the refused credentials to be retried."""
        self.state = Refused(doubtful=True)

    def accepted(self) -> None:
        """Record that a turn reached the model."""
        self.state.doubtful = False

    def _fresh_file(self) -> bool:
        now = self._fingerprint()
        return now is not None and now != self.state.file

    def _fingerprint(self) -> Fingerprint | None:
        try:
            found = self._env.credentials.stat()
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size) if found.st_size else None


async def watch(credentials: Path, changed: Callable[[], None]) -> None:
    """Call `changed` on each change of the credentials file until cancelled. Its folder must exist."""
    async for changes in watchfiles.awatch(
        credentials.parent, recursive=False, step=WATCH_STEP_MS, debounce=WATCH_DEBOUNCE_MS, watch_filter=None
    ):
        if any(path.endswith(credentials.name) for _, path in changes):
            changed()


class LoginFlow:
    """Runs `claude auth login` in a pseudo-terminal. URL and result go to the live stream; the code is typed in."""

    def __init__(self, env: Environment, live: Live, cli: Callable[[], Path]) -> None:
        self._env = env
        self._live = live
        self._cli = cli
        self._terminal: ptyprocess.PtyProcess | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        return self._running is not None and not self._running.done()

    def start(self) -> None:
        """Start the flow; a running one is ended first."""
        self.stop()
        self._running = asyncio.create_task(self._run())

    def code(self, text: str) -> None:
        """Type the operator's code."""
        if self._terminal is None or not self.active:
            self._live.line("login_result", ok=False, text="No login is in progress; start one first.")
            return
        try:
            self._terminal.write(text.strip().encode() + b"\r")
        except OSError:
            self._live.line("login_result", ok=False, text="The login ended before the code arrived; start it again.")

    def stop(self) -> None:
        """End the flow."""
        if self._running is not None:
            self._running.cancel()
        if self._terminal is not None:
            with contextlib.suppress(OSError, ptyprocess.PtyProcessError):
                self._terminal.terminate(force=True)
        self._terminal = None

    async def _run(self) -> None:
        environment = {
            **os.environ,
            "CLAUDE_CONFIG_DIR": str(self._env.cli_settings),
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "BROWSER": "true",
            "TERM": "xterm",
        }
        try:
            # Spawning waits for exec; use a thread to keep the event loop free.
            terminal = await asyncio.to_thread(
                ptyprocess.PtyProcess.spawn,
                [str(self._cli()), "auth", "login"],
                cwd=str(self._env.state),
                env=environment,
                dimensions=(TERMINAL_ROWS, TERMINAL_COLUMNS),
            )
        except OSError as error:
            self._live.line("login_result", ok=False, text=f"The login could not be started: {error.strerror}.")
            return
        self._terminal = terminal
        try:
            async with asyncio.timeout(FLOW_LIMIT_S):
                last = await self._read(terminal)
            code = await asyncio.to_thread(terminal.wait)
            self._live.line("login_result", ok=code == 0, text=last or f"exit code {code}")
        except TimeoutError:
            terminal.terminate(force=True)
            self._live.line("login_result", ok=False, text="The login timed out; start it again.")

    async def _read(self, terminal: ptyprocess.PtyProcess) -> str:
        """Read the output to its end and return its last line."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        # The event may be set without data to read, and a read must not block the event loop.
        os.set_blocking(terminal.fd, False)
        loop.add_reader(terminal.fd, readable.set)
        raw, output, url = b"", "", ""
        try:
            while True:
                await readable.wait()
                readable.clear()
                try:
                    chunk = os.read(terminal.fd, 65_536)
                except BlockingIOError:
                    continue
                except OSError:  # Linux returns EIO when the other end of a pseudo-terminal is closed.
                    chunk = b""
                if not chunk:
                    break
                raw = (raw + chunk)[-OUTPUT_LIMIT_BYTES:]
                output = _ESCAPES.sub("", raw.decode(errors="replace"))
                found = _URL.search(output)
                # The URL is complete only when more output follows it.
                if found and found.end() < len(output) and found[0] != url:
                    url = found[0]
                    self._live.line("login_url", url=url)
        finally:
            loop.remove_reader(terminal.fd)
        lines = [line.strip() for line in output.replace("\r", "\n").splitlines() if line.strip()]
        # The prompt's line echoes the code; do not show it.
        lines = [line for line in lines if not line.startswith(CODE_PROMPT)]
        return lines[-1][:500] if lines else ""
