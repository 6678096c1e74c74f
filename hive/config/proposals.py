"""Pins proposals in `applied`, tags their progress and moves main. Used by the config pipeline."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final, Literal

import msgspec

from hive.config import quarantine
from hive.config.escaping import escaped
from hive.config.git import SHA, Git, GitFailed
from hive.config.repositories import MAIN, UNFINISHED, Repositories, commit_on
from hive.errors import AlreadyDone, NotFound, Refused
from hive.events.base import ApprovalId
from hive.events.erasing import Spans, covers
from hive.events.segments import give_to_owner
from hive.events.texts import ERASED
from hive.names import AgentName
from hive.paths import Paths

TAG_MESSAGE_MAX_CHARACTERS = 16_000
DIFF_LIMIT_BYTES = 1024 * 1024
"""A longer diff is truncated and marked."""
HISTORY_MAX = 200
"""Earlier configurations available for rollback."""

Kind = Literal["proposal", "approved", "building", "deployed", "failed", "denied"]
KINDS: Final[tuple[Kind, ...]] = ("proposal", "approved", "building", "deployed", "failed", "denied")
_ROLLED_BACK: Final = "Rolled-Back-To"


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """The changes of a proposal. The text is escaped."""

    base: str
    sha: str
    text: str
    cut: bool = False
    """The text is truncated."""
    stale: bool = False
    """The commit does not descend from applied main, so approval is refused."""


class Proposals:
    def __init__(self, paths: Paths, repositories: Repositories) -> None:
        self._paths = paths
        self._repositories = repositories

    def pin(self, name: AgentName, id: ApprovalId, commit_ref: str) -> str:
        """Fetch a commit of `proposed`, tag it `proposal/<id>` and return its full sha.

        Raises:
            Refused, NotFound, LimitReached: nothing is pinned.
        """
        with self._repositories.locked(name):
            try:
                return self._pin(name, id, commit_ref)
            except (Refused, NotFound):
                # A concurrent git gc may have moved loose objects into a pack. Try once more.
                return self._pin(name, id, commit_ref)

    def _pin(self, name: AgentName, id: ApprovalId, commit_ref: str) -> str:
        applied = self._repositories.applied(name)
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._paths.agent(name)))
        try:
            sha = quarantine.copy_commit(self._paths.proposed(name), folder / "quarantine", commit_ref)
            quarantine.fetch(folder / "quarantine", applied, tag_ref("proposal", id))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return sha

    def pin_own(self, name: AgentName, id: ApprovalId, sha: str) -> str:
        """Tag a commit that the daemon made. Raises AlreadyDone: another commit is pinned."""
        self.tag(name, id, "proposal", sha)
        return sha

    def check_pinned(self, name: AgentName, id: ApprovalId, sha: str) -> None:
        """Check that the tag still names the pinned commit.

        Raises:
            Refused: the tag moved or is missing.
        """
        found = self.tagged(name, id, "proposal")
        if found != sha:
            now = "is missing" if found is None else f"points at {found}"
            raise Refused(f"The tag proposal/{id} {now} instead of at {sha}; the proposal is not built.")

    def check_fresh(self, name: AgentName, sha: str) -> None:
        """Check that the commit descends from applied main.

        Raises:
            Refused: deploying it would undo a later change.
        """
        main = self._repositories.main(name)
        if not self._repositories.applied(name).is_ancestor(main, sha):
            raise Refused(
                f"{sha[:12]} does not contain {main[:12]}, the commit applied to {name}; applying it would silently "
                "undo that commit. Merge applied main (git pull applied main) and request it again."
            )

    def tag(self, name: AgentName, id: ApprovalId, kind: Kind, sha: str, note: str | None = None) -> None:
        """Set the tag `<kind>/<id>`, annotated if there is a note. Idempotent.

        Raises:
            AlreadyDone: the tag names another commit.
        """
        with self._repositories.locked(name):
            git = self._repositories.applied(name)
            found = self.tagged(name, id, kind)
            if found == sha:
                return
            if found is not None:
                raise AlreadyDone(f"The tag {kind}/{id} of {name} already names {found}.")
            if note is None:
                git.run("update-ref", tag_ref(kind, id), sha, "")
            else:
                message = escaped(note[:TAG_MESSAGE_MAX_CHARACTERS]).encode()
                git.run("tag", "--annotate", "--cleanup=verbatim", "--file=-", f"{kind}/{id}", sha, stdin=message)

    def tagged(self, name: AgentName, id: ApprovalId, kind: Kind) -> str | None:
        """The commit of the tag `<kind>/<id>`, or None."""
        return self._repositories.applied(name).commit(tag_ref(kind, id))

    def all_tags(self, name: AgentName) -> set[tuple[str, ApprovalId]]:
        """All tags as (kind, id), with one git command."""
        listed = self._repositories.applied(name).text("for-each-ref", "--format=%(refname)", "refs/tags").split()
        parts = [ref.removeprefix("refs/tags/").partition("/") for ref in listed]
        return {(kind, ApprovalId(int(id))) for kind, _, id in parts if kind in KINDS and id.isdigit()}

    def tag_message(self, name: AgentName, id: ApprovalId, kind: Kind) -> str | None:
        """The message of an annotated tag."""
        if self.tagged(name, id, kind) is None:
            return None
        return self._repositories.applied(name).text("for-each-ref", "--format=%(contents)", tag_ref(kind, id))

    def erase_notes(self, name: AgentName, ids: Spans) -> bool:
        """Replace the messages of the tags `denied/<id>` and `failed/<id>` of these approvals; whether any changed.

        The old tag objects are removed from the repository. Idempotent.
        """
        with self._repositories.locked(name):
            git = self._repositories.applied(name)
            format = "%(refname) %(objecttype) %(objectname) %(*objectname) %(contents:subject)"
            listed = git.text("for-each-ref", f"--format={format}", "refs/tags/denied", "refs/tags/failed")
            changed = False
            for ref, type_, old, commit, subject in (line.split(" ", 4) for line in listed.splitlines()):
                id = ref.rpartition("/")[2]
                if type_ != "tag" or subject == ERASED or not id.isdigit() or not covers(ids, int(id)):
                    continue
                short = ref.removeprefix("refs/tags/")
                git.run("tag", "--force", "--annotate", "--message", ERASED, short, commit)
                _remove_object(git, old)
                changed = True
            for path in git.git_dir.rglob("*") if changed and os.geteuid() == 0 else ():
                give_to_owner(path, git.git_dir)
            return changed

    def deploy(self, name: AgentName, id: ApprovalId, sha: str) -> None:
        """Move main to the commit and set `deployed/<id>` atomically.

        Raises:
            Refused: the commit is stale.
        """
        with self._repositories.locked(name):
            if self.tagged(name, id, "deployed") == sha:
                return
            self.check_fresh(name, sha)
            moves = f"update {MAIN} {sha} {self._repositories.main(name)}\ncreate {tag_ref('deployed', id)} {sha}\n"
            git = self._repositories.applied(name)
            git.run("update-ref", "-m", f"deployed/{id}", "--stdin", stdin=moves.encode())

    def undo_deploy(self, name: AgentName, id: ApprovalId, sha: str) -> bool:
        """Undo `deploy`: restore main and its history. Returns False if the commit is not deployed.

        The tag is removed first. A daemon that crashes between the steps deploys and undoes again.
        """
        with self._repositories.locked(name):
            git = self._repositories.applied(name)
            if self.tagged(name, id, "deployed") != sha or self._repositories.main(name) != sha:
                return False
            git.run("update-ref", "-d", tag_ref("deployed", id), sha)
            git.run("reflog", "delete", "--rewrite", "--updateref", f"{MAIN}@{{0}}")
            return True

    def check_approvable(self, name: AgentName, id: ApprovalId, sha: str) -> None:
        """Check that the proposal still matches its pin and does not undo a later deploy. Raises Refused."""
        self.check_pinned(name, id, sha)
        self.check_fresh(name, sha)

    def diff(self, name: AgentName, sha: str) -> Diff:
        """The changes of the commit against the applied configuration, or the one before it."""
        git = self._repositories.applied(name)
        if SHA.fullmatch(sha) is None or git.commit(sha) != sha:
            raise NotFound(f"{sha} is not a commit of {name}'s applied repository.")
        base, history = self._repositories.main(name), self.history(name)
        deployed = sha in history
        if deployed:
            base = next(iter(history[history.index(sha) + 1 :]), sha)
        raw = git.run(
            "diff-tree",
            "--patch",
            "-r",
            "--text",
            "--no-ext-diff",
            "--no-textconv",
            "--no-renames",
            "--no-color",
            "--submodule=short",
            base,
            sha,
            output_limit_bytes=DIFF_LIMIT_BYTES,
            cut_output=True,
        )
        cut = len(raw) >= DIFF_LIMIT_BYTES
        stale = not deployed and not git.is_ancestor(base, sha)
        return Diff(base=base, sha=sha, text=escaped(raw), cut=cut, stale=stale)

    def history(self, name: AgentName) -> list[str]:
        """Every commit that main pointed at, newest first."""
        git = self._repositories.applied(name)
        listed = git.text("log", "--walk-reflogs", f"--max-count={HISTORY_MAX}", "--format=%H", MAIN).split()
        return listed or [self._repositories.main(name)]

    def rollback_commit(self, name: AgentName, to: str | None = None) -> str:
        """Commit the files of `to`, by default the previous configuration, on top of main.

        A second rollback goes one further back. No ref moves.

        Raises:
            NotFound: there is no earlier configuration. Refused: nothing would change.
        """
        with self._repositories.locked(name):
            git, main = self._repositories.applied(name), self._repositories.main(name)
            target = self._earlier(name, to)
            message = f"Roll back to {target[:12]}\n\n{_ROLLED_BACK}: {target}\n"
            if git.text("rev-parse", f"{target}^{{tree}}") == git.text("rev-parse", f"{main}^{{tree}}"):
                raise Refused(f"Nothing to roll back: {name} already has the configuration of {target[:12]}.")
            return commit_on(git, main, {}, message=message, author="operator", like=target)

    def _earlier(self, name: AgentName, to: str | None) -> str:
        history = self.history(name)
        if to is not None:
            matches = [sha for sha in history if sha.startswith(to)]
            if len(to) < 4 or not matches:
                raise NotFound(f"{to} was never applied to {name}; `hive config {name}` lists the applied commits.")
            return matches[0]
        git, at = self._repositories.applied(name), 0
        trailer = f"--format=%(trailers:key={_ROLLED_BACK},valueonly)"
        while (target := git.text("log", "--max-count=1", trailer, history[at])) in history[at + 1 :]:
            at = history.index(target, at + 1)
        if at + 1 >= len(history):
            raise NotFound(f"{name} has no configuration before this one.")
        return history[at + 1]


def _remove_object(git: Git, sha: str) -> None:
    """Remove an object that no ref reaches. `git prune` would also remove what a fetch has just stored."""
    (git.git_dir / "objects" / sha[:2] / sha[2:]).unlink(missing_ok=True)
    try:
        git.run("cat-file", "-e", sha)
    except GitFailed:
        return
    git.run("repack", "-a", "-d", "--quiet")  # Somebody packed the repository by hand.


def tag_ref(kind: Kind, id: ApprovalId) -> str:
    return f"refs/tags/{kind}/{id}"
