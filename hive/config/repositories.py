"""An agent's two repositories and its checked-out generations. Used by the agent actor and the pipeline."""

import contextlib
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Final

import structlog

from hive.config import tree
from hive.config.agent_file import AGENT_FILE, AgentFile, load, parse
from hive.config.git import SHA, Git
from hive.errors import BadRequest, NotFound, Refused
from hive.names import MANAGER, AgentName, is_agent_name
from hive.paths import Paths

log = structlog.get_logger()

GENERATIONS_KEPT = 5
"""Checked-out configurations per agent. Older ones can be checked out again from git."""
MESSAGE_MAX_BYTES = 16 * 1024

MAIN: Final = "refs/heads/main"
TEMPLATE: Final = ("agent.toml", "prompt.md", "flake.nix", "agent.nix")
_ANY_UNFINISHED: Final = ".unfinished-"
UNFINISHED: Final = f"{_ANY_UNFINISHED}{secrets.token_hex(4)}-"
"""Prefix of folders that this process is writing. Leftovers of a crashed daemon have another prefix."""


class Repositories:
    """Thread-safe: operations on one agent are serialised."""

    def __init__(self, paths: Paths, *, generations_kept: int = GENERATIONS_KEPT) -> None:
        self._paths = paths
        self._generations_kept = generations_kept
        self._locks: dict[AgentName, threading.RLock] = {}

    @contextlib.contextmanager
    def locked(self, name: AgentName) -> Iterator[None]:
        """Serialise changes of one agent."""
        assert is_agent_name(name), name
        with self._locks.setdefault(name, threading.RLock()):
            yield

    def applied(self, name: AgentName) -> Git:
        """The applied repository of an agent: a git directory named `.git` without a work tree.

        Raises:
            NotFound: the agent has no repository yet.
        """
        git_dir = self._paths.applied(name) / ".git"
        if not git_dir.is_dir():
            raise NotFound(f"{name} has no configuration yet.")
        return Git(git_dir)

    def ensure(self, name: AgentName) -> str:
        """Create missing repositories and return the sha of applied main."""
        with self.locked(name):
            for folder in (self._paths.agent(name), self._paths.all_applied, self._paths.all_proposed):
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not (self._paths.applied(name) / ".git").is_dir():
                self._make_applied(name)
            with contextlib.suppress(OSError):  # Removes an empty folder only: the manager may have deleted everything.
                self._paths.proposed(name).rmdir()
            if not os.path.lexists(self._paths.proposed(name)):
                self._make_proposed(name)
            for repository in (self._paths.applied(name), self._paths.proposed(name)):
                link = self._paths.agent(name) / repository.parent.name
                if not os.path.lexists(link):
                    link.symlink_to(os.path.relpath(repository, link.parent))
            return self.main(name)

    def main(self, name: AgentName) -> str:
        """The full sha of applied main, the configuration to run."""
        sha = self.applied(name).commit(MAIN)
        if sha is None:
            raise NotFound(f"{name} has no applied configuration; its repository is damaged.")
        return sha

    def generation(self, name: AgentName, sha: str) -> Path:
        """The folder with the checked files of an applied commit, written atomically.

        Raises:
            BadRequest: agent.toml or the tree is invalid; the message names file, line and key.
            NotFound: no such commit in `applied`.
        """
        with self.locked(name):
            target = self.generation_folder(name, sha)
            if target.is_dir():
                os.utime(target)
                return target
            with self.unfinished(name) as folder:
                self.check_out(name, sha, folder)
                return self.finish(name, sha, folder)

    def running_file(self, name: AgentName, revision: str | None) -> AgentFile:
        """The `agent.toml` of the commit that an agent runs; the defaults if it runs none that can be read."""
        if revision is None:
            return AgentFile()
        try:
            return load(self.generation_folder(name, revision))
        except BadRequest as error:
            log.warning("config.bad_agent_file", agent=name, error=str(error))
            return AgentFile()

    def generation_folder(self, name: AgentName, sha: str) -> Path:
        """The path of a commit's generation, which may not exist yet."""
        if SHA.fullmatch(sha) is None:
            raise BadRequest(f"{sha!r} is not a full commit id.")
        return self._paths.generations(name) / sha

    @contextlib.contextmanager
    def unfinished(self, name: AgentName) -> Iterator[Path]:
        """A new folder beside the generations, removed on exit unless `finish` renamed it."""
        parent = self._paths.generations(name)
        parent.mkdir(mode=0o755, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def check_out(self, name: AgentName, sha: str, folder: Path) -> AgentFile:
        """Write the files of a commit into an empty folder. Raises as `generation`."""
        git = self.applied(name)
        if git.commit(sha) != sha:
            raise NotFound(f"{sha} is not a commit of {name}'s applied repository.")
        found = tree.entries(git, sha)
        agent_file = _checked_agent_file(git, found)
        folder.chmod(0o755)
        tree.write(git, found, folder)
        return agent_file

    def finish(self, name: AgentName, sha: str, folder: Path) -> Path:
        """Rename an unfinished folder to the generation of this commit and remove the oldest ones."""
        target = self.generation_folder(name, sha)
        folder.chmod(0o755)
        folder.rename(target)
        os.utime(target)
        tree.flush_folder(target.parent)
        self._drop_old(name, keep=sha)
        return target

    def sweep(self, name: AgentName) -> None:
        """Remove unfinished folders of a crashed daemon."""
        for left in self.leftovers(name):
            shutil.rmtree(left, ignore_errors=True)

    def leftovers(self, name: AgentName) -> list[Path]:
        """Unfinished folders of a crashed daemon."""
        parents = (self._paths.agent(name), self._paths.generations(name))
        found = [path for parent in parents for path in parent.glob(f"{_ANY_UNFINISHED}*")]
        return [path for path in found if not path.name.startswith(UNFINISHED)]

    def agent_file(self, name: AgentName, sha: str) -> AgentFile:
        """The checked agent.toml of a commit. Raises as `generation`."""
        git = self.applied(name)
        return _checked_agent_file(git, tree.entries(git, sha))

    def files(self, name: AgentName, sha: str) -> dict[str, bytes]:
        """The contents of a commit by path, without links."""
        git = self.applied(name)
        found = [entry for entry in tree.entries(git, sha) if entry.is_file]
        return {entry.path: content for entry, content in zip(found, tree.contents(git, found), strict=True)}

    def commit_files(
        self,
        name: AgentName,
        changes: Mapping[str, bytes | None],
        *,
        message: str,
        author: str = "hive",
        parent: str | None = None,
    ) -> str:
        """Commit changes on `parent`, by default applied main. None removes a file. No ref moves.

        Raises:
            BadRequest: a path is not allowed. Refused: nothing would change.
        """
        git = self.applied(name)
        parent = parent or self.main(name)
        sha = commit_on(git, parent, changes, message=message, author=author)
        if git.text("rev-parse", f"{sha}^{{tree}}") == git.text("rev-parse", f"{parent}^{{tree}}"):
            raise Refused(f"Nothing to change: {name} already has this configuration.")
        return sha

    def _make_applied(self, name: AgentName) -> None:
        with self._unfinished_repository(name) as folder:
            git = Git(folder / ".git")
            git.run("init", "--quiet", "--template=", str(folder))
            # Without a work tree `git -C applied log` works, and no checkout can be out of date.
            git.run("config", "core.bare", "true")
            git.run("config", "core.logAllRefUpdates", "true")
            shutil.rmtree(self._paths.applied(name), ignore_errors=True)
            sha = commit_on(git, None, template(), message=f"Configuration of {name} from the template")
            git.run("update-ref", "-m", "template", MAIN, sha, "")
            folder.rename(self._paths.applied(name))
        tree.flush_folder(self._paths.all_applied)

    def _make_proposed(self, name: AgentName) -> None:
        """Afterwards the manager owns the repository and the daemon trusts nothing in it."""
        with self._unfinished_repository(name) as folder:
            git = Git(folder / ".git", work_tree=folder)
            git.run("init", "--quiet", "--template=", str(folder))
            git.run("config", "user.name", MANAGER)
            git.run("config", "user.email", f"{MANAGER}@hive")
            git.run("config", "remote.applied.url", f"../../applied/{name}")  # Valid on the host and in the container.
            git.run("config", "remote.applied.fetch", "+refs/heads/*:refs/remotes/applied/*")
            # A clone would hard-link object files of `applied`, and chown would give them away.
            source = str(self._paths.applied(name))
            git.run("fetch", "--quiet", "--no-tags", source, f"{MAIN}:refs/remotes/applied/main")
            git.run("reset", "--quiet", "--hard", "refs/remotes/applied/main")
            _give(folder, self._paths.all_proposed.stat())
            folder.rename(self._paths.proposed(name))

    @contextlib.contextmanager
    def _unfinished_repository(self, name: AgentName) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._paths.agent(name)))
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _drop_old(self, name: AgentName, keep: str) -> None:
        kept = {keep, self.main(name)}
        parent = self._paths.generations(name)
        folders = [path for path in parent.iterdir() if SHA.fullmatch(path.name)]
        newest_first = sorted(folders, key=lambda path: (path.name in kept, path.stat().st_mtime_ns), reverse=True)
        for path in newest_first[self._generations_kept :]:
            if path.name not in kept:
                going = path.with_name(f"{UNFINISHED}{path.name}")
                path.rename(going)  # A partly removed folder must not look like a generation.
                shutil.rmtree(going, ignore_errors=True)


