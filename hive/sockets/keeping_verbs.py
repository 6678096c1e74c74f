"""Host verbs that keep the log over the years: erase."""

from typing import Final

from hive.events.erasing import Subject
from hive.sockets.host_session import HostSession, HostVerb, Reply
from hive.sockets.requests import Request


class Erase(Request, frozen=True, kw_only=True):
    subject: Subject
    name: str
    """An id, an agent's name, or a time in RFC 3339."""
    why: str
    backups: bool = False


async def erase(session: HostSession, request: Erase) -> Reply:
    """Erase the texts of a subject in every file of the state.

    Raises:
        BadRequest, NotFound: the subject. Unavailable: it failed; the next start continues it.
    """
    erasing = session.services.erasing
    return await erasing.run(session.by, request.subject, request.name, request.why, backups=request.backups)


KEEPING_VERBS: Final[dict[str, HostVerb]] = {"erase": HostVerb(Erase, erase)}
