"""The verbs of every agent's socket. None has a sender field or acts for the operator or another agent."""

from typing import Annotated, Any, Final

import msgspec

from hive.clock import MS_PER_S, parse_rfc3339
from hive.deciders import axes, messages, questions, record, reminders
from hive.errors import BadRequest, WireUnsupported
from hive.events.base import MessageId, QuestionId
from hive.events.messages import MessageSent
from hive.events.turns import TurnEnded
from hive.names import EVERYONE, MANAGER
from hive.sockets import views
from hive.sockets.agent_session import AgentSession, Recv, Reply, Verb
from hive.sockets.egress_verbs import Wanted, request_egress
from hive.sockets.requests import Count, Id, Limit, Request, Seconds, Short
from hive.sockets.shares import Cost
from hive.wire import OLDEST_WIRE, WIRE

RECENT_MAX: Final = 200
INCARNATION_MAX_CHARS: Final = 128
Delay = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
"""Seconds. The decider applies a smaller limit."""
LIVE_LINES_MAX: Final = 1_000
"""Lines taken from one `live` request."""


class Hello(Request, frozen=True, kw_only=True):
    incarnation: str | int
    wire: int | None = None
    """The version of this protocol that the harness speaks."""


class Send(Request, frozen=True, kw_only=True):
    to: str
    body: str
    in_reply_to: Id | None = None


class Ids(Request, frozen=True, kw_only=True):
    ids: tuple[Id, ...]


class Requeue(Ids, frozen=True, kw_only=True):
    reason: str = "failed"


class Recent(Request, frozen=True, kw_only=True):
    limit: Limit = 30


class AskOperator(Request, frozen=True, kw_only=True):
    question: str
    options: tuple[str, ...] | None = None
    multi: bool | None = None
    ttl_seconds: float | None = None


class Ask(AskOperator, frozen=True, kw_only=True):
    to: str


class Answer(Request, frozen=True, kw_only=True):
    id: Id
    answer: str


class ById(Request, frozen=True, kw_only=True):
    id: Id


class Remind(Request, frozen=True, kw_only=True):
    message: str
    delay_seconds: Delay | None = None
    at: str | None = None


class SetStatus(Request, frozen=True, kw_only=True):
    text: str


class TurnStarted(Request, frozen=True, kw_only=True):
    model: Short | None = None
    wake_from: Short | None = None
    message_ids: tuple[Id, ...] | None = None


def _bounded(column: Any) -> Any:
    """The bounded type of a column that an agent reports, because reports are stored and summed."""
    return Count | None if column == int | None else Short | None


TurnReport: type[Request] = msgspec.defstruct(  # type: ignore[assignment]  # Its base is Request.
    "TurnReport",
    [
        (field.name, _bounded(field.type), field.default)
        for field in msgspec.structs.fields(TurnEnded)
        if field.name != "agent"
    ],
    bases=(Request,),
    frozen=True,
    kw_only=True,
)
"""The columns of a turn's row. Unknown values are null."""


class Live(Request, frozen=True, kw_only=True):
    lines: tuple[msgspec.Raw, ...]


class NextControl(Request, frozen=True, kw_only=True):
    wait_seconds: Seconds | None = None
    paused: bool | None = None
    """The pause state that the harness knows. Absent: the current one."""
    done: str | None = None
    """Id of the last control that the harness has processed."""


class Login(Request, frozen=True, kw_only=True):
    logged_in: bool


class RateLimited(Request, frozen=True, kw_only=True):
    until: str | None = None


async def hello(session: AgentSession, request: Hello) -> Reply:
    """Raises WireUnsupported, also for every later request of this connection."""
    if request.wire is not None and not OLDEST_WIRE <= request.wire <= WIRE:
        session.unsupported = WireUnsupported(
            f"This harness speaks version {request.wire} of the protocol between harness and daemon; this daemon speaks"
            f" {OLDEST_WIRE} to {WIRE}. Restart the agent: `hive restart {session.name}`."
        )
        raise session.unsupported
    incarnation = str(request.incarnation)
    if not 0 < len(incarnation) <= INCARNATION_MAX_CHARS:
        raise BadRequest(f"An incarnation has 1 to {INCARNATION_MAX_CHARS} characters.")
    presence = session.services.hub.presence
    alive = presence.incarnations(session.name)
    command = messages.Hello(by=session.by, agent=session.name, incarnation=incarnation, alive=alive)
    await session.services.journal.ask(command)
    presence.speaks_for(session.name, session.connection, incarnation)
    session.incarnation = incarnation
    if session.services.hub.found_without_model(session.name):
        await _send_model(session)
    if presence.is_harness(session.name, incarnation, session.connection):
        session.share.intake.harness_is(session.connection.process)
    return {} if request.wire is None else {"wire": WIRE}


