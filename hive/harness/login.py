"""Whether the CLI can speak to the API, and the operator's login: the CLI's own flow in a pseudo-terminal."""

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
"""Wide, so that the URL stands in one line."""
TERMINAL_ROWS = 60
FLOW_LIMIT_S = 15 * 60.0
OUTPUT_LIMIT_BYTES = 64 * 1024
CODE_PROMPT = "Paste code"
WATCH_STEP_MS = 200
WATCH_DEBOUNCE_MS = 400
REFUSED_RETRY_MS = 15 * 60_000
"""A key that was refused may have been allowed again since."""

_ESCAPES = re.compile(r"\x1b(\[[0-9;?<>=]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|[=>78cDEM])")
_URL = re.compile(r"https://[^\s\"'<>\x1b]+")

_now_ms = SystemClock().now_ms


class Login:
    """Knows which credentials there are and which of them the API refused."""

    def __init__(self, env: Environment, was: Refused) -> None:
        self._env = env
        self.state = was

    def usable(self) -> bool:
        """Something is there that was not refused yet."""
        return self.use_key or self._fresh_file()

    @property
    def use_key(self) -> bool:
        """The key of the environment counts; a login made after it was refused takes its place."""
        return self._env.has_key and not self.state.key

    @property
    def doubtful(self) -> bool:
        """What was refused is being tried again; only a turn can tell."""
        return self.state.doubtful

    def retry_in_s(self) -> float | None:
        """Until what was refused is tried again; None where nothing was."""
        return None if self.state.retry_ms is None else max(0.0, (self.state.retry_ms - _now_ms()) / 1000)

    def refused(self) -> None:
        """The API said 401 to what is there now."""
        self.state = Refused(file=self._fingerprint(), key=self._env.has_key, retry_ms=_now_ms() + REFUSED_RETRY_MS)

    def forgive(self) -> None:
        """Let what was refused be tried again."""
        self.state = Refused(doubtful=True)

    def accepted(self) -> None:
        """A turn got through to the model."""
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
    """Call `changed` whenever the credentials file changes; until cancelled. Its folder must exist."""
    async for changes in watchfiles.awatch(
        credentials.parent, recursive=False, step=WATCH_STEP_MS, debounce=WATCH_DEBOUNCE_MS, watch_filter=None
    ):
        if any(path.endswith(credentials.name) for _, path in changes):
            changed()


class LoginFlow:
    """`claude auth login` in a pseudo-terminal: its URL and its result go to the live stream, the code comes back."""

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
        """Begin; a flow that is already running is ended first."""
        self.stop()
        self._running = asyncio.create_task(self._run())

    def code(self, text: str) -> None:
        """Type the code that the operator got."""
        if self._terminal is None or not self.active:
            self._live.line("login_result", ok=False, text="No login is going on; start one first.")
            return
        try:
            self._terminal.write(text.strip().encode() + b"\r")
        except OSError:
            self._live.line("login_result", ok=False, text="The login ended before the code came; start it again.")

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
            # It waits for the program to be executed; in a thread, so that the loop does not.
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
            self._live.line("login_result", ok=False, text="The login was given up: nobody finished it in time.")

    async def _read(self, terminal: ptyprocess.PtyProcess) -> str:
        """Follow the output to its end; returns its last line."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        # The event may be set once more than there is something to read, and a read must not hold the loop up.
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
                except OSError:  # Linux says EIO when the other side of a pseudo-terminal is gone.
                    chunk = b""
                if not chunk:
                    break
                raw = (raw + chunk)[-OUTPUT_LIMIT_BYTES:]
                output = _ESCAPES.sub("", raw.decode(errors="replace"))
                found = _URL.search(output)
                # The end of the URL is certain once something follows it.
                if found and found.end() < len(output) and found[0] != url:
                    url = found[0]
                    self._live.line("login_url", url=url)
        finally:
            loop.remove_reader(terminal.fd)
        lines = [line.strip() for line in output.replace("\r", "\n").splitlines() if line.strip()]
        # The prompt's line echoes the code, which nobody else needs to see.
        lines = [line for line in lines if not line.startswith(CODE_PROMPT)]
        return lines[-1][:500] if lines else ""
