"""A member, a stranger and the servers themselves misbehave: nothing forged is accepted, and the log says so."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import RePublish
from system.hive_process import DEADLINE_S, HiveProcess, eventually

from hive.events import envelopes
from hive.events.base import MessageId
from hive.settings import load
from hive.swarm import keys, subjects, tls
from hive.swarm.envelope import Envelope, seal

from .servers import Server, swarm

pytestmark = pytest.mark.system

BODY = "not from me"


class Scene:
    def __init__(self, server: Server, hives: dict[str, HiveProcess]):
        self.server = server
        self.oslo, self.tokyo, self.berlin = hives.values()

    def refusals(self, reason: str) -> list[Any]:
        return [event for event in self.berlin.events("EnvelopeRefused") if reason in event["reason"]]

    def publish(self, as_: HiveProcess, subject: str, data: bytes) -> None:
        """Publish with the key of a hive."""
        asyncio.run(self._as(as_, lambda client: client.publish(subject, data)))

    def is_refused(self, as_: HiveProcess, subject: str, *, listens: bool = False) -> None:
        """The server does not let a hive publish or listen there."""

        def work(client: Client) -> Awaitable[Any]:
            return client.subscribe(subject) if listens else client.publish(subject, b"{}")

        asyncio.run(self._as(as_, work, is_refused=True))

    def republish(self, as_: HiveProcess, subject: str) -> None:
        """Have the server send each row of a hive's replica to another subject."""

        async def work(client: Client) -> None:
            js, own = client.jetstream(), load(as_.paths.settings).swarm.name
            info = await js.stream_info(subjects.log_stream(str(own)))
            await js.update_stream(info.config, republish=RePublish(src=subjects.log(str(own)), dest=subject))

        asyncio.run(self._as(as_, work))

    async def _as(
        self, as_: HiveProcess, work: Callable[[Client], Awaitable[Any]], *, is_refused: bool = False
    ) -> None:
        """Do something with the key of a hive; the server complains if it is to be refused."""
        swarm = load(as_.paths.settings).swarm
        key = keys.load(as_.paths.state)
        public = [key.public, *(one.key for one in swarm.peers.values())]
        complained = asyncio.Event()

        async def complain(error: Exception) -> None:
            if "permissions violation" in str(error).lower():  # Not the end of the TLS connection.
                complained.set()

        client = await nats.connect(
            list(swarm.servers),
            tls=tls.client_context([keys.PeerKey(text) for text in public]),
            nkeys_seed_str=key.seed,
            inbox_prefix=subjects.reply_prefix(str(swarm.name)),
            error_cb=complain,
        )
        await work(client)
        await client.flush()
        if is_refused:
            await asyncio.wait_for(complained.wait(), DEADLINE_S)
        assert complained.is_set() == is_refused
        await client.close()


def message(number: int, sender: str = "tokyo", attempt: int = 0) -> Envelope:
    said = envelopes.Message(id=MessageId(1), sender="coder", to="manager", body=BODY)
    return Envelope(sender=sender, to="berlin", number=number, base=number, attempt=attempt, payload=said)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with swarm("oslo", "tokyo", "berlin") as (server, hives):
        yield Scene(server, hives)


def test_altered_envelope_is_refused_and_recorded(scene: Scene) -> None:
    data = bytearray(seal(keys.load(scene.tokyo.paths.state), message(1)))
    data[-20] ^= 1
    scene.publish(scene.tokyo, "hive.to.berlin.tokyo", bytes(data))
    eventually(lambda: scene.refusals("its signature is wrong"), "the refusal in the log")
    assert not scene.berlin.events("MessageSent", body=BODY)


def test_envelope_in_the_name_of_another_hive_is_refused(scene: Scene) -> None:
    """Oslo's own subject and signature do not make it tokyo."""
    oslo_signs = seal(keys.load(scene.tokyo.paths.state), message(1, sender="oslo"))
    scene.publish(scene.tokyo, "hive.to.berlin.tokyo", oslo_signs)
    eventually(lambda: scene.refusals("it names another sender"), "the refusal in the log")