def template() -> dict[str, bytes | None]:
    """The initial files of a new agent."""
    folder = resources.files("hive.config") / "template"
    return {name: (folder / name).read_bytes() for name in TEMPLATE}


def commit_on(
    git: Git,
    parent: str | None,
    changes: Mapping[str, bytes | None],
    *,
    message: str,
    author: str = "hive",
    like: str | None = None,
) -> str:
    """Commit the files of `like`, by default of the parent, with these changes, without a work tree.

    Raises:
        BadRequest: a path is not allowed.
    """
    with tempfile.TemporaryDirectory(prefix="hive-index-") as folder:
        environment = {"GIT_INDEX_FILE": f"{folder}/index", "GIT_AUTHOR_NAME": author.strip() or "hive"}
        if parent is not None:
            git.run("read-tree", like or parent, environment=environment)
        for path, content in changes.items():
            tree.checked_path(path.encode())
            if content is None:
                line = f"0 {'0' * 40}\t{path}\0"
            else:
                blob = git.text("hash-object", "-w", "--no-filters", "--stdin", stdin=content)
                line = f"{_mode_of(git, parent, path)} {blob}\t{path}\0"
            git.run("update-index", "-z", "--index-info", stdin=line.encode(), environment=environment)
        written = git.run("write-tree", environment=environment).decode().strip()
        parents = [] if parent is None else ["-p", parent]
        body = message.encode()[:MESSAGE_MAX_BYTES]
        made = git.run("commit-tree", written, *parents, "-F", "-", stdin=body, environment=environment)
        return made.decode().strip()


