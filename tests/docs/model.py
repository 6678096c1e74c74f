"""What the scripted model answers to the reader of each page, by page and agent. Other pages ask no agent."""

from typing import Final

from hive.scripted_model import AnyScript, Script, Step, call, say

_PROPOSE: Final = (
    "cd /agents/coder && git fetch -q applied && git reset -q --hard applied/main"
    " && echo 'Sign every message with your name.' >> prompt.md && git commit -qam 'Sign messages'"
)

SCRIPTS: Final[dict[str, dict[str, AnyScript]]] = {
    "tutorial": {
        "manager": Script(
            steps=(
                Step(
                    when="coder for the parser",
                    answer=call("request_spawn", name="coder", description="Works on the parser."),
                ),
                Step(answer=say("I requested a coder.")),
                Step(when="approval_resolved", answer=say("The coder is there.")),
                Step(when="sign", answer=call("Bash", command=_PROPOSE)),
                Step(
                    answer=call(
                        "request_apply_commit",
                        agent="coder",
                        commit_ref="HEAD",
                        description="The coder signs messages.",
                    )
                ),
                Step(answer=say("The change waits for approval.")),
            )
        ),
        "coder": Script(
            steps=(
                Step(when="introduce yourself", answer=call("send", to="operator", body="I am coder, ready to work.")),
                Step(answer=say("Done.")),
            )
        ),
    }
}
