"""Runs one program with limits on time, memory, file size and output. Used for git and nix."""

import contextlib
import os
import resource
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO

import msgspec

STDERR_KEPT_BYTES = 16 * 1024
CHUNK_BYTES = 64 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one run."""

    time_s: float
    output_bytes: int
    file_bytes: int | None = None
    """Size limit of each file it writes."""
    memory_bytes: int | None = None
    """Address space of the process."""


class Done(msgspec.Struct, frozen=True):
    """Exit status and output. Only the end of standard error is kept."""

    status: int
    stdout: bytes
    stderr: bytes


class TooSlow(Exception):
    """The program was killed at its time limit."""


class TooMuchOutput(Exception):
    """The program was killed. `output` is what it printed before."""

    def __init__(self, output: bytes) -> None:
        self.output = output


def run(argv: Sequence[str], env: Mapping[str, str], limits: Limits, stdin: bytes = b"") -> Done:
    """Run the program in its own session, in `/`, with exactly this environment.

    Raises:
        FileNotFoundError: the program is missing. TooSlow, TooMuchOutput.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd="/",
        umask=0o022,
        start_new_session=True,
    )
    try:
        _restrict(process.pid, limits)
        deadline = time.monotonic() + limits.time_s
        stdout, stderr = _pump(process, stdin, deadline, limits.output_bytes)
        return Done(process.wait(timeout=max(0.0, deadline - time.monotonic())), stdout, stderr)
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        raise TooSlow from error
    finally:
        _end(process)


def _restrict(pid: int, limits: Limits) -> None:
    with contextlib.suppress(ProcessLookupError):
        if limits.file_bytes is not None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
        if limits.memory_bytes is not None:
            resource.prlimit(pid, resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))


def _pump(process: subprocess.Popen[bytes], stdin: bytes, deadline: float, limit: int) -> tuple[bytes, bytes]:
    """Write and read all pipes concurrently. Raises TimeoutError or TooMuchOutput."""
    assert process.stdin and process.stdout and process.stderr
    out, err, rest = bytearray(), bytearray(), memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, out)
        selector.register(process.stderr, selectors.EVENT_READ, err)
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            for key, _ in selector.select(left_s):
                if key.data is None:
                    rest = _feed(process.stdin, rest)
                    if not rest:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                chunk = os.read(key.fd, CHUNK_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk)
                if key.data is err:
                    del err[:-STDERR_KEPT_BYTES]
                if len(out) > limit:
                    raise TooMuchOutput(bytes(out[:limit]))
    return bytes(out), bytes(err)


def _feed(pipe: IO[bytes], rest: memoryview) -> memoryview:
    """The unwritten rest, empty once the reader has closed the pipe."""
    try:
        return rest[os.write(pipe.fileno(), rest[:CHUNK_BYTES]) :] if rest else rest
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return memoryview(b"")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the whole session, so that no child survives. After a normal exit there is nothing to kill."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