async def _send_model(session: AgentSession) -> None:
    """Send a model that was chosen during this run: an earlier daemon may have died before the harness had it."""
    row = await session.services.journal.read(lambda hive: hive.agents.living_one(session.name))
    if row is not None and row.model_set_ms is not None and row.model_set_ms >= (row.started_ms or 0):
        value = {} if row.model is None else {"value": row.model}
        session.services.hub.add_control(session.name, {"action": "model", **value})


async def send(session: AgentSession, request: Send) -> Reply:
    reply_to = None if request.in_reply_to is None else MessageId(request.in_reply_to)
    command = messages.Send(by=session.by, sender=session.name, to=request.to, body=request.body, in_reply_to=reply_to)
    session.services.hub.will_send(request.to)
    decided = await session.services.journal.ask(command, request.key)
    ids = [event.id for event in decided.events if isinstance(event, MessageSent)]
    return {"ids": ids} if request.to == EVERYONE else {"id": ids[0], "ids": ids}


async def ack(session: AgentSession, request: Ids) -> Reply:
    ids = tuple(map(MessageId, request.ids))
    # No key: a repeated ack is a no-op, and a CommandKeyed event per message would double the log.
    await session.services.journal.ask(messages.Ack(by=session.by, agent=session.name, ids=ids))
    return {}


async def requeue(session: AgentSession, request: Requeue) -> Reply:
    ids = tuple(map(MessageId, request.ids))
    command = messages.Requeue(by=session.by, agent=session.name, ids=ids, reason=request.reason)
    await session.services.journal.ask(command, request.key)
    return {}


async def recent(session: AgentSession, request: Recent) -> Reply:
    name, limit = session.name, min(request.limit, RECENT_MAX)
    rows = await session.services.journal.read(lambda hive: hive.messages.newest(name, limit))
    return {"messages": [views.recent(row) for row in rows]}


async def ask_operator(session: AgentSession, request: AskOperator) -> Reply:
    return await _ask(session, request, None)


async def ask(session: AgentSession, request: Ask) -> Reply:
    return await _ask(session, request, request.to)


async def _ask(session: AgentSession, request: AskOperator, target: str | None) -> Reply:
    command = questions.Ask(
        by=session.by,
        asker=session.name,
        target=target,
        question=request.question,
        options=request.options or (),
        multi=bool(request.multi),
        ttl_seconds=request.ttl_seconds,
    )
    decided = await session.services.journal.ask(command, request.key)
    return {"id": decided.first().id}


async def answer(session: AgentSession, request: Answer) -> Reply:
    id = QuestionId(request.id)
    command = questions.Answer(by=session.by, id=id, answer=request.answer, answerer=session.name)
    await session.services.journal.ask(command, request.key)
    return {}


async def cancel_question(session: AgentSession, request: ById) -> Reply:
    command = questions.Cancel(by=session.by, id=QuestionId(request.id), canceller=session.name)
    await session.services.journal.ask(command, request.key)
    return {}


async def open_threads(session: AgentSession, _: Request) -> Reply:
    name = session.name
    rows = await session.services.journal.read(lambda hive: hive.questions.threads_of(name))
    return {"threads": [views.question(row) for row in rows]}


async def remind(session: AgentSession, request: Remind) -> Reply:
    delay = request.delay_seconds
    command = reminders.Remind(
        by=session.by,
        agent=session.name,
        message=request.message,
        delay_ms=None if delay is None else round(delay * MS_PER_S),
        due_ms=None if request.at is None else parse_rfc3339(request.at),
    )
    decided = await session.services.journal.ask(command, request.key)
    return {"id": decided.first().id}


async def count_pending_reminders(session: AgentSession, _: Request) -> Reply:
    name = session.name
    return {"count": await session.services.journal.read(lambda hive: len(hive.reminders.of(name)))}


async def set_status(session: AgentSession, request: SetStatus) -> Reply:
    command = axes.SetStatus(by=session.by, agent=session.name, text=request.text)
    await session.services.journal.ask(command, request.key)
    return {}