def _mode_of(git: Git, parent: str | None, path: str) -> str:
    """The mode to write: an executable file stays executable."""
    line = git.text("ls-tree", "-z", parent, "--", path) if parent else ""
    return tree.PROGRAM if line.startswith(tree.PROGRAM) else tree.FILE


def _checked_agent_file(git: Git, found: list[tree.Entry]) -> AgentFile:
    by_path = {entry.path: entry for entry in found}
    entry = by_path.get(AGENT_FILE)
    if entry is None:
        return AgentFile()
    if not entry.is_file:
        raise BadRequest(f"{AGENT_FILE}: must be a file, not a link.")
    agent_file = parse(tree.contents(git, [entry])[0], AGENT_FILE)
    if agent_file.prompt != AgentFile().prompt and agent_file.prompt not in by_path:
        raise BadRequest(f"{AGENT_FILE}: prompt: there is no file {agent_file.prompt} in the repository.")
    return agent_file


def _give(folder: Path, owner: os.stat_result) -> None:
    """Change the owner to that of the folder of all proposed repositories.

    This is the daemon if mounts can be id-mapped, else the manager's uid. No other process can access `folder` yet.
    """
    if owner.st_uid == folder.stat().st_uid:
        return
    for root, folders, files in os.walk(folder):
        for path in (root, *(f"{root}/{name}" for name in (*folders, *files))):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
