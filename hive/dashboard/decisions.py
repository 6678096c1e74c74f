"""Every form of every page, forwarded to the daemon in the operator's session. The daemon decides."""

from typing import Annotated, Any

from litestar import Response, post
from litestar.enums import RequestEncodingType
from litestar.params import Body
from msgspec import Struct

from hive.dashboard.daemon import Operator
from hive.dashboard.replies import AnyRequest, decided, done

Id = int


class Answer(Struct):
    """Selected options and free text are joined into one answer."""

    option: list[str] | str = []
    answer: str = ""
    hive: str = ""
    """The hive that owns the row, if it is another one."""

    def merged(self) -> str:
        ticked = [self.option] if isinstance(self.option, str) else self.option
        return ", ".join([*ticked, *([self.answer.strip()] if self.answer.strip() else [])])


class Approval(Struct):
    sha: str = ""
    """The commit that the operator saw; the daemon refuses any other."""
    hive: str = ""
    for_all: bool = False
    """Of a request for a host: allow it for every agent."""


class Denial(Struct):
    note: str = ""
    hive: str = ""


class Name(Struct):
    name: str
    description: str = ""


class Message(Struct):
    to: str
    body: str
    in_reply_to: int | None = None


class Folder(Struct):
    path: str
    read_only: bool = False


class HostRule(Struct):
    entry: str
    """HOST, HOST:PORT or *.DOMAIN."""
    agent: str = ""
    """Empty: every agent."""


class Nothing(Struct):
    """A form that has only a button."""


Form = Body(media_type=RequestEncodingType.URL_ENCODED)


@post("/answer-question/{id:int}", status_code=200)
async def answer_question(
    request: AnyRequest, operator: Operator, id: Id, data: Annotated[Answer, Form]
) -> Response[Any]:
    """Answer a question, or override one between agents."""
    fields = {"id": id, "answer": data.merged(), "hive": data.hive or None}
    return await decided(request, operator, f"Answered #{id}.", "answer_question", **fields)


@post("/cancel-question/{id:int}", status_code=200)
async def cancel_question(request: AnyRequest, operator: Operator, id: Id) -> Response[Any]:
    """Cancel a question."""
    return await decided(request, operator, f"Cancelled question #{id}.", "cancel_question", id=id)


@post("/approve/{id:int}", status_code=200)
async def approve(request: AnyRequest, operator: Operator, id: Id, data: Annotated[Approval, Form]) -> Response[Any]:
    """Approve a request. With `sha`, only if that commit is the pinned one; with `for_all`, a host for every agent."""
    said = f"Approved #{id} for every agent." if data.for_all else f"Approved #{id}."
    fields = {"id": id, "sha": data.sha or None, "for_all": data.for_all or None, "hive": data.hive or None}
    return await decided(request, operator, said, "approve", **fields)


@post("/deny/{id:int}", status_code=200)
async def deny(request: AnyRequest, operator: Operator, id: Id, data: Annotated[Denial, Form]) -> Response[Any]:
    """Deny a request, with an optional note."""
    fields = {"id": id, "note": data.note.strip() or None, "hive": data.hive or None}
    return await decided(request, operator, f"Denied #{id}.", "deny", **fields)


@post("/request-spawn", status_code=200)
async def request_spawn(request: AnyRequest, operator: Operator, data: Annotated[Name, Form]) -> Response[Any]:
    """Request an approval to spawn an agent."""
    about = data.description.strip() or None
    said = f"Requested {data.name}."
    return await decided(request, operator, said, "request_spawn", name=data.name.strip(), description=about)


@post("/spawn", status_code=200)
async def spawn(request: AnyRequest, operator: Operator, data: Annotated[Name, Form]) -> Response[Any]:
    """Spawn an agent; the reply arrives when it runs."""
    return await decided(request, operator, f"Spawned {data.name.strip()}.", "spawn", name=data.name.strip())


@post("/send", status_code=200)
async def send(request: AnyRequest, operator: Operator, data: Annotated[Message, Form]) -> Response[Any]:
    """Send a message to an agent, or to all agents with `*`."""
    fields = {"to": data.to.strip(), "body": data.body, "in_reply_to": data.in_reply_to}
    return await decided(request, operator, f"Sent to {data.to.strip()}.", "send", **fields)


