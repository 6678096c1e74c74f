"""The error classes. Each has a stable `code`, which the CLI, the sockets and HTTP translate."""

from typing import ClassVar

from hive.wire import UNSUPPORTED


class HiveError(Exception):
    """Base of all errors for users. `str()` is one line: what is wrong and what to do."""

    code: ClassVar[str] = "error"


class Refused(HiveError):
    """A rule refused the command. Nothing changed."""

    code = "refused"


class BadRequest(Refused):
    """The request is malformed: a missing key, a wrong type, an invalid name."""

    code = "bad_request"


class NotFound(Refused):
    """No such agent, message, question or approval."""

    code = "not_found"


class NotYours(Refused):
    """The caller has no permission for this."""

    code = "not_yours"


class AlreadyDone(Refused):
    """The question is already answered, or the approval is already resolved."""

    code = "already_done"


class LimitReached(Refused):
    """A limit was reached. Try again later."""

    code = "limit_reached"


class ShareUsedUp(LimitReached):
    """The agent has used its share of the log or of the traffic. `retry_after_ms` says when there is room again."""

    def __init__(self, message: str, retry_after_ms: int):
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class WireUnsupported(HiveError):
    """The harness and the daemon do not speak the same version of their protocol; see `hive.wire`."""

    code = UNSUPPORTED


class Unavailable(HiveError):
    """The daemon, a runtime or a tool of the host is missing or did not answer in time."""

    code = "unavailable"


class CorruptState(HiveError):
    """A file of the state folder is damaged, too new or locked by another daemon. hive does not change it."""

    code = "corrupt_state"
