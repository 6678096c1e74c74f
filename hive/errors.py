"""The tree of refusals. Each has a stable `code`; CLI, sockets and HTTP translate them at their edge."""

from typing import ClassVar


class HiveError(Exception):
    """Something hive refuses or cannot do. `str()` of it is one line that tells a person what to do."""

    code: ClassVar[str] = "error"


class Refused(HiveError):
    """A rule said no; nothing changed."""

    code = "refused"


class BadRequest(Refused):
    """The request itself is wrong: a missing key, a wrong type, a bad name."""

    code = "bad_request"


class NotFound(Refused):
    """No such agent, message, question or approval."""

    code = "not_found"


class NotYours(Refused):
    """The speaker may not do this."""

    code = "not_yours"


class AlreadyDone(Refused):
    """Decided before: a question answered, an approval resolved."""

    code = "already_done"


class LimitReached(Refused):
    """A named bound was hit; try again when there is room."""

    code = "limit_reached"


class Unavailable(HiveError):
    """The daemon, a runtime or a tool on this host is missing or did not answer in time."""

    code = "unavailable"


class CorruptState(HiveError):
    """A file under the state folder is damaged, too new or held by another daemon; hive will not touch it."""

    code = "corrupt_state"
