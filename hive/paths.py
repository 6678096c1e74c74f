"""Paths of all files under the state and run folders. Used by the daemon, the command line and the audit."""

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from hive.names import AgentName

STATE_VARIABLE: Final = "HIVE_STATE"
RUN_VARIABLE: Final = "HIVE_RUN"


class Paths(msgspec.Struct, frozen=True):
    """The two folders of one hive. Computes paths only: creates and checks nothing."""

    state: Path
    """Must be backed up: the log, the agents' repositories and their state."""
    run: Path
    """Sockets and run records. Lost at a reboot."""

    @property
    def lock(self) -> Path:
        """Locked (flock) by the daemon of this state; see `hive.lock`."""
        return self.state / "daemon.lock"

    @property
    def events(self) -> Path:
        return self.state / "events.db"

    @property
    def projections(self) -> Path:
        return self.state / "projections.db"

    @property
    def anchors(self) -> Path:
        """Recorded ends of the log, one JSON line each. They reveal a truncated log."""
        return self.state / "anchors.jsonl"

    @property
    def search(self) -> Path:
        """The full-text index, derived from the log when somebody searches."""
        return self.state / "search.db"

    @property
    def search_lock(self) -> Path:
        """Held (flock) by the process that brings the full-text index up to date."""
        return self.state / "search.lock"

    @property
    def backups(self) -> Path:
        """Where the backups of this hive are: a JSON list."""
        return self.state / "backups.json"

    @property
    def old_events(self) -> Path:
        """The log before it was carried over to schema 2."""
        return self.state / "events-schema-1.db"

    @property
    def old_anchors(self) -> Path:
        """The anchors of that log."""
        return self.state / "anchors-schema-1.jsonl"

    @property
    def archive(self) -> Path:
        """Segments of the log: `events-FIRST-LAST-HASH.zst`."""
        return self.state / "archive"

    @property
    def settings(self) -> Path:
        return self.state / "hive.toml"

    @property
    def meta(self) -> Path:
        return self.state / "meta"

    @property
    def agents(self) -> Path:
        return self.state / "agents"

    def agent(self, name: AgentName) -> Path:
        return self.agents / name

    @property
    def all_proposed(self) -> Path:
        """Every proposed repository, seen by the manager as `/agents`; `agents/<name>/proposed` links into it.

        A single folder, so that a running manager also sees agents that are spawned later.
        """
        return self.state / "proposed"

    @property
    def all_applied(self) -> Path:
        """Every applied repository, seen by the manager as `/applied`; `agents/<name>/applied` links into it."""
        return self.state / "applied"

    def proposed(self, name: AgentName) -> Path:
        return self.all_proposed / name

    def applied(self, name: AgentName) -> Path:
        return self.all_applied / name

    def agent_state(self, name: AgentName) -> Path:
        """The agent's `/state`."""
        return self.agents / name / "state"

    def limited_folders(self, name: AgentName) -> list[Path]:
        """The folders whose content counts against an agent's disk limit, as far as they exist."""
        folders = (self.agent_state(name), self.proposed(name))
        return [folder for folder in folders if folder.is_dir()]

    def generations(self, name: AgentName) -> Path:
        """Built configurations, one folder each. The active one is the agent's `/config`."""
        return self.agents / name / "generations"

    @property
    def host_socket(self) -> Path:
        return self.run / "host.sock"

    @property
    def dashboard_run(self) -> Path:
        """Holds only the dashboard's socket. It is the working directory of the dashboard's process."""
        return self.run / "dashboard"

    @property
    def dashboard_socket(self) -> Path:
        return self.dashboard_run / "hive.sock"

    @property
    def sessions(self) -> Path:
        """Hashes of the dashboard sessions."""
        return self.state / "sessions.json"

    @property
    def control_group(self) -> str:
        """The name of the control group of all agents; unique among the hives of one host."""
        import hashlib  # Only the daemon needs it.

        return hashlib.sha256(bytes(self.run)).hexdigest()[:12]

    @property
    def agents_run(self) -> Path:
        return self.run / "agents"

    def agent_run(self, name: AgentName) -> Path:
        """Holds only the agent's socket. Mounted in the container as `/run/hive`."""
        return self.agents_run / name

    def agent_socket(self, name: AgentName) -> Path:
        return self.agents_run / name / "hive.sock"

    def agent_net_socket(self, name: AgentName) -> Path:
        """The agent's way out. The broker serves it; in the container it is `/run/hive/net.sock`."""
        return self.agents_run / name / "net.sock"

    def build_run(self, name: AgentName) -> Path:
        """Holds a socket like `net.sock` for the agent's build commands, which run as another user."""
        return self.run / "builds" / name

    def record(self, name: AgentName) -> Path:
        """Where the shim stores the pid, exit reason and output of the agent's run."""
        return self.run / "records" / name


def make_folders(*places: Path) -> None:
    """Create all folders or none. Raises OSError."""
    made: list[Path] = []
    try:
        for place in places:
            missing = [folder for folder in (place, *place.parents) if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True, mode=0o755)
                made.append(folder)
    except OSError:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def default_paths(state: Path | None = None, run: Path | None = None) -> Paths:
    """The folders given as options, else from the environment, else the defaults of the user (root: of the system)."""
    state = state or _named_in(STATE_VARIABLE)
    run = run or _named_in(RUN_VARIABLE)
    if state is None or run is None:
        users_state, users_run = _of_this_user()
        state, run = state or users_state, run or users_run
    return Paths(state.absolute(), run.absolute())


def _named_in(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


def _of_this_user() -> tuple[Path, Path]:
    if os.geteuid() == 0:
        return Path("/var/lib/hive"), Path("/run/hive")
    import warnings

    import platformdirs  # Slow to import; not needed when both folders are given.

    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR platformdirs would warn on stderr at every command.
        warnings.simplefilter("ignore")
        return platformdirs.user_state_path("hive"), platformdirs.user_runtime_path("hive")
