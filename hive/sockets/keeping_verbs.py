"""Host verbs that keep the log over the years: erase, archive."""

import asyncio
from typing import Final

import msgspec

from hive.audit.archiving import archive
from hive.clock import parse_rfc3339, rfc3339
from hive.events.erasing import Subject
from hive.sockets.host_session import HostSession, HostVerb, Reply
from hive.sockets.requests import Request


class Erase(Request, frozen=True, kw_only=True):
    subject: Subject
    name: str
    """An id, an agent's name, or a time in RFC 3339."""
    why: str
    backups: bool = False


class ArchiveLog(Request, frozen=True, kw_only=True):
    before: str
    """RFC 3339."""


async def erase(session: HostSession, request: Erase) -> Reply:
    """Erase the texts of a subject in every file of the state.

    Raises:
        BadRequest, NotFound: the subject. Unavailable: it failed; the next start continues it.
    """
    erasing = session.services.erasing
    return await erasing.run(session.by, request.subject, request.name, request.why, backups=request.backups)


async def archive_log(session: HostSession, request: ArchiveLog) -> Reply:
    """Move old events into segments.

    Raises:
        BadRequest: not a time. CorruptState, Unavailable: the log is whole as it is.
    """
    before, paths = rfc3339(parse_rfc3339(request.before)), session.services.paths
    async with session.services.erasing.exclusive:
        done = await asyncio.to_thread(archive, paths, before, lambda _: None, shrink=False)
    found: Reply = msgspec.to_builtins(done)
    return found


KEEPING_VERBS: Final[dict[str, HostVerb]] = {
    "erase": HostVerb(Erase, erase),
    "archive_log": HostVerb(ArchiveLog, archive_log),
}
