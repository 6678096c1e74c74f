"""Rules for the operator's settings of an agent (pause, model, mounts) and for operator tokens."""

from hive.clock import TimeMs
from hive.deciders.base import Command, Decision, checked_label, living
from hive.errors import AlreadyDone, BadRequest, LimitReached, NotFound
from hive.events.agents import ModelSet, Mounted, Paused, Resumed, Unmounted
from hive.events.operators import OperatorAdded, OperatorRevoked, SignedIn, SignInRefused
from hive.names import AGENT_NAME, AgentName
from hive.projections.hive import Hive

MOUNTS_MAX = 32
"""Maximum number of project folders per agent."""


class SetPaused(Command, frozen=True, kw_only=True):
    agent: AgentName
    paused: bool


class SetModel(Command, frozen=True, kw_only=True):
    """None: use the configuration's model."""

    agent: AgentName
    model: str | None


class Mount(Command, frozen=True, kw_only=True):
    """`host_path` is an absolute, resolved folder; the caller has checked it."""

    agent: AgentName
    host_path: str
    folder: str
    read_only: bool = False


class Unmount(Command, frozen=True, kw_only=True):
    """`path` is the folder's name or its host path."""

    agent: AgentName
    path: str


class AddOperator(Command, frozen=True, kw_only=True):
    name: str
    token_hash: str


class RevokeOperator(Command, frozen=True, kw_only=True):
    name: str


class SignIn(Command, frozen=True, kw_only=True):
    name: str
    source: str
    link: bool


class RefuseSignIn(Command, frozen=True, kw_only=True):
    source: str
    attempts: int


def set_paused(command: SetPaused, hive: Hive, _: TimeMs) -> Decision:
    """Idempotent both ways, also on a stopped agent. Turns a budget's pause into the operator's."""
    row = living(hive, command.agent)
    if row.paused is command.paused and row.budget_until_ms is None and not row.disk_full:
        return []
    return [Paused(agent=row.name) if command.paused else Resumed(agent=row.name)]


def set_model(command: SetModel, hive: Hive, _: TimeMs) -> Decision:
    """The choice stays over restarts and rebuilds."""
    row = living(hive, command.agent)
    if command.model is not None and not checked_label(command.model, "model").strip():
        raise BadRequest("The model's name is empty; leave it out to use the configuration's.")
    return [] if row.model == command.model else [ModelSet(agent=row.name, model=command.model)]


def mount(command: Mount, hive: Hive, _: TimeMs) -> Decision:
    """Mount a project folder, effective from the next start.

    Raises:
        NotFound; AlreadyDone: another folder has this name. LimitReached.
    """
    row = living(hive, command.agent)
    given = hive.agents.mounts.get((row.name, command.folder))
    if given is not None and given.host_path != command.host_path:
        raise AlreadyDone(f"/work/{command.folder} of {row.name} is {given.host_path}; unmount it first.")
    if given is not None and given.read_only == command.read_only:
        return []
    if given is None and len(hive.agents.mounts_of(row.name)) >= MOUNTS_MAX:
        raise LimitReached(f"{row.name} has {MOUNTS_MAX} folders; unmount one first.")
    return [Mounted(agent=row.name, host_path=command.host_path, folder=command.folder, read_only=command.read_only)]


def unmount(command: Unmount, hive: Hive, _: TimeMs) -> Decision:
    """Unmount a project folder, effective from the next start.

    Raises:
        NotFound: no such agent or folder.
    """
    row = living(hive, command.agent)
    for given in hive.agents.mounts_of(row.name):
        if command.path in (given.folder, given.host_path):
            return [Unmounted(agent=row.name, folder=given.folder)]
    raise NotFound(f"{row.name} has no mount {command.path}.")


def add_operator(command: AddOperator, hive: Hive, _: TimeMs) -> Decision:
    """Record an operator's token. A revoked name may get a new token.

    Raises:
        BadRequest: a bad name. AlreadyDone: the name has a token.
    """
    if AGENT_NAME.fullmatch(command.name) is None:
        raise BadRequest(f"{command.name!r} is not a valid operator name. Use 1 to 32 of a-z, 0-9 and -.")
    row = hive.operators.all.get(command.name)
    if row is not None and row.revoked_ms is None:
        raise AlreadyDone(f"{command.name} has a token; revoke it first.")
    return [OperatorAdded(name=command.name, token_hash=command.token_hash)]


def revoke_operator(command: RevokeOperator, hive: Hive, _: TimeMs) -> Decision:
    """Raises NotFound: no operator of this name has a token."""
    row = hive.operators.all.get(command.name)
    if row is None or row.revoked_ms is not None:
        raise NotFound(f"No operator {command.name} has a token.")
    return [OperatorRevoked(name=command.name)]


def sign_in(command: SignIn, _hive: Hive, _: TimeMs) -> Decision:
    """The caller has checked the token or link."""
    return [SignedIn(name=command.name, source=command.source, link=command.link)]


def refuse_sign_in(command: RefuseSignIn, _hive: Hive, _: TimeMs) -> Decision:
    return [SignInRefused(source=command.source, attempts=command.attempts)]
