"""Migrates flakes from an older template to the current one. The config pipeline runs it at start."""

import re
from typing import Final

from hive.config.meta_flake import FLAKE
from hive.config.repositories import MAIN, Repositories, template
from hive.names import AgentName

MARKER: Final = "_module.args.flakeInputs"
"""A flake with this text uses the current template or was written by hand."""
MESSAGE: Final = "Migrate flake.nix to the current template: agent.nix is a submodule and sees flakeInputs"
_OLD_FORM: Final = re.compile(r"nixosModules\.default\s*=\s*import\s+\./agent\.nix")
_INPUT_LINE: Final = re.compile(r"^[ \t]*inputs\.[\w.\"'-]+\s*=[^;{}]*;", re.MULTILINE)
_INPUT_BLOCK: Final = re.compile(r"^[ \t]*inputs(?:\.[\w.\"'-]+)?\s*=\s*\{", re.MULTILINE)
_OUTPUTS: Final = "  outputs =\n"


def migrate(repositories: Repositories, name: AgentName) -> str | None:
    """Commit the migrated flake to applied main. Returns the new sha, or None if nothing changed."""
    with repositories.locked(name):
        main, flake = _flake(repositories, name)
        if not uses_old_template(flake):
            return None
        text = rendered(flake)
        sha = repositories.commit_files(name, {FLAKE: text.encode()}, message=MESSAGE)
        repositories.applied(name).run("update-ref", "-m", "migration", MAIN, sha, main)
        return sha


def needs_migration(repositories: Repositories, name: AgentName) -> bool:
    """Whether `migrate` would change anything."""
    return uses_old_template(_flake(repositories, name)[1])


def _flake(repositories: Repositories, name: AgentName) -> tuple[str, str]:
    main = repositories.main(name)
    return main, repositories.files(name, main).get(FLAKE, b"").decode(errors="replace")


def uses_old_template(flake: str) -> bool:
    """Whether the flake has the form of the older template. Handwritten flakes are not migrated."""
    return MARKER not in flake and _OLD_FORM.search(flake) is not None


def rendered(old: str) -> str:
    """The current template with the inputs of the old flake."""
    new = template()[FLAKE]
    assert new is not None
    inputs = [match[0].strip() for match in _INPUT_LINE.finditer(old)]
    inputs += [_braced(old, match.start(), match.end()).strip() for match in _INPUT_BLOCK.finditer(old)]
    kept = "".join(f"  {text}\n" for text in inputs)
    return new.decode().replace(_OUTPUTS, f"{kept}\n{_OUTPUTS}" if kept else _OUTPUTS, 1)


def _braced(text: str, start: int, at: int) -> str:
    """The text from `start` to the brace that closes the one before `at`, with a semicolon."""
    depth = 1
    while depth and at < len(text):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
    return f"{text[start:at]};"
