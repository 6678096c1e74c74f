"""Runs git isolated from user settings, hooks, prompts and protocols. Used by hive.config."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hive.config import program
from hive.config.program import Limits
from hive.errors import HiveError, Unavailable

GIT_TIME_LIMIT_S = 60
"""For one git command on a local repository."""
OUTPUT_LIMIT_BYTES = 8 * 1024 * 1024
"""Default output limit of one command. A command that exceeds it is killed."""
ERROR_SHOWN_CHARACTERS = 2_000
FILE_LIMIT_BYTES = 256 * 1024 * 1024
"""Size limit of each file that git writes."""
MEMORY_LIMIT_BYTES = 4 * 1024 * 1024 * 1024
"""Address space of one git process. A hostile pack can request any amount of memory."""
SECRET_SHORTEST = 8
"""Characters. Shorter words of a secret setting, such as `Basic`, are not redacted."""

SHA: Final = re.compile(r"[0-9a-f]{40}")
EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

_SETTINGS: Final = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.fsync": "committed,reference",
    "core.bigFileThreshold": "8m",
    "core.quotePath": "false",
    "attr.tree": EMPTY_TREE,  # Since git 2.43 a bare repository reads attributes from HEAD otherwise.
    "credential.helper": "",
    "protocol.allow": "never",
    "transfer.fsckObjects": "true",
    "fetch.fsckObjects": "true",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "http.followRedirects": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "init.defaultBranch": "main",
    "safe.bareRepository": "all",
}
_TOKEN_IN_URL: Final = re.compile(r"(?<=://)[^/@\s]+@")


class GitFailed(HiveError):
    """A git command failed. The message is git's own, shortened."""

    code = "git_failed"


class Git:
    """One repository, given by its git directory. Git discovers nothing and need not trust other owners."""

    def __init__(self, git_dir: Path, *, work_tree: Path | None = None) -> None:
        self.git_dir = git_dir
        self._where = [f"--git-dir={git_dir}"]
        if work_tree is not None:
            self._where.append(f"--work-tree={work_tree}")

    def run(
        self,
        *args: str,
        stdin: bytes = b"",
        secrets: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        time_limit_s: float = GIT_TIME_LIMIT_S,
        output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
        cut_output: bool = False,
        protocols: str = "file",
    ) -> bytes:
        """Standard output of one command. With `cut_output`, longer output is truncated instead of refused.

        `secrets` are settings passed in the environment, not as arguments. Errors redact them.

        Raises:
            GitFailed: the exit status is not 0. Unavailable: git is missing, too slow, or printed too much.
        """
        allowed = {f"protocol.{name}.allow": "always" for name in protocols.split(":")}
        secrets = secrets or {}
        env = _environment({**_SETTINGS, **allowed, **secrets}, protocols)
        env.update(environment or {})
        hidden = [
            word for value in secrets.values() for word in (value, *value.split()) if len(word) >= SECRET_SHORTEST
        ]
        limits = Limits(
            time_s=time_limit_s,
            output_bytes=output_limit_bytes,
            file_bytes=FILE_LIMIT_BYTES,
            memory_bytes=MEMORY_LIMIT_BYTES,
        )
        try:
            done = program.run(["git", *self._where, *args], env, limits, stdin)
        except FileNotFoundError as error:
            raise Unavailable("git is not installed; install the package git.") from error
        except program.TooSlow as error:
            raise Unavailable(f"git {args[0]} took longer than {time_limit_s:g} s and was killed.") from error
        except program.TooMuchOutput as said:
            if cut_output:
                return said.output
            raise Unavailable(f"git {args[0]} printed more than {output_limit_bytes} bytes and was killed.") from said
        if done.status != 0:
            raise GitFailed(f"git {args[0]} failed: {_shortened(done, hidden)}")
        return done.stdout

    def text(self, *args: str, stdin: bytes = b"") -> str:
        """Standard output of one command, stripped."""
        return self.run(*args, stdin=stdin).decode(errors="replace").strip()

    def commit(self, revision: str) -> str | None:
        """The full sha of the commit `revision`, or None. The caller has validated `revision`."""
        try:
            return self.text("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
        except GitFailed:
            return None

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether `older` is an ancestor of `newer`."""
        return self.text("rev-list", "--max-count=1", older, f"^{newer}") == ""


def _environment(settings: Mapping[str, str], protocols: str) -> dict[str, str]:
    """Inherits nothing: GIT_DIR, GIT_SSH or GIT_EXTERNAL_DIFF would change what git does."""
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "false",
        "SSH_ASKPASS": "false",
        "GIT_EDITOR": "false",
        "GIT_PAGER": "cat",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for who in ("AUTHOR", "COMMITTER"):
        env[f"GIT_{who}_NAME"] = "hive"
        env[f"GIT_{who}_EMAIL"] = "hive@localhost"
    for number, (key, value) in enumerate(settings.items()):
        env[f"GIT_CONFIG_KEY_{number}"] = key
        env[f"GIT_CONFIG_VALUE_{number}"] = value
    return env


def _shortened(done: program.Done, hidden: list[str]) -> str:
    """Git's error output on one line, secrets redacted."""
    said = done.stderr.decode(errors="replace")
    for secret in hidden:
        said = said.replace(secret, "***")
    said = _TOKEN_IN_URL.sub("***@", said)
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("hint:")]
    return "; ".join(lines)[:ERROR_SHOWN_CHARACTERS] or f"status {done.status}"
