"""Creates the screenshots of the README with a scripted model: `python -m dashboard.make_screenshots` in `tests/`."""

import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from system.hive_process import HiveProcess, eventually

from dashboard.conftest import CHROMIUM, FLAGS, propose
from hive import dashboard
from hive.scripted_model import Script, ScriptedModel, Step, call, calls, say

FOLDER = Path(dashboard.__file__).parent / "screenshots"
SIZE = {"width": 1280, "height": 800}
PICTURES = {
    "swarm": "/",
    "your-call": "/your-call",
    "agent": "/agent/coder/",
    "stats": "/stats?window=1h",
}

MANAGER = Script(
    steps=(
        Step(
            when="parser",
            answer=calls(
                ("set_status", {"text": "planning the parser rewrite; waiting for a reviewer"}), text="I plan."
            ),
        ),
        Step(
            answer=call(
                "request_spawn",
                name="reviewer",
                description="Reads every change of coder's before it is pushed. Needs nothing but its own state.",
            )
        ),
        Step(
            answer=call(
                "ask",
                to="coder",
                question="Shall the tokenizer keep comments as trivia or drop them?",
                options=["keep as trivia", "drop"],
                ttl_seconds=5_400,
            )
        ),
        Step(
            answer=call(
                "ask_operator",
                question="The old grammar accepts tabs inside identifiers. Nobody seems to use it. May I drop that?",
                options=["Drop it", "Keep it", "Warn for a release"],
                ttl_seconds=2_700,
            )
        ),
        Step(answer=say("I go on when reviewer is decided.")),
    )
)
CODER = Script(
    steps=(
        Step(
            when="tokenizer",
            answer=calls(
                ("Bash", {"command": 'python3 -c \'print(41, "of", 58, "pass")\''}),
                ("set_status", {"text": "reading the tokenizer's tests, 41 of 58 pass"}),
                text="I look at what is there.",
            ),
        ),
        Step(
            answer=call(
                "ask_operator",
                question="Which of these may I rename while I am at it? Callers elsewhere may notice.",
                options=["lex_next", "peek_tok", "ParseErr"],
                multi=True,
            )
        ),
        Step(answer=call("send", to="manager", body="41 of 58 tests pass; the rest waits for the naming question.")),
        Step(answer=say("Parked until the names are decided.")),
    )
)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with ScriptedModel({"manager": MANAGER, "coder": CODER}) as model, sync_playwright() as driver:
        hive = HiveProcess(dashboard=True, model_url=model.url)
        try:
            hive.up()
            _play(hive)
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            page = browser.new_page(viewport=SIZE)
            page.goto(hive.run("operator", "link").strip())
            page.wait_for_url(f"{hive.url}/")
            for name, path in PICTURES.items():
                _take(page, hive.url + path, FOLDER / f"{name}.png")
            browser.close()
        finally:
            hive.close()


def _play(hive: HiveProcess) -> None:
    for name in ("coder", "docs", "tidy", "old"):
        hive.ask("spawn", name=name)
    hive.ask("set_paused", name="docs", paused=True)
    hive.ask("stop", scope={"agent_names": ["tidy"]})
    hive.ask("destroy", name="old")
    hive.ask("send", to="docs", body="Write down what the parser accepts, when you are back.")
    hive.ask("send", to="coder", body="Start with the tokenizer, please.")
    hive.event("QuestionAdded", asker="coder")
    hive.ask("send", to="manager", body="We rewrite the parser this week. See it through.")
    hive.event("QuestionAdded", asker="manager", target=None)
    prompt = hive.paths.proposed("coder") / "prompt.md"
    sha = propose(hive, "coder", prompt_md=prompt.read_text() + "\nRun the tokenizer's tests before you push.\n")
    with hive.agent("manager") as manager:
        manager.ask("request_apply_commit", agent="coder", commit_ref=sha, description="Tests before every push.")
    eventually(lambda: all("turn" not in hive.row(name) for name in ("manager", "coder")), "everybody is done")


def _take(page: Page, url: str, to: Path) -> None:
    page.goto(url)
    page.locator("#live[data-state=live]").wait_for()
    time.sleep(0.8)  # Only for the picture: let the clocks and the terminal settle.
    page.screenshot(path=to)


if __name__ == "__main__":
    main()
