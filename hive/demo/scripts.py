"""What the scripted model says in the demo: one script for each agent. Run by `python -m hive.scripted_model`."""

from hive.scripted_model import Script, Step, call, calls, say

OPERATORS_WISH = "We need somebody who paints the badge. Please set up a coder and see it through."
COLOURS = ["mauve", "amber", "green"]
BADGE_QUESTION = "Which colour shall the badge have?"
EXPIRING_QUESTION = "Shall I tidy up the workshop as well? Nobody answers this one; it expires after two seconds."
LAST_QUESTION = "The badge is painted. What shall the two of us do next?"

MANAGER = Script(
    steps=(
        Step(
            when="set up a coder",
            answer=call(
                "request_spawn", name="coder", description="Paints the badge; needs nothing but its own state."
            ),
        ),
        Step(answer=say("I have asked the operator for a coder; I go on when it is decided.")),
        Step(
            when=r"approval_resolved.*approved",
            answer=call(
                "send", to="coder", body="Ask the operator for the badge's colour, paint it, and tell me how it went."
            ),
        ),
        Step(answer=say("The coder has its task.")),
        Step(when=r"painted it", answer=call("ask_operator", question=EXPIRING_QUESTION, ttl_seconds=2)),
        Step(answer=say("The coder has reported. I wait to hear about the workshop.")),
        Step(when=r"\[expired\]", answer=call("kill", name="coder")),
        Step(answer=call("start", name="coder")),
        Step(answer=call("update", name="coder")),
        Step(answer=call("ask_operator", question=LAST_QUESTION, options=["Rest", "Paint another", "Ask the coder"])),
        Step(
            answer=say("The coder was killed, started and rebuilt, and it is well. The rest is the operator's to say.")
        ),
    )
)

CODER = Script(
    steps=(
        Step(
            when=r'"from": "manager"',
            answer=calls(
                ("Bash", {"command": "id -un; git --version; ls /"}),
                ("set_status", {"text": "choosing a colour"}),
                text="I look around first.",
            ),
        ),
        Step(answer=call("ask_operator", question=BADGE_QUESTION, options=COLOURS)),
        Step(answer=say("I go on when the operator has answered.")),
        Step(
            when=r'operator_answered.*"answer": "(?P<colour>\w+)"',
            answer=calls(("Write", {"file_path": "/state/badge.txt", "content": "{colour}\n"})),
        ),
        Step(answer=call("send", to="manager", body="The operator chose {colour}, and I painted it.")),
        Step(answer=say("The badge is {colour}.")),
    )
)

scripts = {"manager": MANAGER, "coder": CODER}
