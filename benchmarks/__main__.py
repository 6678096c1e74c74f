"""`python -m benchmarks [--quick] [--only SECTION] [--no-peers]`: measure, print a table, save it."""

import argparse
import shutil
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Final

from benchmarks import peers, report
from benchmarks.figures import Figure, Result, Round
from benchmarks.sections import Scale, Section, Setting

SECTIONS: Final = ("appends", "reading", "beside", "waking", "flood", "turns", "broker", "swarm")
FULL: Final = Scale(rounds=5, events=1.0)
QUICK: Final = Scale(rounds=3, events=0.25)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds of fewer events; about two minutes")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="repeatable")
    parser.add_argument("--no-peers", action="store_true", help="against bare SQLite only; downloads nothing")
    parser.add_argument("--out", type=Path, help="output folder; default: benchmarks/results")
    chosen = parser.parse_args()
    scale = QUICK if chosen.quick else FULL
    found = [] if chosen.no_peers else peers.found()
    for peer in found:
        if peer.missing is not None:
            _say(f"{peer.name} is skipped: {peer.missing}")
    results: list[Result] = []
    for name in chosen.only or SECTIONS:
        folder = Path(tempfile.mkdtemp(prefix="hive-bench-"))
        try:
            results += _measured(import_module(f"benchmarks.sections.{name}"), Setting(folder, scale, found))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    _say(report.table(results))
    out = chosen.out or (None if chosen.quick or chosen.only else report.RESULTS)
    if out is None:
        _say("\nNot saved: this was a partial run. Use --out DIR to save it.")
    else:
        events = "" if scale.events == 1 else f" of {scale.events:.0%} of the events"
        report.write(results, f"{scale.rounds} interleaved rounds{events}", out)
        _say(f"\nWritten to {out}.")


def _measured(section: Section, setting: Setting) -> list[Result]:
    rounds: list[Round] = []
    try:
        with section.measuring(setting) as measured:
            for nth in range(setting.scale.rounds):
                began = time.monotonic()
                rounds.append(measured())
                _say(f"{section.TITLE}: round {nth + 1} of {setting.scale.rounds}, {time.monotonic() - began:.0f} s")
    except LookupError as missing:
        return [_result(section.TITLE, figure, [], str(missing)) for figure in section.FIGURES]
    return [_result(section.TITLE, figure, rounds, "not available") for figure in section.FIGURES]


def _result(title: str, figure: Figure, rounds: list[Round], missing: str) -> Result:
    ratios = figure.ratios(rounds)
    return Result(title, figure.name, figure.unit, figure.goal, ratios, None if ratios else missing)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
