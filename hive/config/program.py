"""Runs one foreign program with its time, memory, files and output bounded. Used by hive.config for git and nix."""

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
    """What one run may use."""

    time_s: float
    output_bytes: int
    file_bytes: int | None = None
    """No file it writes may be larger."""
    memory_bytes: int | None = None
    """Address space of the process itself."""


class Done(msgspec.Struct, frozen=True):
    """How it ended and what it said; of standard error the end is what matters and is kept."""

    status: int
    stdout: bytes
    stderr: bytes


class TooSlow(Exception):
    """It was ended at its time limit."""


class TooMuchOutput(Exception):
    """It was ended; `output` is what it had said."""

    def __init__(self, output: bytes) -> None:
        self.output = output


def run(argv: Sequence[str], env: Mapping[str, str], limits: Limits, stdin: bytes = b"") -> Done:
    """Run it in a session of its own, at `/`, with exactly this environment.

    Raises:
        FileNotFoundError: there is no such program. TooSlow, TooMuchOutput.
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
    """Feed and read all pipes at once. Raises TimeoutError or TooMuchOutput."""
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
    """What is still to be written; nothing when the reader has gone."""
    try:
        return rest[os.write(pipe.fileno(), rest[:CHUNK_BYTES]) :] if rest else rest
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return memoryview(b"")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole session, so that a child of git cannot stay behind; after a normal end nobody is left to signal."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
