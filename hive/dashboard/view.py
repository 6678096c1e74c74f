"""Renders pages: templates that escape everything, and the filters for numbers, times and durations."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import jinja2
import markupsafe
from litestar import Response
from litestar.enums import MediaType

from hive.clock import dollars_text, duration_text, parse_rfc3339, readable_field
from hive.config.escaping import escaped
from hive.dashboard.daemon import Operator
from hive.errors import BadRequest
from hive.events.approvals import KINDS
from hive.hosts import written
from hive.turn_columns import TOKEN_KINDS

HERE: Final = Path(__file__).parent
MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
UNITS: Final = ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k"))
SECTIONS: Final = (
    ("swarm", "/", "Swarm", "s"),
    ("call", "/your-call", "Your call", "y"),
    ("messages", "/messages", "Messages", "m"),
    ("stats", "/stats", "Stats", "t"),
    ("audit", "/audit", "Audit", "a"),
    ("settings", "/settings", "Settings", "e"),
)
"""Icon, path, title and keyboard shortcut (after `g`) of each page."""


def safe(value: Any) -> Any:
    """Escape control and bidirectional characters in every text that a template prints; our own markup stays."""
    if isinstance(value, str) and not isinstance(value, markupsafe.Markup):
        return escaped(value)
    return "" if value is None else value


def compact(number: float | None) -> str:
    """`950`, `12.3k`, `4.1M`; `–` if unknown."""
    if number is None:
        return "–"
    for size, unit in UNITS:
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def duration(milliseconds: float | None) -> str:
    """`45s`, `2m 5s`, `1h 2m`, `3d 4h`; `–` if unknown."""
    return "–" if milliseconds is None else duration_text(milliseconds)


def target(row: dict[str, Any]) -> str:
    """Host and port of a request of kind `egress`."""
    return written(row.get("host", ""), row.get("port"))


def milliseconds_of(at: str) -> int:
    """Unix milliseconds of an RFC 3339 time; 0 if it is not one."""
    try:
        return parse_rfc3339(at)
    except BadRequest:
        return 0


def pretty(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def person(by: str | None) -> str:
    """`operator:mara uid=1000 way=dashboard` as `mara`, `agent:coder` as `coder`."""
    first = (by or "").split(" ")[0]
    return first.partition(":")[2] or first


def notice(body: str) -> dict[str, Any] | None:
    """The non-empty fields of a JSON message from the system; None for any other text."""
    try:
        said = json.loads(body)
    except ValueError:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("event"), str):
        return None
    present = {key: value for key, value in said.items() if value is not False and value not in (None, [])}
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in (readable_field(key, value) for key, value in present.items())
    }


def cell(value: Any, key: str) -> str:
    """One value of a projection's row, with times and durations formatted."""
    readable = readable_field(key, value)[1]
    return "" if readable is None else str(readable)


def fields(data: dict[str, Any]) -> list[tuple[str, Any]]:
    """The fields of an event that have a value, with times and durations formatted."""
    return [readable_field(key, value) for key, value in data.items() if value is not None and key != "token_hash"]


def label(kind: str) -> str:
    """A kind of approval on screens; a peer may have kinds that this hive does not know."""
    known = KINDS.get(kind)  # type: ignore[call-overload]
    return kind if known is None else known.label


class Assets:
    """Scripts and styles, read once, because the process may lose read access later."""

    def __init__(self) -> None:
        self.files = {path.name: path.read_bytes() for path in sorted((HERE / "static").iterdir()) if path.is_file()}
        self.version = hashlib.sha256(b"".join(self.files.values())).hexdigest()[:12]

    def url(self, name: str) -> str:
        return f"/static/{name}?v={self.version}"


class Pages:
    """The templates, compiled once."""

    def __init__(self, assets: Assets):
        sources = {path.name: path.read_text() for path in sorted((HERE / "templates").glob("*.html"))}
        self._env = jinja2.Environment(
            loader=jinja2.DictLoader(sources),
            autoescape=True,
            finalize=safe,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._env.filters |= {
            "compact": compact,
            "duration": duration,
            "money": dollars_text,
            "target": target,
            "fields": fields,
            "pretty": pretty,
            "person": person,
            "ms": milliseconds_of,
            "notice": notice,
            "cell": cell,
            "label": label,
        }
        self._env.globals |= {
            "asset": assets.url,
            "sections": SECTIONS,
            "token_kinds": TOKEN_KINDS,
            "approval_kinds": KINDS,
        }
        for name in sources:
            self._env.get_template(name)

    def drawn(self, template: str, **given: Any) -> str:
        return self._env.get_template(template).render(given)

    def response(self, template: str, status: int = 200, **given: Any) -> Response[str]:
        return Response(self.drawn(template, **given), media_type=MediaType.HTML, status_code=status)

    def page(
        self, template: str, operator: Operator, snapshot: dict[str, Any], status: int = 200, **given: Any
    ) -> Response[str]:
        """Render a page for a signed-in operator; `snapshot` is the reply to `state`."""
        state = snapshot["state"]
        waits = sum(row["status"] == "pending" for row in state["approvals"])
        waits += sum(row["target"] is None for row in state["questions"])
        peers = state.get("swarm", {}).get("peers", [])
        waits += sum(len(peer["approvals"]) + len(peer["questions"]) for peer in peers)
        return self.response(
            template,
            status,
            operator=operator,
            state=state,
            seq=snapshot["seq"],
            waits=waits,
            peers=peers,
            runtime=snapshot.get("runtime"),
            network_mode=snapshot.get("network_mode"),
            on_host=[row["name"] for row in state["agents"] if row.get("network") == "host"],
            waits_for_room=snapshot.get("waits_for_room"),
            section=template[:-5],
            **given,
        )
