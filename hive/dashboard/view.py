"""Draws pages: templates that escape everything, and the few words that numbers and times become."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import jinja2
import markupsafe
from litestar import Response
from litestar.enums import MediaType

from hive.clock import MS_PER_S, parse_rfc3339, rfc3339
from hive.config.escaping import escaped
from hive.dashboard.daemon import Operator
from hive.errors import BadRequest

HERE: Final = Path(__file__).parent
MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
YEAR_2001_MS: Final = 10**12
"""A number of milliseconds above it is a time, not a duration."""
UNITS: Final = ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k"))
SECTIONS: Final = (
    ("swarm", "/", "Swarm", "s"),
    ("call", "/your-call", "Your call", "y"),
    ("messages", "/messages", "Messages", "m"),
    ("stats", "/stats", "Stats", "t"),
    ("audit", "/audit", "Audit", "a"),
    ("settings", "/settings", "Settings", "e"),
)
"""Each page's glyph, path, title and the key that follows `g`."""


def safe(value: Any) -> Any:
    """Every text that a template prints: what hides or moves other text becomes an escape. Markup of ours stays."""
    if isinstance(value, str) and not isinstance(value, markupsafe.Markup):
        return escaped(value)
    return "" if value is None else value


def compact(number: float | None) -> str:
    """`950`, `12.3k`, `4.1M`; `–` for what is not known."""
    if number is None:
        return "–"
    for size, unit in UNITS:
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def lasting(milliseconds: float | None) -> str:
    """`850 ms`, `45s`, `2m 5s`, `1h 2m`, `3d 4h`."""
    if milliseconds is None:
        return "–"
    if milliseconds < MS_PER_S:
        return f"{milliseconds:.0f} ms"
    seconds = int(milliseconds // MS_PER_S)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3_600:
        return f"{seconds // 60}m {seconds % 60}s"
    if seconds < 86_400:
        return f"{seconds // 3_600}h {seconds % 3_600 // 60}m"
    return f"{seconds // 86_400}d {seconds % 86_400 // 3_600}h"


def milliseconds_of(at: str) -> int:
    """Unix milliseconds of a time on the wire; 0 for what is none."""
    try:
        return parse_rfc3339(at)
    except BadRequest:
        return 0


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def person(by: str | None) -> str:
    """`operator:mara uid=1000 way=dashboard` as `mara`, `agent:coder` as `coder`."""
    first = (by or "").split(" ")[0]
    return first.partition(":")[2] or first


def notice(body: str) -> dict[str, Any] | None:
    """What the system says in JSON, as its parts that say something; None for any other text."""
    try:
        said = json.loads(body)
    except ValueError:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("event"), str):
        return None
    return {
        key: ", ".join(map(str, value)) if isinstance(value, list) else value
        for key, value in said.items()
        if value is not False and value not in (None, [])
    }


def cell(value: Any, key: str) -> str:
    """One value of a projection's row; times as times."""
    if key.endswith("_ms") and isinstance(value, int) and value > YEAR_2001_MS:
        return rfc3339(value)
    return "" if value is None else str(value)


class Assets:
    """Scripts and styles, read once: the process may not be allowed to read them later."""

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
            "lasting": lasting,
            "pretty": pretty,
            "person": person,
            "ms": milliseconds_of,
            "notice": notice,
            "cell": cell,
        }
        self._env.globals |= {"asset": assets.url, "sections": SECTIONS}
        for name in sources:
            self._env.get_template(name)

    def drawn(self, template: str, **given: Any) -> str:
        return self._env.get_template(template).render(given)

    def response(self, template: str, status: int = 200, **given: Any) -> Response[str]:
        return Response(self.drawn(template, **given), media_type=MediaType.HTML, status_code=status)

    def page(
        self, template: str, operator: Operator, snapshot: dict[str, Any], status: int = 200, **given: Any
    ) -> Response[str]:
        """A page of somebody signed in; `snapshot` is the daemon's `state`."""
        state = snapshot["state"]
        waits = sum(row["status"] == "pending" for row in state["approvals"])
        waits += sum(row["target"] is None for row in state["questions"])
        return self.response(
            template,
            status,
            operator=operator,
            state=state,
            seq=snapshot["seq"],
            waits=waits,
            section=template[:-5],
            **given,
        )
