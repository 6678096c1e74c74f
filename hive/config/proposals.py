"""Proposals pinned in `applied`, the tags that tell their story, and where main goes. Used by the config pipeline."""

import shutil
import tempfile
from pathlib import Path
from typing import Final, Literal

import msgspec

from hive.config import quarantine
from hive.config.git import SHA
from hive.config.repositories import MAIN, UNFINISHED, Repositories, commit_on
from hive.config.shown import shown
from hive.errors import AlreadyDone, NotFound, Refused
from hive.events.base import ApprovalId
from hive.names import AgentName
from hive.paths import Paths

TAG_MESSAGE_MAX_CHARACTERS = 16_000
DIFF_LIMIT_BYTES = 1024 * 1024
"""A longer diff is cut, and says so."""
HISTORY_MAX = 200
"""Applied configurations that can be rolled back to."""

Kind = Literal["proposal", "approved", "building", "deployed", "failed", "denied"]
KINDS: Final[tuple[Kind, ...]] = ("proposal", "approved", "building", "deployed", "failed", "denied")
_ROLLED_BACK: Final = "Rolled-Back-To"


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """What a proposal would change; the text is safe to show."""

    base: str
    sha: str
    text: str
    cut: bool = False
    """The text is not all of it."""
    stale: bool = False
    """It does not hold everything that is applied now; approving it is refused."""


