"""The pages about the whole hive: swarm, your call, messages, stats, settings; and the state snapshot as JSON."""

import asyncio
import time
from typing import Annotated, Any, Final

from litestar import Response, get, post
from litestar.params import Parameter

from hive.clock import dollars_text
from hive.dashboard import plots
from hive.dashboard.daemon import Declined, Operator
from hive.dashboard.decisions import Form, Name
from hive.dashboard.replies import AnyRequest, decided, done
from hive.dashboard.view import Pages, compact, duration
from hive.turn_columns import WITHOUT_CACHE

DIFFS_MAX: Final = 10
"""Maximum number of diffs on one page; further approvals show a link to the diff."""
STALE_S: Final = 15.0
"""A hive that was seen longer ago is not asked for its diffs."""
FLOW_ROWS: Final = 100
HISTORY_ROWS: Final = 50
WINDOWS: Final = ("1h", "4h", "24h", "3d", "7d", "30d")
STATES: Final = ("failed", "needs login", "paused", "stopped", "running")
TOOLS_SHOWN: Final = 12
SUMMED: Final = ("turns", "failed", "metered_tokens", "counted_tokens", "duration_ms", "tool_calls")


@get("/")
async def swarm(operator: Operator, pages: Pages) -> Response[str]:
    """Every agent, the tombstones, and the form to spawn an agent."""
    snapshot = await operator.ask("state")
    agents = snapshot["state"]["agents"]
    counts = {state: sum(row["state"] == state for row in agents) for state in STATES}
    return pages.page("swarm.html", operator, snapshot, counts=counts)


@get("/your-call")
async def your_call(operator: Operator, pages: Pages, who: str = "all") -> Response[str]:
    """Pending approvals and questions, and the history of both."""
    snapshot = await operator.ask("state")
    state = snapshot["state"]
    pending = [row for row in state["approvals"] if row["status"] == "pending"]
    history = [row for row in state["approvals"] if row["status"] != "pending"]
    diffs = {row["id"]: await _diff(operator, row["id"]) for row in pending[:DIFFS_MAX] if row.get("fetched_sha")}
    diffs |= await _diffs_there(operator, snapshot)
    everything = [*state["questions"], *state["answered"]]
    people = sorted({name for row in everything for name in (row["asker"], row["target"]) if name})
    return pages.page(
        "call.html",
        operator,
        snapshot,
        pending=pending,
        history=sorted(history, key=lambda row: row["id"], reverse=True)[:HISTORY_ROWS],
        diffs=diffs,
        who=who,
        people=people,
        asked=[row for row in state["questions"] if _concerns(row, who)],
        answered=[row for row in reversed(state["answered"]) if _concerns(row, who)][:HISTORY_ROWS],
    )


def _concerns(row: dict[str, Any], who: str) -> bool:
    match who:
        case "all":
            return True
        case "@operator":
            return row["target"] is None
        case "@peer":
            return row["target"] is not None
        case _:
            return who in (row["asker"], row["target"])


async def _diffs_there(operator: Operator, snapshot: dict[str, Any]) -> dict[Any, dict[str, Any]]:
    """By hive and id, the diffs of approvals of other hives that are connected."""
    peers = snapshot["state"].get("swarm", {}).get("peers", [])
    wanted = [
        (peer["name"], row["id"])
        for peer in peers
        for row in peer["approvals"]
        if row.get("fetched_sha") and peer["age_seconds"] < STALE_S
    ][:DIFFS_MAX]
    found = await asyncio.gather(*(_diff(operator, id, hive) for hive, id in wanted))
    return dict(zip(wanted, found, strict=True))


async def _diff(operator: Operator, id: int, hive: str | None = None) -> dict[str, Any]:
    try:
        return await operator.ask("diff", id=id, **({} if hive is None else {"hive": hive}))
    except Declined as error:
        return {"diff": "", "error": str(error)}


@get("/messages")
async def messages(operator: Operator, pages: Pages, to: str = "", reply: int | None = None) -> Response[str]:
    """The operator's inbox, the form to send a message, and the newest messages of the hive."""
    snapshot = await operator.ask("state")
    flow = await operator.ask("audit_events", types=["MessageSent"], limit=FLOW_ROWS)
    inbox = list(reversed(snapshot["state"]["messages"]))
    return pages.page(
        "messages.html", operator, snapshot, inbox=inbox, flow=list(reversed(flow["events"])), to=to, reply=reply
    )


@get("/stats")
async def stats(operator: Operator, pages: Pages, agent: str = "", window: str = "24h") -> Response[str]:
    """Turns, tokens, durations and tools over time."""
    snapshot = await operator.ask("state")
    chosen = window if window in WINDOWS else "24h"
    found = await operator.ask("turn_buckets", agent=agent or None, window=chosen)
    return pages.page(
        "stats.html", operator, snapshot, agent=agent, window=chosen, windows=WINDOWS, **_drawn(found, chosen)
    )


