"""The dashboard's own socket: every request carries an operator's session, or it is refused. Its uid has no power."""

from typing import Final

import msgspec

from hive.errors import BadRequest
from hive.events.base import By
from hive.sockets.container_verbs import base_url
from hive.sockets.host_session import HostSession, HostVerb, Reply
from hive.sockets.requests import Request
from hive.sockets.sessions import SignedOut, hashed

SOURCE_MAX_CHARS: Final = 100


class SignIn(Request, frozen=True, kw_only=True):
    token: str
    """An operator's, or the secret of a login link."""
    source: str = ""
    """Where the attempt comes from, for the limit on wrong ones."""


class SignOut(Request, frozen=True, kw_only=True):
    everywhere: bool = False


class _Credentials(msgspec.Struct, frozen=True):
    session: str | None = None
    background: bool = False
    """A page asks by itself, no person did."""


_credentials = msgspec.json.Decoder(_Credentials).decode


class DashboardSession(HostSession):
    """One connection of the dashboard. Each decision's event says whose session it was and which way it came."""

    SIGNED_OUT_VERBS: Final = frozenset({"sign_in", "health", "metrics"})

    async def admit(self, cmd: str, line: bytes) -> None:
        """Raises SignedOut."""
        if cmd in self.SIGNED_OUT_VERBS:
            return
        try:
            given = _credentials(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BadRequest("A session is a string.") from None
        row = self.services.sessions.holder(given.session, background=given.background)
        if self.signed_in is None or self.signed_in.hash != row.hash:
            self.forget_session()
            self.signed_in = row
            self.forget_session = self.services.sessions.on_end(row, self.connection.close)
        self.by = By("operator", row.name, way="dashboard")


async def sign_in(session: HostSession, request: SignIn) -> Reply:
    sessions, source = session.services.sessions, request.source[:SOURCE_MAX_CHARS]
    sessions.refuse_flood(source)
    token_hash: str | None = None
    name = sessions.take_link(request.token)
    if name is None:
        token_hash = hashed(request.token)
        wanted = token_hash
        holder = await session.services.journal.read(lambda hive: hive.operators.holder(wanted))
        if holder is None:
            sessions.note_failure(source)
            raise SignedOut("That token opens nothing. `hive operator link` gives a link, `hive operator add` a token.")
        name = holder.name
    return {"session": sessions.open(name, token_hash), "name": name}


async def sign_out(session: HostSession, request: SignOut) -> Reply:
    row, sessions = session.signed_in, session.services.sessions
    if row is None:
        raise BadRequest("Only a session of the dashboard signs out.")
    session.forget_session()  # This connection still has its reply to write.
    if request.everywhere:
        return {"ended": sessions.close_all(row.name)}
    sessions.close(row)
    return {"ended": 1}


async def who(session: HostSession, _: Request) -> Reply:
    """Whose session it is; the dashboard asks before it shows anything."""
    return {"name": session.by.name, "sessions": session.services.sessions.count(session.by.name)}


async def health(session: HostSession, _: Request) -> Reply:
    """Answers while the daemon does."""
    await session.services.journal.read(lambda hive: hive.seq)
    return {}


async def login_link(session: HostSession, _: Request) -> Reply:
    """For the host socket alone: a link that opens one session in the caller's name, once and for minutes."""
    base = base_url(session)
    if base is None:
        raise BadRequest("This hive runs without a dashboard; start it without --no-dashboard.")
    return {"url": f"{base}/login#{session.services.sessions.new_link(session.by.name)}", "name": session.by.name}


SESSION_VERBS: Final[dict[str, HostVerb]] = {
    "sign_in": HostVerb(SignIn, sign_in),
    "sign_out": HostVerb(SignOut, sign_out),
    "who": HostVerb(Request, who),
    "health": HostVerb(Request, health),
}
HOST_ONLY_VERBS: Final[dict[str, HostVerb]] = {"login_link": HostVerb(Request, login_link)}
WITHHELD: Final = frozenset({"shutdown", "rebuild_projections", "login_link"})
"""Verbs of the host socket that no page offers: with a session a page could make itself another one."""
