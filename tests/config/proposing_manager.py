"""The manager that writes a proposed repository."""

import subprocess
from pathlib import Path


class Manager:
    """The manager's git commands in a proposed repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def git(self, *args: str, check: bool = True) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.folder), "-c", "protocol.file.allow=always", *args],
            capture_output=True,
            check=check,
            text=True,
        )
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def commit(self, files: dict[str, str], message: str = "a change") -> str:
        for path, text in files.items():
            self.write(path, text)
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")
