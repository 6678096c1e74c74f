"""What the agents of `hive demo --swarm` do, for the scripted model. The coder's script has no order: the coder moves
between hosts, and each has a model of its own.
"""

import re

from hive.scripted_model import Answer, Conversation, Script, Step, call, calls, say

REQUEST = "Ask smith@berlin which colour the badge gets, and paint it."
PEER_QUESTION = "Which colour should the badge of Tokyo have?"
OPERATOR_QUESTION = "Tokyo asks for the colour of its badge. Which one?"
COLOURS = ["mauve", "amber", "green"]
RECALL = "Which colour is the badge?"
PAINTED = "I painted the badge"
RECALLED = "My notes say"


def coder(conversation: Conversation) -> Answer | None:
    latest, values = conversation.latest, conversation.values
    if results := conversation.results:
        match results[-1].tool:
            case "Write":
                return call("send", to="operator", body=f"{PAINTED} {values['colour']}.")
            case "Bash":
                return call("send", to=values["sender"], body=f"{RECALLED} {results[-1].text.strip()}.")
            case _:
                return say("Done.")
    if REQUEST in latest:
        return call("ask", to="smith@berlin", question=PEER_QUESTION, options=COLOURS)
    if answered := re.search(r'"operator_answered".*"answer": "(\w+)"', latest):
        values["colour"] = answered[1]
        return calls(("Write", {"file_path": "/state/badge.txt", "content": f"{answered[1]}\n"}))
    if RECALL in latest and (sender := re.search(r'"from": "(operator[^"]*)"', latest)):
        values["sender"] = sender[1]
        return call("Bash", command="cat /state/badge.txt")
    return None


SMITH = Script(
    steps=(
        Step(
            when=r'"question_asked".*?"id": (?P<id>\d+)',
            answer=call("ask_operator", question=OPERATOR_QUESTION, options=COLOURS),
        ),
        Step(answer=say("I answer when the operator has decided.")),
        Step(
            when=r'"operator_answered".*"answer": "(?P<colour>\w+)"',
            answer=call("answer", id="{id}", answer="{colour}"),
        ),
        Step(answer=say("Tokyo has its answer.")),
    )
)

scripts = {"coder": coder, "smith": SMITH}
