"""What the broker knows of one agent: policy, connections, pace, newest tries. Agents share nothing else."""

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from hive.broker.addresses import Address, NotResolved, Resolve, refused_because
from hive.broker.files import Files
from hive.broker.pace import Pace
from hive.broker.rules import Rules
from hive.broker.streams import PULL_BYTES
from hive.broker.wire import Asked, FromBroker, Outcome, Policy, Tries, Try

CONNECTIONS_MAX: Final = 256
"""Open at once; further ones wait in the agent's own forwarder."""
RESOLVING_MAX: Final = 8
CONNECT_TIMEOUT_S: Final = 20.0
TRIES_KEPT: Final = 100
ASK_AGAIN_S: Final = 30.0
ASKS_PER_MINUTE: Final = 30
"""Reports to the daemon of hosts that the operator is to decide about."""
NOTHING: Final = Policy(agent="", mode="none")


class Refused(Exception):
    """The agent may not have this connection; `str()` says why and what to do."""


class Failed(Exception):
    """The connection is allowed and could not be made."""


class Agent:
    """One agent, as its sockets say."""

    def __init__(self, name: str, report: Callable[[FromBroker], None], resolve: Resolve, files: Files) -> None:
        self.name = name
        self.policy = NOTHING
        self.rules = Rules(NOTHING)
        self.pace = Pace()
        self.files = files
        self._report = report
        self._resolve = resolve
        self._resolving = asyncio.Semaphore(RESOLVING_MAX)
        self._tries: OrderedDict[tuple[str, int, Outcome], Try] = OrderedDict()
        self._changed: set[tuple[str, int, Outcome]] = set()
        self._asked_s: OrderedDict[tuple[str, int], float] = OrderedDict()

    def set_policy(self, policy: Policy) -> None:
        self.policy = policy
        self.rules = Rules(policy)
        self._asked_s.clear()

    def report(self, message: FromBroker) -> None:
        self._report(message)

    async def connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a canonical host, as far as the rules allow. The address that was checked is connected.

        Raises:
            Refused, Failed
        """
        decision = self.rules.decide(host, port)
        if decision != "allow":
            self._note(host, port, "denied" if decision == "deny" else "asked")
            if decision == "ask":
                self._ask(host, port)
            raise Refused(self._refusal(host, port, decision == "ask"))
        try:
            async with self._resolving:
                found = await self._resolve(host, port)
        except NotResolved as error:
            self._note(host, port, "failed")
            raise Failed(f"hive: {error}.") from error
        reasons = {address: self._address_refused(address, port) for address in found}
        usable = [address for address, reason in reasons.items() if reason is None]
        if not usable:
            self._note(host, port, "address")
            address, reason = next(iter(reasons.items()), (host, "no address"))
            raise Refused(
                f'hive: agent "{self.name}" may not connect to {host}:{port}: {address} is {reason}. '
                "Such addresses are refused unless the operator lists the address itself."
            )
        return await self._connect_one(host, port, usable)

    def _address_refused(self, address: Address, port: int) -> str | None:
        if self.rules.denies_address(address, port):
            return "denied by the operator"
        return None if self.rules.lists_address(address, port) else refused_because(address)

    async def _connect_one(
        self, host: str, port: int, addresses: list[Address]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reason = "no address"
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    connection = await asyncio.open_connection(str(address), port, limit=PULL_BYTES)
            except TimeoutError:
                reason = f"no answer within {CONNECT_TIMEOUT_S:.0f} s"
            except OSError as error:
                reason = error.strerror or str(error)
            else:
                self._note(host, port, "allowed")
                await self.pace.step()
                set_no_delay(connection[1])
                return connection
        self._note(host, port, "failed")
        raise Failed(f"hive: {host}:{port} cannot be reached: {reason}.")

    def _refusal(self, host: str, port: int, asks: bool) -> str:
        said = f'hive: agent "{self.name}" may not connect to {host}:{port} (network mode "{self.policy.mode}").'
        if asks:
            return (
                f"{said} The operator is asked, and you hear of the decision in your inbox. Do not try again before. "
                f'To say why you need it, call the tool request_egress(host="{host}:{port}", why="...").'
            )
        if self.policy.mode in ("listed", "ask"):
            return f'{said} If you need it, call the tool request_egress(host="{host}:{port}", why="...").'
        return f"{said} Work without it, or ask the operator."

    def _ask(self, host: str, port: int) -> None:
        now = time.monotonic()
        while self._asked_s and next(iter(self._asked_s.values())) < now - 60:
            self._asked_s.popitem(last=False)
        asked = self._asked_s.get((host, port))
        if (asked is not None and asked > now - ASK_AGAIN_S) or len(self._asked_s) >= ASKS_PER_MINUTE:
            return
        self._asked_s[host, port] = now
        self._asked_s.move_to_end((host, port))
        self._report(Asked(agent=self.name, host=host, port=port))

    def _note(self, host: str, port: int, outcome: Outcome) -> None:
        key = (host, port, outcome)
        before = self._tries.pop(key, None)
        count = 1 if before is None else before.count + 1
        self._tries[key] = Try(host=host, port=port, outcome=outcome, count=count, last_ms=time.time_ns() // 1_000_000)
        self._changed.add(key)
        if len(self._tries) > TRIES_KEPT:
            self._changed.discard(self._tries.popitem(last=False)[0])

    def flush_tries(self) -> None:
        """Report the tries that changed since the last call."""
        if self._changed:
            self._report(Tries(agent=self.name, tries=tuple(self._tries[key] for key in self._changed)))
            self._changed.clear()


def set_no_delay(writer: asyncio.StreamWriter) -> None:
    one = writer.get_extra_info("socket")
    if one is not None and one.family in (socket.AF_INET, socket.AF_INET6):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