def _drawn(found: dict[str, Any], window: str) -> dict[str, Any]:
    rows, step, first, count = found["buckets"], found["bucket_ms"], found["first_ms"], found["count"]
    shape = "%H:%M" if window in ("1h", "4h", "24h") else "%d %b"
    labels = [time.strftime(shape, time.gmtime((first + index * step) / 1000)) for index in range(count)]
    agents = sorted({row["agent"] for row in rows})

    def series(figure: Any) -> list[plots.Series]:
        values = {name: [0.0] * count for name in agents}
        for row in rows:
            values[row["agent"]][row["index"]] += figure(row)
        return [plots.Series(name, tuple(values[name])) for name in agents]

    tools: dict[str, int] = {}
    for row in rows:
        for name, uses in row["tools"].items():
            tools[name] = tools.get(name, 0) + uses
    most_used = sorted(tools.items(), key=lambda item: (-item[1], item[0]))[:TOOLS_SHOWN]
    sums = {key: sum(row[key] for row in rows) for key in SUMMED}
    return {
        "sums": sums,
        "agents_shown": agents,
        "tokens_plot": plots.stacked("Tokens", labels, series(lambda row: row["counted_tokens"]), compact),
        "turns_plot": plots.stacked("Turns", labels, series(lambda row: row["turns"]), compact),
        "durations_plot": plots.stacked("Turn time", labels, series(lambda row: row["duration_ms"]), duration),
        "tools_plot": plots.bars("Tools", [(name, float(uses)) for name, uses in most_used], "uses"),
        "has_tools": bool(most_used),
        "cost": _cost(rows),
        "cost_plot": plots.stacked("Cost", labels, series(lambda row: row.get("cost_usd", 0.0)), dollars_text),
        "per_agent": [
            {
                "agent": name,
                "cost": _cost([row for row in rows if row["agent"] == name]),
                "reported_tokens": sum(row[kind] for row in rows if row["agent"] == name for kind in WITHOUT_CACHE),
                **{key: sum(row[key] for row in rows if row["agent"] == name) for key in sums},
            }
            for name in agents
        ],
    }


def _cost(rows: list[dict[str, Any]]) -> float | None:
    """The sum of the costs; None if one of them is unknown, or if there are none."""
    costs = [row.get("cost_usd") for row in rows]
    known = [dollars for dollars in costs if dollars is not None]
    return sum(known) if known and len(known) == len(costs) else None


@get("/settings")
async def settings(operator: Operator, pages: Pages) -> Response[str]:
    """Operators, network rules, the webhook, the forge, and the checks of `hive doctor`."""
    snapshot = await operator.ask("state")
    forge = (await operator.ask("forge_status"))["forge"]
    hook = await operator.ask("webhook_status")
    network = await operator.ask("egress")
    return pages.page("settings.html", operator, snapshot, forge=forge, hook=hook, network=network)


@get("/api/doctor")
async def doctor(operator: Operator) -> dict[str, Any]:
    """The checks of `hive doctor`, each with its fix."""
    return {"facts": (await operator.ask("doctor"))["facts"]}


@post("/operators/add", status_code=200)
async def add_operator(request: AnyRequest, operator: Operator, data: Annotated[Name, Form]) -> Response[Any]:
    """Create an operator's token; only this reply contains it."""
    reply = await operator.ask("operators", action="add", name=data.name.strip())
    said = f"Created a token for {reply['name']}. It is shown only once."
    return done(request, said, {"token": reply["token"], "name": reply["name"]})


@post("/operators/revoke/{name:str}", status_code=200)
async def revoke_operator(request: AnyRequest, operator: Operator, name: str) -> Response[Any]:
    """Revoke an operator's token and end the operator's sessions."""
    said = f"Revoked the token of {name}."
    return await decided(request, operator, said, "operators", action="revoke", name=name)


@post("/webhook-test", status_code=200)
async def webhook_test(request: AnyRequest, operator: Operator) -> Response[Any]:
    """Send a test notification to the webhook."""
    return await decided(request, operator, "The webhook accepted the notification.", "webhook_test")


@get("/api/state")
async def state(operator: Operator) -> dict[str, Any]:
    """Every projection and its position in the log."""
    snapshot = await operator.ask("state")
    return {"seq": snapshot["seq"], "state": snapshot["state"]}


@get("/api/session")
async def session(operator: Operator) -> dict[str, Any]:
    """The signed-in operator, and the value of the `X-CSRF-Token` header."""
    return {"name": operator.name, "csrf": operator.csrf, "sessions": operator.sessions}


@get("/api/approvals/{id:int}/diff")
async def diff(
    operator: Operator, id: Annotated[int, Parameter(ge=-(2**63), le=2**63 - 1)], hive: str = ""
) -> dict[str, Any]:
    """The diff of a proposal against the applied configuration; `hive` names the one that owns it, if another."""
    reply = await operator.ask("diff", id=id, **({"hive": hive} if hive else {}))
    return {key: value for key, value in reply.items() if key not in ("version", "ok")}


HANDLERS = [
    swarm,
    your_call,
    messages,
    stats,
    settings,
    doctor,
    add_operator,
    revoke_operator,
    webhook_test,
    state,
    session,
    diff,
]
