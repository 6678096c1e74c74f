"""Scripts and the player that replays one per agent. Used by the server; a script is a list of `Step`s."""

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from hive.scripted_model.answers import Answer, Call, Reply, Text, say
from hive.scripted_model.conversation import Conversation, Kind, kind_of

Decide = Callable[[Conversation], Answer | None]

DEFAULT_ANSWER = say("Nothing more to do for now.")
SIDE_ANSWER = say("Scripted conversation")
COMPACTION_ANSWER = say("<summary>The conversation so far, in short: the scripted work went on as planned.</summary>")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. It is played once (or `times`) when it is next and the newest user message matches."""

    answer: Answer | Decide
    when: str = ""
    """Regular expression searched in the newest user text and tool results; named groups are captured as values."""
    times: int = 1


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """Steps in order. If the next one does not match, the model ends its turn with a short text.

    A script may also be a callable: it answers every request; None means the short text.
    """

    steps: tuple[Step, ...] = ()
    decide: Decide | None = None
    compaction: Answer = COMPACTION_ANSWER
    """The answer to a compaction request. Compactions and side requests never use a step."""


AnyScript = Script | Decide | Sequence[Step | Answer]


def as_script(script: AnyScript) -> Script:
    """Accept the short forms: a list of steps or bare answers, or one callable."""
    if isinstance(script, Script):
        return script
    if callable(script):
        return Script(decide=script)
    return Script(steps=tuple(step if isinstance(step, Step) else Step(answer=step) for step in script))


class Player:
    """Replays one agent's script. Requests may arrive on several threads; a lock keeps the steps in order."""

    def __init__(self, agent: str, script: Script) -> None:
        self._agent = agent
        self._script = script
        self._lock = threading.Lock()
        self._steps = list(script.steps)
        self._times_left = self._steps[0].times if self._steps else 0
        self._answered = 0
        self._values: dict[str, str] = {}

    def answer(self, request: dict[str, Any]) -> tuple[Kind, Answer]:
        """Return the answer to this request. Only requests of a turn use a step."""
        kind = kind_of(request)
        if kind == "side":
            return kind, SIDE_ANSWER
        if kind == "compaction":
            return kind, self._script.compaction
        with self._lock:
            conversation = Conversation(agent=self._agent, request=request, step=self._answered, values=self._values)
            chosen = self._script.decide(conversation) if self._script.decide else self._next(conversation)
            if chosen is not None:
                self._answered += 1
            return kind, _resolved(chosen or DEFAULT_ANSWER, conversation)

    @property
    def steps_left(self) -> int:
        """How many steps have not been played completely."""
        with self._lock:
            return len(self._steps)

    def _next(self, conversation: Conversation) -> Answer | None:
        if not self._steps:
            return None
        step = self._steps[0]
        found = re.search(step.when, conversation.latest, re.DOTALL)
        if found is None:
            return None
        self._values.update({name: value for name, value in found.groupdict().items() if value is not None})
        self._times_left -= 1
        if self._times_left <= 0:
            self._steps.pop(0)
            self._times_left = self._steps[0].times if self._steps else 0
        return step.answer(conversation) if callable(step.answer) else step.answer


def _resolved(answer: Answer, conversation: Conversation) -> Answer:
    """Insert captured values and give hive tools their full names."""
    if not isinstance(answer, Reply):
        return answer
    blocks: list[Text | Call] = []
    for block in answer.blocks:
        if isinstance(block, Text):
            blocks.append(Text(_filled(block.text, conversation.values)))
            continue
        full = f"mcp__hive__{block.tool}"
        tool = full if full in conversation.tools else block.tool
        blocks.append(Call(tool, {key: _value(value, conversation.values) for key, value in block.input.items()}))
    return msgspec.structs.replace(answer, blocks=tuple(blocks))


def _value(value: Any, values: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_value(item, values) for item in value]
    if not isinstance(value, str):
        return value
    filled = _filled(value, values)
    # `id="{question}"` must become the integer that the tool's schema requires.
    whole = re.fullmatch(r"\{\w+\}", value) is not None and re.fullmatch(r"-?\d+", filled) is not None
    return int(filled) if whole else filled


def _filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), text)
