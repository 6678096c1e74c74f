"""The demo's scripts for the scripted model, one per agent. Loaded by `python -m hive.scripted_model`."""

from hive.scripted_model import Reply, Script, Step, call, calls, say

FIRST_REQUEST = "Please set up a coder that paints the badge, and report when it is done."
COLOURS = ["mauve", "amber", "green"]
BADGE_QUESTION = "Which colour should the badge have?"
EXPIRING_QUESTION = "Should I also clean up the workshop? (This question expires after two seconds.)"
LAST_QUESTION = "The badge is painted. What should we do next?"


def _proposes(edit: str, why: str) -> Reply:
    """The manager commits a change to the coder's proposed repository."""
    start = "cd /agents/coder && git fetch -q applied && git reset -q --hard applied/main"
    return call("Bash", command=f"{start} && {edit} && git commit -qam '{why}'")


def _requests(why: str) -> Reply:
    return call("request_apply_commit", agent="coder", commit_ref="HEAD", description=why)


MANAGER = Script(
    steps=(
        Step(
            when="set up a coder",
            answer=call("request_spawn", name="coder", description="Paints the badge. Needs no folders of the host."),
        ),
        Step(answer=say("I requested a coder. I continue when the operator has decided.")),
        Step(
            when=r"approval_resolved.*approved",
            answer=call(
                "send", to="coder", body="Ask the operator for the badge's colour, paint the badge, and report to me."
            ),
        ),
        Step(answer=say("The coder has its task.")),
        Step(when=r"painted it", answer=_proposes("echo 'Sign your badges.' >> prompt.md", "Sign badges")),
        Step(answer=_requests("The coder should sign its work.")),
        Step(answer=say("The coder's new prompt waits for approval.")),
        Step(when=r'"rebuilt"', answer=_proposes("echo 'modle = \"x\"' >> agent.toml", "Another model")),
        Step(answer=_requests("Changes the model.")),
        Step(answer=say("I sent one more proposal.")),
        Step(
            when=r"approval_resolved.*failed",
            answer=call("ask_operator", question=EXPIRING_QUESTION, ttl_seconds=2),
        ),
        Step(answer=say("The build failed. The coder keeps its configuration.")),
        Step(when=r"\[expired\]", answer=call("kill", name="coder")),
        Step(answer=call("start", name="coder")),
        Step(answer=call("update", name="coder")),
        Step(answer=call("ask_operator", question=LAST_QUESTION, options=["Rest", "Paint another", "Ask the coder"])),
        Step(answer=say("The coder was killed, started and rebuilt. I wait for the operator.")),
    )
)

CODER = Script(
    steps=(
        Step(
            when=r'"from": "manager"',
            answer=calls(
                ("Bash", {"command": "id -un; git --version; ls /"}),
                ("set_status", {"text": "choosing a colour"}),
                text="I look at my environment first.",
            ),
        ),
        Step(answer=call("ask_operator", question=BADGE_QUESTION, options=COLOURS)),
        Step(answer=say("I continue when the operator has answered.")),
        Step(
            when=r'operator_answered.*"answer": "(?P<colour>\w+)"',
            answer=calls(("Write", {"file_path": "/state/badge.txt", "content": "{colour}\n"})),
        ),
        Step(answer=call("send", to="manager", body="The operator chose {colour}, and I painted it.")),
        Step(answer=say("The badge is {colour}.")),
    )
)

scripts = {"manager": MANAGER, "coder": CODER}
