"""The daemon's metrics in the Prometheus text format."""

from collections.abc import Iterator
from statistics import quantiles
from typing import Any, Final

from hive.turn_columns import TOKEN_KINDS

_PLAIN: Final = {
    "seq": ("hive_log_events", "Events in the log."),
    "log_bytes": ("hive_log_bytes", "Size of the log with its write-ahead file."),
    "transient": ("hive_agents_in_transit", "Agents with a lifecycle action in progress."),
    "questions_pending": ("hive_questions_pending", "Questions that wait for the operator."),
    "questions_oldest_seconds": ("hive_questions_oldest_seconds", "Age of the oldest pending question."),
    "approvals_pending": ("hive_approvals_pending", "Approvals that wait for the operator."),
    "approvals_oldest_seconds": ("hive_approvals_oldest_seconds", "Age of the oldest pending approval."),
    "turns_24h": ("hive_turns_24h", "Turns that ended in the last 24 hours."),
    "turns_failed_24h": ("hive_turns_failed_24h", "Failed turns in the last 24 hours."),
}
for _column, _kind in TOKEN_KINDS.items():
    _PLAIN[f"{_column}_24h"] = (
        f"hive_{_column}_24h",
        f"{_kind.name.capitalize()} in the last 24 hours, as the harnesses report.",
    )
QUANTILES: Final = (0.5, 0.95, 0.99)


def exposition(figures: dict[str, Any]) -> str:
    """All metrics in the exposition format."""
    return "\n".join(_lines(figures)) + "\n"


def _lines(figures: dict[str, Any]) -> Iterator[str]:
    yield from _head("hive_agents", "Agents by state.")
    for state, count in figures["agents"].items():
        yield f'hive_agents{{state="{state}"}} {count}'
    yield from _head("hive_inbox_messages", "Messages per agent, waiting and in a turn.")
    for where, key in (("waiting", "queue"), ("in_flight", "in_flight")):
        for agent, count in figures[key].items():
            yield f'hive_inbox_messages{{agent="{agent}",state="{where}"}} {count}'
    for key, (name, about) in _PLAIN.items():
        yield from _head(name, about)
        yield f"{name} {figures[key]}"
    if "swarm" in figures:
        yield from _swarm_lines(figures["swarm"])
    yield from _head(
        "hive_commit_seconds", "Time from a command to its commit, over the newest 1000 commands.", "summary"
    )
    took = figures["commit_seconds"]
    cuts = quantiles(took, n=100, method="inclusive") if len(took) > 1 else []
    for quantile in QUANTILES:
        if cuts:
            yield f'hive_commit_seconds{{quantile="{quantile}"}} {cuts[round(quantile * 100) - 1]:.6f}'
    yield f"hive_commit_seconds_sum {sum(took):.6f}"
    yield f"hive_commit_seconds_count {len(took)}"


def _swarm_lines(swarm: dict[str, Any]) -> Iterator[str]:
    yield from _head("hive_swarm_connected", "1 if a NATS server is connected.")
    yield f"hive_swarm_connected {swarm['connected']}"
    yield from _head("hive_swarm_replica_lag_events", "Events of the log that are not in its replica yet.")
    yield f"hive_swarm_replica_lag_events {swarm['lag']}"
    yield from _head("hive_swarm_owed_envelopes", "Envelopes without a receipt, by peer.")
    for peer, count in swarm["owed"].items():
        yield f'hive_swarm_owed_envelopes{{peer="{peer}"}} {count}'
    yield from _head("hive_swarm_screen_age_seconds", "Age of the newest state of a peer.")
    for peer, age in swarm["ages"].items():
        yield f'hive_swarm_screen_age_seconds{{peer="{peer}"}} {age}'


def _head(name: str, about: str, kind: str = "gauge") -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
