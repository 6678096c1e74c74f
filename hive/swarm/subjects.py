"""The names of subjects, streams and consumers in NATS, and who may use which. The permissions follow from the names.

Every name that a hive publishes to ends with or contains its own name, so that a permission can hold it to that.
"""

from collections.abc import Iterable
from typing import Final

REPLY_PREFIX: Final = "_HIVE"
INBOX_CONSUMER: Final = "inbox"


def envelope(to: str, sender: str) -> str:
    """Where `sender` publishes what `to` is to read."""
    return f"hive.to.{to}.{sender}"


def inbox_stream(hive: str) -> str:
    """Holds the envelopes to a hive until it has read them."""
    return f"hive-inbox-{hive}"


def inbox_subjects(hive: str) -> str:
    return f"hive.to.{hive}.*"


def ask(to: str, sender: str) -> str:
    """Where `sender` asks `to` for something that it needs now."""
    return f"hive.ask.{to}.{sender}"


def told(to: str, sender: str) -> str:
    """Where `sender` answers what `to` has asked."""
    return f"hive.told.{to}.{sender}"


def log(hive: str) -> str:
    return f"hive.log.{hive}"


def log_stream(hive: str) -> str:
    """The replica of a hive's log."""
    return f"hive-log-{hive}"


def screen_bucket(hive: str) -> str:
    """The key-value bucket in which a hive shows its roster and what waits."""
    return f"hive-screen-{hive}"


def files_bucket(hive: str) -> str:
    """The object store with the files of a hive's agents."""
    return f"hive-files-{hive}"


def reply_prefix(hive: str) -> str:
    """Of the subjects on which a hive gets replies: no other may subscribe to them."""
    return f"{REPLY_PREFIX}_{hive}"


def may_publish(hive: str, hives: Iterable[str]) -> list[str]:
    """The subjects that a hive may publish to, among all hives that a server knows."""
    own = [inbox_stream(hive), log_stream(hive), f"KV_{screen_bucket(hive)}", f"OBJ_{files_bucket(hive)}"]
    return [
        f"hive.to.*.{hive}",
        ask("*", hive),
        told("*", hive),
        log(hive),
        f"$KV.{screen_bucket(hive)}.>",
        f"$O.{files_bucket(hive)}.>",
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.FC.>",
        *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE", "PURGE", "MSG.DELETE") for stream in own),
        f"$JS.ACK.{inbox_stream(hive)}.>",
        *_reading(inbox_stream(hive)),
        *(subject for other in sorted(hives) for stream in public_streams(other) for subject in _reading(stream)),
    ]


def may_subscribe(hive: str, hives: Iterable[str]) -> list[str]:
    """The replies to this hive, and every screen. Envelopes come through a consumer, whose messages are replies."""
    own = [f"{reply_prefix(hive)}.>", ask(hive, "*"), told(hive, "*")]
    return [*own, *(f"$KV.{screen_bucket(other)}.>" for other in sorted(hives))]


def public_streams(hive: str) -> list[str]:
    """What every member may read of a hive: its log, its screen and its agents' files."""
    return [log_stream(hive), f"KV_{screen_bucket(hive)}", f"OBJ_{files_bucket(hive)}"]


def _reading(stream: str) -> list[str]:
    return [
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.*",
        f"$JS.API.CONSUMER.INFO.{stream}.*",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
    ]
