"""Durable, acknowledged appends through the daemon's journal, against SQLite alone and against other stores."""

import contextlib
from collections.abc import Callable, Iterator
from statistics import harmonic_mean, median

from benchmarks import seeding
from benchmarks.contender import own
from benchmarks.figures import Figure, Round, at_least, at_most
from benchmarks.sections import Setting

TITLE = "Durable appends"
AGENTS = 64
WARM_UP_EVENTS = 20_000
"""Until the write-ahead log has its final size."""
BARE_EVENTS = 1_000
"""Of SQLite alone, before, between and after hive's appends: the disk changes within seconds."""

FIGURES = [
    Figure("64 producers against bare SQLite, one commit an event", "hive 64", "bare", at_least(10)),
    Figure("256 producers against bare SQLite", "hive 256", "bare", at_least(14)),
    Figure("1 producer against bare SQLite", "hive 1", "bare", at_least(0.4)),
    Figure("64 producers, each append with an idempotency key", "hive keyed", "bare"),
    Figure("64 producers against JetStream, sync always", "hive 64", "jetstream", at_least(10)),
    Figure("64 producers against Redis, appendfsync always", "hive 64", "redis"),
    Figure("99th percentile at 64 producers against bare SQLite's", "hive p99", "bare p99", at_most(5)),
    Figure("processor time of an appended event, 64 producers", "hive cpu", lambda _: 1.0, at_most(10), " µs"),
    Figure("64 a commit against eventsourcing, 64 a put", "hive together", "eventsourcing", at_least(2)),
    Figure("64 a commit against bare SQLite, 64 a commit", "hive together", "bare together"),
    Figure(
        "one commit of bare SQLite at the median, for what the disk was like", "bare p50", lambda _: 1.0, None, " ms"
    ),
    Figure("bytes stored for each byte of payload", "stored", "payload", at_most(1.5), ""),
]


@contextlib.contextmanager
def measuring(setting: Setting) -> Iterator[Callable[[], Round]]:
    state = setting.folder / "appends" / "state"
    seeding.roster(state, AGENTS)
    scale = setting.scale
    with contextlib.ExitStack() as stack:
        hive = stack.enter_context(own("hive_daemon", state.parent, str(state), str(AGENTS)))
        bare = stack.enter_context(own("bare", state.parent / "bare", str(state.parent / "bare")))
        peers = {name: setting.peer(name) for name in ("eventsourcing", "jetstream", "redis")}
        for peer in peers.values():
            if peer is not None:
                stack.enter_context(peer)
        hive.ask("append", producers=64, events=WARM_UP_EVENTS)
        hive.ask("drain")
        bare.ask("append", events=scale.of(2_000))

        def measured() -> Round:
            found: Round = {}
            alone = [bare.ask("append", events=scale.of(BARE_EVENTS))]
            before = hive.ask("stored")
            many = hive.ask("append", producers=64, events=scale.of(25_600, 64))
            after = hive.ask("stored")
            alone.append(bare.ask("append", events=scale.of(BARE_EVENTS)))
            found["hive 64"], found["hive p99"], found["hive cpu"] = many["rate"], many["p99_ms"], many["cpu_us"]
            found["stored"], found["payload"] = (after[key] - before[key] for key in ("stored", "payload"))
            for name in ("jetstream", "redis"):
                if (peer := peers[name]) is not None:
                    found[name] = peer.ask("append", producers=64, events=scale.of(2_560, 64))["rate"]
            hive.ask("drain")
            found["hive 1"] = hive.ask("append", producers=1, events=scale.of(1_000))["rate"]
            found["hive 256"] = hive.ask("append", producers=256, events=scale.of(51_200, 256))["rate"]
            alone.append(bare.ask("append", events=scale.of(BARE_EVENTS)))
            hive.ask("drain")
            found["hive keyed"] = hive.ask("append", producers=64, events=scale.of(12_800, 64), keyed=True)["rate"]
            hive.ask("drain")
            found["hive together"] = hive.ask("append_together", events=scale.of(12_800, 64), together=64)["rate"]
            hive.ask("drain")
            found["bare together"] = bare.ask("append", events=scale.of(12_800, 64), per_commit=64)["rate"]
            if (peer := peers["eventsourcing"]) is not None:
                found["eventsourcing"] = peer.ask("append", events=scale.of(6_400, 64), per_commit=64)["rate"]
            found["bare"] = harmonic_mean(part["rate"] for part in alone)
            return found | {f"bare {name}": median(part[f"{name}_ms"] for part in alone) for name in ("p50", "p99")}

        yield measured
