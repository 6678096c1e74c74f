"""The dashboard's socket. Every request must carry an operator's session; the dashboard's uid has no rights."""

from typing import Final

import msgspec

from hive.errors import BadRequest, LimitReached
from hive.events.base import By
from hive.sockets.container_verbs import base_url
from hive.sockets.host_session import HostSession, HostVerb, Reply
from hive.sockets.requests import Request
from hive.sockets.sessions import SignedOut, hashed

SOURCE_MAX_CHARS: Final = 100


class SignIn(Request, frozen=True, kw_only=True):
    token: str
    """An operator's token or the secret of a login link."""
    source: str = ""
    """Source address of the attempt, used to limit wrong tokens."""


class SignOut(Request, frozen=True, kw_only=True):
    everywhere: bool = False


class _Credentials(msgspec.Struct, frozen=True):
    session: str | None = None
    background: bool = False
    """The page sent the request by itself, without a person."""


_credentials = msgspec.json.Decoder(_Credentials).decode


class DashboardSession(HostSession):
    """One connection of the dashboard. Each decision's event records the session's operator and the way `dashboard`."""

    SIGNED_OUT_VERBS: Final = frozenset({"sign_in", "health", "metrics"})

    async def authorize(self, cmd: str, line: bytes) -> None:
        """Raises SignedOut: the request has no valid session."""
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
    try:
        name, token_hash = await _holder(session, request.token, source)
    except (SignedOut, LimitReached):
        session.services.sign_ins.refused(source)
        raise
    await session.services.sign_ins.signed_in(name, source, link=token_hash is None)
    return {"session": sessions.open(name, token_hash), "name": name}


async def _holder(session: HostSession, secret: str, source: str) -> tuple[str, str | None]:
    """The operator of a token or login link, and the token's hash.

    Raises:
        SignedOut: neither. LimitReached: too many wrong tokens.
    """
    sessions = session.services.sessions
    sessions.refuse_flood(source)
    if (name := sessions.take_link(secret)) is not None:
        return name, None
    token_hash = hashed(secret)
    holder = await session.services.journal.read(lambda hive: hive.operators.holder(token_hash))
    if holder is None:
        sessions.note_failure(source)
        raise SignedOut("That token is not valid. `hive operator link` creates a link, `hive operator add` a token.")
    return holder.name, token_hash


async def sign_out(session: HostSession, request: SignOut) -> Reply:
    row, sessions = session.signed_in, session.services.sessions
    if row is None:
        raise BadRequest("Only a dashboard session can sign out.")
    session.forget_session()  # This connection still has to write its reply.
    if request.everywhere:
        return {"ended": sessions.close_all(row.name)}
    sessions.close(row)
    return {"ended": 1}


async def who(session: HostSession, _: Request) -> Reply:
    """Return the operator of the session. The dashboard asks before it shows a page."""
    return {"name": session.by.name, "sessions": session.services.sessions.count(session.by.name)}


async def health(session: HostSession, _: Request) -> Reply:
    """Answer if the journal answers."""
    await session.services.journal.read(lambda hive: hive.seq)
    return {}


async def login_link(session: HostSession, _: Request) -> Reply:
    """Create a link that opens one session in the caller's name. Host socket only; valid once, for minutes."""
    base = base_url(session)
    if base is None:
        raise BadRequest("This hive runs without a dashboard; restart it without --no-dashboard.")
    return {"url": f"{base}/login#{session.services.sessions.new_link(session.by.name)}", "name": session.by.name}


SESSION_VERBS: Final[dict[str, HostVerb]] = {
    "sign_in": HostVerb(SignIn, sign_in),
    "sign_out": HostVerb(SignOut, sign_out),
    "who": HostVerb(Request, who),
    "health": HostVerb(Request, health),
}
HOST_ONLY_VERBS: Final[dict[str, HostVerb]] = {"login_link": HostVerb(Request, login_link)}
WITHHELD: Final = frozenset({"shutdown", "rebuild_projections", "login_link", "erase", "archive_log"})
"""Host verbs that the dashboard's socket does not offer. With them a stolen session could create another one."""
