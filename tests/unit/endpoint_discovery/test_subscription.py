"""One stream of endpoint discovery: what is sent, acknowledged and rejected."""

import pytest

from lora_router.endpoint_discovery.endpoint_list import EndpointList
from lora_router.endpoint_discovery.pb.discovery_pb2 import DiscoveryRequest
from lora_router.endpoint_discovery.subscription import RequestError, Subscription
from tests.fleet import ManualClock, make_fleet, make_pod
from tests.unit.endpoint_discovery.envoy_side import Received, read, request


class Stream:
    """A subscription, and the fleet that it is about."""

    def __init__(self, pods: int = 1) -> None:
        self.fleet = make_fleet(pods)
        self.clock = ManualClock()
        self.list = EndpointList(self.fleet, self.clock)
        self.clock.advance(1)
        self.subscription = Subscription(self.list)

    def ask(self, *names: str, nonce: str = "", rejects: str = "") -> str | None:
        return self.subscription.receive(request(*names, nonce=nonce, rejects=rejects))

    def join(self, number: int) -> None:
        self.fleet.upsert(make_pod(number))
        self.clock.advance(1)

    def take(self) -> Received | None:
        data = self.subscription.take()
        return None if data is None else read(data)

    def taken(self) -> Received:
        received = self.take()
        assert received is not None
        return received


def test_who_asks_for_the_pods_gets_them_once() -> None:
    stream = Stream(2)
    assert stream.take() is None

    stream.ask("pods")

    assert sorted(stream.taken().pods) == ["pod-1", "pod-2"]
    assert stream.take() is None


def test_a_new_version_follows_when_the_last_is_acknowledged() -> None:
    stream = Stream()
    stream.ask("pods")
    first = stream.taken()
    stream.join(2)
    stream.join(3)
    assert stream.take() is None

    stream.ask("pods", nonce=first.nonce)

    second = stream.taken()
    assert len(second.pods) == 3
    assert second.nonce != first.nonce
    assert second.version != first.version


def test_a_rejected_version_is_not_sent_again() -> None:
    stream = Stream()
    stream.ask("pods")
    first = stream.taken()

    assert stream.ask("pods", nonce=first.nonce, rejects="malformed IP address") == (
        "malformed IP address"
    )
    assert stream.take() is None

    stream.join(2)
    assert len(stream.taken().pods) == 2


def test_a_long_reason_is_cut() -> None:
    stream = Stream()
    stream.ask("pods")

    reason = stream.ask("pods", nonce=stream.taken().nonce, rejects="x" * 10_000)

    assert reason == "x" * 300


def test_an_answer_to_an_older_response_changes_nothing() -> None:
    stream = Stream()
    stream.ask("pods")
    first = stream.taken()
    stream.ask("pods", nonce=first.nonce)
    stream.join(2)
    stream.taken()

    assert stream.ask("pods", nonce=first.nonce, rejects="late") is None
    stream.join(3)

    assert stream.take() is None


def test_other_names_are_not_answered() -> None:
    stream = Stream()
    for names in (("others",), ()):
        stream.ask(*names)
        assert stream.take() is None

    stream.ask("others", "pods")
    first = stream.taken()

    stream.ask("others", nonce=first.nonce)
    stream.join(2)
    assert stream.take() is None

    stream.ask("pods", nonce=first.nonce)
    assert len(stream.taken().pods) == 2


def test_a_request_for_something_else_is_an_error() -> None:
    stream = Stream()
    for data in (b"\xff", DiscoveryRequest(type_url="Listener").SerializeToString()):
        with pytest.raises(RequestError):
            stream.subscription.receive(data)
