"""Renders the results as a terminal table, as Markdown and as a chart. Used by the command."""

import os
import platform
from pathlib import Path
from typing import Final

import apsw

from benchmarks.figures import Result

RESULTS: Final = Path(__file__).parent / "results"
WIDTH: Final = 900
ROW: Final = 26
LABEL: Final = 480
BAR: Final = 250
"""Bar length of a goal that is just reached."""
LONGEST: Final = WIDTH - LABEL - 90


def figure(result: Result) -> str:
    """`12.3×`, with significant digits only."""
    value = result.median
    return f"{value:.1f}{result.unit}" if value >= 10 else f"{value:.2f}{result.unit}"


def spread(result: Result) -> str:
    """The smallest and the largest of its rounds."""
    return f"{min(result.ratios):.2f} – {max(result.ratios):.2f}"


def goal(result: Result) -> str:
    return "" if result.goal is None else f"{result.goal.sign} {result.goal.value:g}"


def outcome(result: Result) -> str:
    if result.skipped is not None:
        return f"skipped: {result.skipped}"
    return {None: "", True: "reached", False: "missed"}[result.reached]


def host() -> str:
    """The machine of the run."""
    cores = len(os.sched_getaffinity(0))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    virtual = "hypervisor" in Path("/proc/cpuinfo").read_text()
    linux = ".".join(platform.release().split(".")[:2])
    return (
        f"A {'virtual' if virtual else 'real'} machine with {cores} cores and {memory_gib:.0f} GiB of memory,"
        f" Linux {linux}, Python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()};"
        f" load {os.getloadavg()[0]:.1f} at the end"
    )


def table(results: list[Result]) -> str:
    """For a terminal."""
    rows = [("", "figure", "median", "spread", "goal", "")]
    for result in results:
        shown = ("–", "") if not result.ratios else (figure(result), spread(result))
        rows.append((result.section, result.name, *shown, goal(result), outcome(result)))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = []
    section = ""
    for row in rows:
        if row[0] != section:
            section = row[0]
            lines += ["", section]
        cells = [row[1].ljust(widths[1]), row[2].rjust(widths[2]), row[3].rjust(widths[3]), row[4].rjust(widths[4])]
        lines.append("  " + "  ".join([*cells, row[5]]).rstrip())
    return "\n".join(lines)


def markdown(results: list[Result], measured: str) -> str:
    lines = [
        "# Results",
        "",
        f"{host()}. {measured}. How to read this table: [README](../README.md).",
        "",
        "![every figure against its goal](table.svg)",
    ]
    section = ""
    for result in results:
        if result.section != section:
            section = result.section
            lines += ["", f"## {section}", "", "| figure | median | spread | goal | |", "|---|---:|---:|---:|---|"]
        shown = ("–", "") if not result.ratios else (figure(result), spread(result))
        lines.append(f"| {result.name} | {shown[0]} | {shown[1]} | {goal(result)} | {outcome(result)} |")
    return "\n".join(lines) + "\n"


def drawing(results: list[Result]) -> str:
    """A bar per figure relative to its goal, which is drawn as a line."""
    drawn = [result for result in results if result.goal is not None and result.ratios]
    height = ROW * len(drawn) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<text x="10" y="22" font-size="15">Each figure against its goal (the line); longer is better</text>',
    ]
    for nth, result in enumerate(drawn):
        parts += _bar(result, 40 + nth * ROW)
    x = LABEL + BAR
    parts.append(f'<line x1="{x}" x2="{x}" y1="34" y2="{height - 14}" stroke="#444" stroke-dasharray="3 3"/>')
    return "\n".join([*parts, "</svg>", ""])


def _bar(result: Result, y: int) -> list[str]:
    assert result.goal is not None
    length, low, high = (_length(result, value) for value in (result.median, min(result.ratios), max(result.ratios)))
    colour = "#5b8c5a" if result.reached else "#c8553d"
    middle = y + ROW // 2 - 2
    low, high = sorted((low, high))
    label = f"{figure(result)} ({goal(result)})"
    return [
        f'<text x="10" y="{y + 15}">{_escaped(result.name)}</text>',
        f'<rect x="{LABEL}" y="{y + 3}" width="{length:.0f}" height="{ROW - 9}" fill="{colour}"/>',
        f'<line x1="{LABEL + low:.0f}" x2="{LABEL + high:.0f}" y1="{middle}" y2="{middle}" stroke="black"/>',
        f'<text x="{LABEL + 4}" y="{y + 15}" fill="white">{_escaped(label)}</text>',
    ]


def _length(result: Result, value: float) -> float:
    assert result.goal is not None
    beyond = value / result.goal.value if result.goal.sign == "≥" else result.goal.value / max(value, 1e-9)
    return min(BAR * beyond, LONGEST)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def write(results: list[Result], measured: str, folder: Path = RESULTS) -> None:
    """Replace the Markdown and the chart; `measured` describes the amount of work."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(markdown(results, measured))
    (folder / "table.svg").write_text(drawing(results))