@post("/{act:str}/{name:str}", status_code=200)
async def act(request: AnyRequest, operator: Operator, act: str, name: str) -> Response[Any]:
    """start, stop, kill, restart, rebuild, pause, resume, destroy, revive or purge-tombstone; replies when done."""
    known = _ACTS.get(act)
    if known is None:
        return Response({"ok": False, "error": f"There is no action {act}."}, status_code=404)
    cmd, fields, said = known
    given = {"scope": {"agent_names": [name]}} if cmd in ("start", "stop") else {"name": name}
    return await decided(request, operator, said.format(name), cmd, **given, **fields)


_ACTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "start": ("start", {}, "Started {}."),
    "stop": ("stop", {"graceful": True}, "Stopped {}."),
    "kill": ("kill", {}, "Killed {}."),
    "restart": ("restart", {}, "Restarted {}."),
    "rebuild": ("rebuild", {}, "Rebuilt {}."),
    "pause": ("set_paused", {"paused": True}, "Paused {}. Its messages wait in the inbox."),
    "resume": ("set_paused", {"paused": False}, "Resumed {}."),
    "destroy": ("destroy", {"purge": False}, "Destroyed {}. Its state is kept as a tombstone."),
    "revive": ("revive", {}, "Revived {}."),
    "purge-tombstone": ("purge", {}, "Deleted the state of {}."),
}


@post("/update-all", status_code=200)
async def update_all(request: AnyRequest, operator: Operator) -> Response[Any]:
    """Rebuild every agent that needs an update."""
    names = (await operator.ask("update_all"))["agents"]
    return done(request, f"Updated {', '.join(names)}." if names else "Every agent is up to date.", {"agents": names})


@post("/mount/{name:str}", status_code=200)
async def mount(request: AnyRequest, operator: Operator, name: str, data: Annotated[Folder, Form]) -> Response[Any]:
    """Mount a project folder of this host into an agent's container."""
    fields = {"name": name, "path": data.path.strip(), "read_only": data.read_only}
    return await decided(request, operator, f"Mounted the folder for {name}.", "mount", **fields)


@post("/unmount/{name:str}", status_code=200)
async def unmount(request: AnyRequest, operator: Operator, name: str, data: Annotated[Folder, Form]) -> Response[Any]:
    """Unmount a project folder."""
    return await decided(
        request, operator, f"Unmounted the folder from {name}.", "unmount", name=name, path=data.path.strip()
    )


@post("/rollback/{name:str}", status_code=200)
async def rollback(request: AnyRequest, operator: Operator, name: str) -> Response[Any]:
    """Apply the previous configuration."""
    return await decided(request, operator, f"Applied the previous configuration to {name}.", "rollback", name=name)


@post("/allow-egress", status_code=200)
async def allow_egress(request: AnyRequest, operator: Operator, data: Annotated[HostRule, Form]) -> Response[Any]:
    """Allow connections to a host."""
    return await _ruled(request, operator, "allow_egress", "Allowed {} for {}.", data)


@post("/deny-egress", status_code=200)
async def deny_egress(request: AnyRequest, operator: Operator, data: Annotated[HostRule, Form]) -> Response[Any]:
    """Deny connections to a host."""
    return await _ruled(request, operator, "deny_egress", "Denied {} for {}.", data)


@post("/revoke-egress", status_code=200)
async def revoke_egress(request: AnyRequest, operator: Operator, data: Annotated[HostRule, Form]) -> Response[Any]:
    """Remove a network rule."""
    return await _ruled(request, operator, "revoke_egress", "Revoked the rule for {} of {}.", data)


async def _ruled(request: AnyRequest, operator: Operator, cmd: str, said: str, data: HostRule) -> Response[Any]:
    entry, agent = data.entry.strip(), data.agent.strip() or None
    return await decided(request, operator, said.format(entry, agent or "every agent"), cmd, entry=entry, agent=agent)


HANDLERS = [
    answer_question,
    cancel_question,
    approve,
    deny,
    request_spawn,
    spawn,
    send,
    act,
    update_all,
    mount,
    unmount,
    rollback,
    allow_egress,
    deny_egress,
    revoke_egress,
]