def test_server_keeps_a_hive_from_publishing_as_another(scene: Scene) -> None:
    for subject in (
        "hive.to.berlin.oslo",
        "hive.log.berlin",
        "$KV.hive-screen-berlin.screen",
        "$O.hive-files-berlin.M.x",
        "_HIVE_berlin.x",
        "$SYS.REQ.SERVER.PING",
        *(f"$JS.API.STREAM.{verb}.hive-log-berlin" for verb in ("DELETE", "UPDATE", "PURGE", "MSG.DELETE", "RESTORE")),
        "$JS.API.STREAM.CREATE.another",
        "$JS.API.STREAM.MSG.GET.hive-inbox-berlin",
        "$JS.API.CONSUMER.DELETE.hive-inbox-berlin.inbox",
        "$JS.API.CONSUMER.MSG.NEXT.hive-inbox-berlin.inbox",
        "$JS.ACK.hive-inbox-berlin.inbox.1.1.1.1.1",
        "$JS.API.META.LEADER.STEPDOWN",
    ):
        scene.is_refused(scene.tokyo, subject)


@pytest.mark.parametrize("subject", [">", "hive.>", "hive.to.berlin.*", "_HIVE_berlin.>", "$JS.>", "$SYS.>"])
def test_server_keeps_a_hive_from_listening_to_others(scene: Scene, subject: str) -> None:
    scene.is_refused(scene.tokyo, subject, listens=True)


def test_republished_rows_do_not_pass_for_envelopes_of_another(scene: Scene) -> None:
    """A member may configure its own streams; what they send is not signed by the hive whose subject it has."""
    before = len(scene.berlin.events("EnvelopeReceived"))
    scene.republish(scene.tokyo, "hive.to.berlin.oslo")
    scene.tokyo.ask("send", to="manager", body=BODY)
    head = scene.tokyo.head()
    eventually(lambda: scene.tokyo.ask("swarm")["swarm"].get("shipped", 0) >= head, "the row is in the stream")
    scene.oslo.ask("send", to="manager@berlin", body="after it")
    scene.berlin.event("MessageSent", body="after it")
    assert not scene.berlin.events("MessageSent", body=BODY)
    assert len(scene.berlin.events("EnvelopeReceived")) == before + 1


def test_replayed_envelope_is_refused_and_recorded(scene: Scene) -> None:
    scene.tokyo.ask("send", to="manager@berlin", body="once")
    scene.berlin.event("MessageSent", body="once")
    replayed = seal(keys.load(scene.tokyo.paths.state), message(1))
    scene.publish(scene.tokyo, "hive.to.berlin.tokyo", replayed)
    eventually(lambda: scene.refusals("it is a replay"), "the refusal in the log")
    assert not scene.berlin.events("MessageSent", body=BODY)
    assert len(scene.berlin.events("MessageSent", body="once")) == 1


def test_operator_who_is_not_listed_decides_nothing(scene: Scene) -> None:
    with scene.berlin.agent("manager") as manager:
        id = manager.ask("request_spawn", name="writer")["id"]
    key = scene.tokyo.data("swarm", "init", "tokyo", "--server", scene.server.url)["key"]
    scene.berlin.run("swarm", "trust", "tokyo", key, "--operators", "somebody-else")
    eventually(lambda: scene.berlin.events("PeersSet")[-1]["peers"]["tokyo"] == ["somebody-else"], "the new list")
    refused = scene.tokyo.try_run("approve", str(id), "--hive", "berlin")
    assert refused.returncode == 1
    assert f"berlin: {getpass.getuser()} of tokyo may not decide in berlin." in refused.stderr
    assert not scene.berlin.events("ApprovalResolved")
    assert scene.berlin.events("DecisionAnswered")[0]["error"]


def test_distrusted_hive_is_no_longer_heard(scene: Scene) -> None:
    scene.berlin.run("swarm", "distrust", "tokyo")
    eventually(lambda: "tokyo" not in scene.berlin.events("PeersSet")[-1]["peers"], "the new list")
    scene.tokyo.ask("send", to="manager@berlin", body="still there?")
    eventually(lambda: scene.refusals("it is not a peer of this hive"), "the refusal in the log")
    assert not scene.berlin.events("MessageSent", body="still there?")
    refused = scene.berlin.try_run("send", "manager@tokyo", "hello")
    assert 'hive "tokyo" is not a peer of this hive; peers: oslo' in refused.stderr
