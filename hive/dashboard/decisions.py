"""What an operator decides: every form of every page, passed on in the operator's session. Nothing is decided here."""

from typing import Annotated, Any

from litestar import Response, post
from litestar.enums import RequestEncodingType
from litestar.params import Body
from msgspec import Struct

from hive.dashboard.daemon import Operator
from hive.dashboard.replies import AnyRequest, decided, done

Id = int


class Answer(Struct):
    """Ticked options and free text become the one answer."""

    option: list[str] | str = []
    answer: str = ""

    def merged(self) -> str:
        ticked = [self.option] if isinstance(self.option, str) else self.option
        return ", ".join([*ticked, *([self.answer.strip()] if self.answer.strip() else [])])


class Approval(Struct):
    sha: str = ""
    """The commit that was seen; another one is refused."""


class Denial(Struct):
    note: str = ""


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


class Nothing(Struct):
    """A form with a button alone."""


Form = Body(media_type=RequestEncodingType.URL_ENCODED)


@post("/answer-question/{id:int}", status_code=200)
async def answer_question(
    request: AnyRequest, operator: Operator, id: Id, data: Annotated[Answer, Form]
) -> Response[Any]:
    """Answer a question, or override one between peers."""
    return await decided(request, operator, f"Answered #{id}.", "answer_question", id=id, answer=data.merged())


@post("/cancel-question/{id:int}", status_code=200)
async def cancel_question(request: AnyRequest, operator: Operator, id: Id) -> Response[Any]:
    """Resolve a question as cancelled."""
    return await decided(request, operator, f"Cancelled question #{id}.", "cancel_question", id=id)


@post("/approve/{id:int}", status_code=200)
async def approve(request: AnyRequest, operator: Operator, id: Id, data: Annotated[Approval, Form]) -> Response[Any]:
    """Approve; with `sha`, only if that commit is the one that is pinned."""
    return await decided(request, operator, f"Approved #{id}.", "approve", id=id, sha=data.sha or None)


@post("/deny/{id:int}", status_code=200)
async def deny(request: AnyRequest, operator: Operator, id: Id, data: Annotated[Denial, Form]) -> Response[Any]:
    """Deny, with a note if there is one."""
    return await decided(request, operator, f"Denied #{id}.", "deny", id=id, note=data.note.strip() or None)


@post("/request-spawn", status_code=200)
async def request_spawn(request: AnyRequest, operator: Operator, data: Annotated[Name, Form]) -> Response[Any]:
    """Queue a spawn as an approval."""
    about = data.description.strip() or None
    said = f"Requested {data.name}."
    return await decided(request, operator, said, "request_spawn", name=data.name.strip(), description=about)


@post("/spawn", status_code=200)
async def spawn(request: AnyRequest, operator: Operator, data: Annotated[Name, Form]) -> Response[Any]:
    """Spawn an agent; the answer comes when it runs."""
    return await decided(request, operator, f"{data.name.strip()} is spawned.", "spawn", name=data.name.strip())


@post("/send", status_code=200)
async def send(request: AnyRequest, operator: Operator, data: Annotated[Message, Form]) -> Response[Any]:
    """Write to an agent, or to all with `*`."""
    fields = {"to": data.to.strip(), "body": data.body, "in_reply_to": data.in_reply_to}
    return await decided(request, operator, f"Sent to {data.to.strip()}.", "send", **fields)


@post("/{act:str}/{name:str}", status_code=200)
async def act(request: AnyRequest, operator: Operator, act: str, name: str) -> Response[Any]:
    """start, stop, kill, restart, rebuild, pause, resume, destroy, revive or purge-tombstone; answered once done."""
    known = _ACTS.get(act)
    if known is None:
        return Response({"ok": False, "error": f"There is no such act as {act}."}, status_code=404)
    cmd, fields, said = known
    given = {"scope": {"agent_names": [name]}} if cmd in ("start", "stop") else {"name": name}
    return await decided(request, operator, said.format(name), cmd, **given, **fields)


_ACTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "start": ("start", {}, "{} runs."),
    "stop": ("stop", {"graceful": True}, "{} has stopped."),
    "kill": ("kill", {}, "{} was killed."),
    "restart": ("restart", {}, "{} was restarted."),
    "rebuild": ("rebuild", {}, "{} was rebuilt."),
    "pause": ("set_paused", {"paused": True}, "{} is paused; its messages wait."),
    "resume": ("set_paused", {"paused": False}, "{} goes on."),
    "destroy": ("destroy", {"purge": False}, "{} is destroyed; its state stays as a tombstone."),
    "revive": ("revive", {}, "{} is back."),
    "purge-tombstone": ("purge", {}, "What was left of {} is wiped."),
}


@post("/update-all", status_code=200)
async def update_all(request: AnyRequest, operator: Operator) -> Response[Any]:
    """Rebuild every agent that needs it."""
    names = (await operator.ask("update_all"))["agents"]
    return done(request, f"Updated {', '.join(names)}." if names else "Every agent is up to date.", {"agents": names})


@post("/mount/{name:str}", status_code=200)
async def mount(request: AnyRequest, operator: Operator, name: str, data: Annotated[Folder, Form]) -> Response[Any]:
    """Give an agent a project folder of this host."""
    fields = {"name": name, "path": data.path.strip(), "read_only": data.read_only}
    return await decided(request, operator, f"{name} has the folder.", "mount", **fields)


@post("/unmount/{name:str}", status_code=200)
async def unmount(request: AnyRequest, operator: Operator, name: str, data: Annotated[Folder, Form]) -> Response[Any]:
    """Take it away again."""
    return await decided(request, operator, f"{name} has it no more.", "unmount", name=name, path=data.path.strip())


@post("/rollback/{name:str}", status_code=200)
async def rollback(request: AnyRequest, operator: Operator, name: str) -> Response[Any]:
    """Apply the configuration before this one."""
    return await decided(request, operator, f"{name} is back at the configuration before.", "rollback", name=name)


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
]
