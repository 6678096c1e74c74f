"""Classifies how a turn ended and whether its messages are acked or requeued. Pure; used by `turn`."""

import re

import msgspec

from hive.names import BUDGET_USED_UP

RATE_LIMIT_UNKNOWN_S = 60.0
"""Delay before the next try if the API does not say when the limit ends."""

_TOO_LONG = re.compile(r"prompt is too long|exceed.{0,20}context (limit|window)", re.I)
_NO_LOGIN = re.compile(r"not logged in|please run /login|invalid api key|invalid bearer token|oauth token", re.I)


class TurnOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a turn ended."""

    result_kind: str
    """`ok`, `failed`, `prompt_too_long` or `budget`, as in the turn's row."""
    requeue: str | None = None
    """The reason to requeue the messages; None: ack them."""
    note: str | None = None
    limited_until_ms: int | None = None


OK = TurnOutcome(result_kind="ok")


def failed(note: str, *, requeue: str = "failed") -> TurnOutcome:
    """The outcome of a failed turn."""
    return TurnOutcome(result_kind="failed", requeue=requeue, note=note)


def of_error(
    text: str, *, status: int | None, reason: str | None, limited_until_ms: int | None, now_ms: int
) -> TurnOutcome:
    """Classify an error result by its text, the API's HTTP status and the CLI's terminal reason."""
    if BUDGET_USED_UP in text:
        return TurnOutcome(result_kind="budget", requeue="budget", note=text)
    if status in (401, 403) or (status is None and _NO_LOGIN.search(text)):
        return failed(text, requeue="needs_login")
    if status == 429:
        until = limited_until_ms if limited_until_ms else now_ms + round(RATE_LIMIT_UNKNOWN_S * 1000)
        return msgspec.structs.replace(failed(text, requeue="rate_limited"), limited_until_ms=until)
    if _TOO_LONG.search(text):
        return TurnOutcome(result_kind="prompt_too_long", requeue="failed", note=text)
    # The message did not cause this failure: do not count it as a failed delivery.
    if (status is not None and status >= 500) or (status is None and reason == "api_error"):
        return failed(text, requeue="overloaded")
    return failed(text)