async def turn_started(session: AgentSession, request: TurnStarted) -> Reply:
    command = record.StartTurn(
        by=session.by,
        agent=session.name,
        model=request.model,
        wake_from=request.wake_from,
        message_ids=tuple(map(MessageId, request.message_ids or ())),
    )
    await session.services.journal.ask(command, request.key)
    return {}


async def turn_ended(session: AgentSession, request: Request) -> Reply:
    columns = {name: value for name, value in msgspec.structs.asdict(request).items() if name != "key"}
    report = TurnEnded(agent=session.name, **columns)
    await session.services.journal.ask(record.EndTurn(by=session.by, report=report), request.key)
    return {}


async def live(session: AgentSession, request: Live) -> Reply:
    session.services.hub.add_live(session.name, request.lines[-LIVE_LINES_MAX:])
    return {}


async def next_control(session: AgentSession, request: NextControl) -> Reply:
    """Return the oldest unprocessed control; none on timeout or when the pause state changes."""
    hub, name = session.services.hub, session.name
    with hub.controlled.parked(name) as woken:
        paused = await _is_paused(session)
        was_paused = paused if request.paused is None else request.paused
        control = hub.next_control(name, request.done)
        while control is None and paused is was_paused:
            if not await session.wait_for_wake(woken, request.wait_seconds or 0):
                break
            control, paused = hub.next_control(name, request.done), await _is_paused(session)
    return {"control": control, "paused": paused}


async def login(session: AgentSession, request: Login) -> Reply:
    command = axes.ReportLogin(by=session.by, agent=session.name, logged_in=request.logged_in)
    await session.services.journal.ask(command, request.key)
    return {}


async def rate_limited(session: AgentSession, request: RateLimited) -> Reply:
    until = None if request.until is None else parse_rfc3339(request.until)
    command = axes.ReportRateLimit(by=session.by, agent=session.name, until_ms=until)
    await session.services.journal.ask(command, request.key)
    return {}


async def whoami(session: AgentSession, _: Request) -> Reply:
    name = session.name
    row = await session.services.journal.read(lambda hive: hive.agents.all.get(name))
    wanted = "running" if row is not None and row.wanted_running else "stopped"
    return {"name": name, "manager": name == MANAGER, "paused": row is not None and row.paused, "wanted": wanted}


async def _is_paused(session: AgentSession) -> bool:
    name = session.name
    return await session.services.journal.read(
        lambda hive: (row := hive.agents.all.get(name)) is not None and row.paused
    )


async def _recv_is_the_sessions_own(session: AgentSession, _: Recv) -> Reply:
    raise AssertionError("the session handles recv itself, because recv parks")


AGENT_VERBS: Final[dict[str, Verb]] = {
    "hello": Verb(Hello, hello, Cost(events=1, harness=True)),
    "send": Verb(Send, send, Cost(events=1, copies=1)),
    "recv": Verb(Recv, _recv_is_the_sessions_own, Cost(harness=True)),
    "ack": Verb(Ids, ack, Cost(harness=True)),
    "requeue": Verb(Requeue, requeue, Cost(writes=True, harness=True)),
    "recent": Verb(Recent, recent, Cost(reads=True)),
    "ask_operator": Verb(AskOperator, ask_operator, Cost(events=4, copies=3)),
    "ask": Verb(Ask, ask, Cost(events=6, copies=4)),
    "answer": Verb(Answer, answer, Cost(events=2, copies=2)),
    "cancel_question": Verb(ById, cancel_question, Cost(events=3)),
    "open_threads": Verb(Request, open_threads, Cost(reads=True)),
    "remind": Verb(Remind, remind, Cost(events=3, copies=2)),
    "count_pending_reminders": Verb(Request, count_pending_reminders, Cost()),
    "set_status": Verb(SetStatus, set_status, Cost(events=1, copies=1)),
    "turn_started": Verb(TurnStarted, turn_started, Cost(events=1, copies=1, harness=True)),
    "turn_ended": Verb(TurnReport, turn_ended, Cost(events=1, copies=1, harness=True)),
    "live": Verb(Live, live, Cost(live=True, harness=True)),
    "next_control": Verb(NextControl, next_control, Cost(harness=True)),
    "login": Verb(Login, login, Cost(events=4, harness=True)),
    "rate_limited": Verb(RateLimited, rate_limited, Cost(events=1, harness=True)),
    "request_egress": Verb(Wanted, request_egress, Cost(events=4, copies=3)),
    "whoami": Verb(Request, whoami, Cost(harness=True)),
}
