"""What the scripted model says in the demo: one script for each agent. Run by `python -m hive.scripted_model`."""

from hive.scripted_model import Reply, Script, Step, call, calls, say

OPERATORS_WISH = "We need somebody who paints the badge. Please set up a coder and see it through."
COLOURS = ["mauve", "amber", "green"]
BADGE_QUESTION = "Which colour shall the badge have?"
EXPIRING_QUESTION = "Shall I tidy up the workshop as well? Nobody answers this one; it expires after two seconds."
LAST_QUESTION = "The badge is painted. What shall the two of us do next?"


def _proposes(edit: str, why: str) -> Reply:
    """The manager commits a change to the coder's repository."""
    start = "cd /agents/coder && git fetch -q applied && git reset -q --hard applied/main"
    return call("Bash", command=f"{start} && {edit} && git commit -qam '{why}'")


def _requests(why: str) -> Reply:
    return call("request_apply_commit", agent="coder", commit_ref="HEAD", description=why)


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
        Step(when=r"painted it", answer=_proposes("echo 'Sign your badges.' >> prompt.md", "Sign badges")),
        Step(answer=_requests("It should sign its work.")),
        Step(answer=say("The coder's new prompt waits for the operator.")),
        Step(when=r'"rebuilt"', answer=_proposes("echo 'modle = \"x\"' >> agent.toml", "Another model")),
        Step(answer=_requests("Another model; I did not read it twice.")),
        Step(answer=say("One more proposal.")),
        Step(
            when=r"approval_resolved.*failed",
            answer=call("ask_operator", question=EXPIRING_QUESTION, ttl_seconds=2),
        ),
        Step(answer=say("It could not be built, and the coder goes on as it was.")),
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