class Proposals:
    def __init__(self, paths: Paths, repositories: Repositories) -> None:
        self._paths = paths
        self._repositories = repositories

    def pin(self, name: AgentName, id: ApprovalId, commit_ref: str) -> str:
        """Fetch a commit of `proposed` and tag it `proposal/<id>`; its full sha.

        Raises:
            Refused, NotFound, LimitReached: with what to do about it; nothing is pinned.
        """
        with self._repositories.held(name):
            try:
                return self._pin(name, id, commit_ref)
            except (Refused, NotFound):
                # A git gc of the manager's may have moved objects from loose files to a pack between our two looks.
                return self._pin(name, id, commit_ref)

    def _pin(self, name: AgentName, id: ApprovalId, commit_ref: str) -> str:
        applied = self._repositories.applied(name)
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._paths.agent(name)))
        try:
            sha = quarantine.taken(self._paths.proposed(name), folder / "quarantine", commit_ref)
            quarantine.fetch(folder / "quarantine", applied, tag_ref("proposal", id))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return sha

    def pin_own(self, name: AgentName, id: ApprovalId, sha: str) -> str:
        """Tag a commit that the daemon made itself for the operator. Raises AlreadyDone: another one is pinned."""
        self.mark(name, id, "proposal", sha)
        return sha

    def check_pinned(self, name: AgentName, id: ApprovalId, sha: str) -> None:
        """That the pinned commit is still the one that was seen.

        Raises:
            Refused: the tag moved or is gone.
        """
        found = self.marked(name, id, "proposal")
        if found != sha:
            now = "is gone" if found is None else f"points at {found}"
            raise Refused(f"The tag proposal/{id} {now}, not at {sha} that was requested; nothing is built from it.")

    def check_fresh(self, name: AgentName, sha: str) -> None:
        """That deploying the commit undoes nothing that was applied since it was made.

        Raises:
            Refused: it does not descend from applied main.
        """
        main = self._repositories.main(name)
        if not self._repositories.applied(name).is_ancestor(main, sha):
            raise Refused(
                f"{sha[:12]} does not hold {main[:12]}, which is applied to {name} now; applying it would silently "
                "undo that. Merge applied main into the proposal (git pull applied main) and request it again."
            )

    def mark(self, name: AgentName, id: ApprovalId, kind: Kind, sha: str, note: str | None = None) -> None:
        """Set `<kind>/<id>`, annotated when there is a note; the same again changes nothing.

        Raises:
            AlreadyDone: it is set to another commit.
        """
        with self._repositories.held(name):
            git = self._repositories.applied(name)
            found = self.marked(name, id, kind)
            if found == sha:
                return
            if found is not None:
                raise AlreadyDone(f"The tag {kind}/{id} of {name} already names {found}.")
            if note is None:
                git.run("update-ref", tag_ref(kind, id), sha, "")
            else:
                message = shown(note[:TAG_MESSAGE_MAX_CHARACTERS]).encode()
                git.run("tag", "--annotate", "--cleanup=verbatim", "--file=-", f"{kind}/{id}", sha, stdin=message)

    def marked(self, name: AgentName, id: ApprovalId, kind: Kind) -> str | None:
        """The commit that `<kind>/<id>` names, if set."""
        return self._repositories.applied(name).commit(tag_ref(kind, id))

    def all_marked(self, name: AgentName) -> set[tuple[str, ApprovalId]]:
        """Every tag that is set, as (kind, id); one run of git whatever their number."""
        listed = self._repositories.applied(name).text("for-each-ref", "--format=%(refname)", "refs/tags").split()
        parts = [ref.removeprefix("refs/tags/").partition("/") for ref in listed]
        return {(kind, ApprovalId(int(id))) for kind, _, id in parts if kind in KINDS and id.isdigit()}

    def note_of(self, name: AgentName, id: ApprovalId, kind: Kind) -> str | None:
        """The text of an annotated tag."""
        if self.marked(name, id, kind) is None:
            return None
        return self._repositories.applied(name).text("for-each-ref", "--format=%(contents)", tag_ref(kind, id))

    def deploy(self, name: AgentName, id: ApprovalId, sha: str) -> None:
        """Main moves to the commit and `deployed/<id>` is set, both or neither.

        Raises:
            Refused: it is stale by now.
        """
        with self._repositories.held(name):
            if self.marked(name, id, "deployed") == sha:
                return
            self.check_fresh(name, sha)
            moves = f"update {MAIN} {sha} {self._repositories.main(name)}\ncreate {tag_ref('deployed', id)} {sha}\n"
            git = self._repositories.applied(name)
            git.run("update-ref", "-m", f"deployed/{id}", "--stdin", stdin=moves.encode())

    def take_back(self, name: AgentName, id: ApprovalId, sha: str) -> bool:
        """Undo `deploy`: main is what it was before, in the history too. False: it is not deployed.

        The tag goes first. A daemon that starts between the two deploys again and comes here again.
        """
        with self._repositories.held(name):
            git = self._repositories.applied(name)
            if self.marked(name, id, "deployed") != sha or self._repositories.main(name) != sha:
                return False
            git.run("update-ref", "-d", tag_ref("deployed", id), sha)
            git.run("reflog", "delete", "--rewrite", "--updateref", f"{MAIN}@{{0}}")
            return True

    def diff(self, name: AgentName, sha: str) -> Diff:
        """What the commit changes, or changed, in the applied configuration."""
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
        return Diff(base=base, sha=sha, text=shown(raw), cut=cut, stale=stale)

    def history(self, name: AgentName) -> list[str]:
        """Every commit that main was, newest first."""
        git = self._repositories.applied(name)
        listed = git.text("log", "--walk-reflogs", f"--max-count={HISTORY_MAX}", "--format=%H", MAIN).split()
        return listed or [self._repositories.main(name)]

    def rollback_commit(self, name: AgentName, to: str | None = None) -> str:
        """A commit on main with the files of an earlier main: of the one before, unless `to` names one.

        Rolling back again goes further back. No ref moves.

        Raises:
            NotFound: there is no earlier one; Refused: nothing would change.
        """
        with self._repositories.held(name):
            git, main = self._repositories.applied(name), self._repositories.main(name)
            target = self._earlier(name, to)
            message = f"Roll back to {target[:12]}\n\n{_ROLLED_BACK}: {target}\n"
            if git.text("rev-parse", f"{target}^{{tree}}") == git.text("rev-parse", f"{main}^{{tree}}"):
                raise Refused(f"Nothing to roll back: {name}'s configuration is already that of {target[:12]}.")
            return commit_on(git, main, {}, message=message, author="operator", like=target)

    def _earlier(self, name: AgentName, to: str | None) -> str:
        history = self.history(name)
        if to is not None:
            matches = [sha for sha in history if sha.startswith(to)]
            if len(to) < 4 or not matches:
                raise NotFound(f"{to} was never applied to {name}; hive config {name} lists what was.")
            return matches[0]
        git, at = self._repositories.applied(name), 0
        trailer = f"--format=%(trailers:key={_ROLLED_BACK},valueonly)"
        while (target := git.text("log", "--max-count=1", trailer, history[at])) in history[at + 1 :]:
            at = history.index(target, at + 1)
        if at + 1 >= len(history):
            raise NotFound(f"{name} has no configuration before this one.")
        return history[at + 1]


def tag_ref(kind: Kind, id: ApprovalId) -> str:
    return f"refs/tags/{kind}/{id}"
