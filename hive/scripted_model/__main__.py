"""`python -m hive.scripted_model --script FILE --port N`: run the scripted model as its own process."""

import argparse
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

from hive.scripted_model.script import AnyScript
from hive.scripted_model.server import ScriptedModel


def load_scripts(file: Path) -> Mapping[str, AnyScript]:
    """Load the mapping `scripts` (agent name to script) from a Python file."""
    scripts = runpy.run_path(str(file)).get("scripts")
    if not isinstance(scripts, Mapping):
        raise SystemExit(f"{file} defines no mapping named `scripts` from agent name to script.")
    return scripts


def main() -> None:
    """Serve until killed. Print the URL in one line on stdout."""
    parser = argparse.ArgumentParser(prog="python -m hive.scripted_model", description=__doc__)
    parser.add_argument("--script", type=Path, help="a Python file that defines `scripts`, agent name to script")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    chosen = parser.parse_args()
    model = ScriptedModel(load_scripts(chosen.script) if chosen.script else None, port=chosen.port)
    sys.stdout.write(f"scripted model ready {model.url}\n")
    sys.stdout.flush()
    try:
        model.serve_forever()
    except KeyboardInterrupt:
        sys.stdout.write("scripted model stopped\n")


if __name__ == "__main__":
    main()
