"""The parent's side of a contender: a child process that runs one measurement per request."""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parent.parent
END_S = 60.0


class Contender:
    """Starts at once and measures only on request, so that one contender works at a time."""

    def __init__(self, folder: Path, argv: list[str]):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._said = folder / "stderr"
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, cwd=ROOT
            )
        self._reply()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._reply()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} ended: {self._said.read_text()[-2_000:]}")
        reply: dict[str, Any] = json.loads(line)
        return reply


def own(module: str, folder: Path, *arguments: str) -> Contender:
    """A contender that runs with hive's interpreter."""
    return Contender(folder, [sys.executable, "-m", f"benchmarks.contenders.{module}", *arguments])
