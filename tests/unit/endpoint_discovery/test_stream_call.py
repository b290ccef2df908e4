"""``StreamEndpoints`` on the built-in server, and the service behind it."""

import logging

import pytest

from lora_router.endpoint_discovery import service
from lora_router.endpoint_discovery.service import PATH, EndpointDiscovery
from lora_router.endpoint_discovery.stream_call import StreamEndpoints
from tests.fleet import ManualClock, make_fleet, make_pod
from tests.unit.endpoint_discovery.envoy_side import Received, read, request
from tests.unit.grpc_server.peer import Gateway


class Envoys(Gateway):
    """Envoys on one connection to a router."""

    path = PATH

    def __init__(self, pods: int = 1) -> None:
        self.fleet = make_fleet(pods)
        clock = ManualClock()
        self.discovery = EndpointDiscovery(self.fleet, clock)
        clock.advance(1)
        super().__init__(
            methods={PATH: StreamEndpoints(self.discovery).open_call}, clock=clock, reads=True
        )

    def received(self, number: int) -> list[Received]:
        return [read(data) for data in self.messages(number)]

    def later(self) -> None:
        self.clock.advance(1)
        self.exchange()


def test_an_envoy_follows_the_pods() -> None:
    envoys = Envoys()
    number = envoys.open()
    envoys.say(number, request("pods"))
    (first,) = envoys.received(number)
    envoys.say(number, request("pods", nonce=first.nonce))

    envoys.fleet.upsert(make_pod(2))
    envoys.later()

    assert [len(each.pods) for each in envoys.received(number)] == [1, 2]
    assert envoys.woken
    assert envoys.discovery.open_streams == 1
    envoys.end(number)
    assert envoys.status(number) == 0
    assert envoys.discovery.open_streams == 0


@pytest.mark.parametrize("how", ["reset", "lost"])
def test_a_stream_that_is_gone_is_forgotten(how: str) -> None:
    envoys = Envoys()
    number = envoys.open()
    envoys.say(number, request("pods"))

    if how == "reset":
        envoys.reset(number)
    else:
        envoys.connection.lost()

    assert envoys.discovery.open_streams == 0
    envoys.fleet.upsert(make_pod(2))
    envoys.clock.advance(1)


@pytest.mark.slow
def test_many_envoys_are_told_in_slices() -> None:
    envoys = Envoys()
    numbers = [envoys.open() for _ in range(40)]
    for number in numbers:
        envoys.say(number, request("pods"))
        envoys.say(number, request("pods", nonce=envoys.received(number)[0].nonce))

    envoys.fleet.upsert(make_pod(2))
    envoys.reset(numbers[-1])
    envoys.later()

    assert all(len(envoys.received(number)) == 2 for number in numbers[:-1])


def test_streams_over_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_STREAMS", 2)
    envoys = Envoys()
    numbers = [envoys.open() for _ in range(3)]

    assert envoys.status(numbers[-1]) == 14
    envoys.reset(numbers[0])
    assert envoys.discovery.open_streams == 1
    envoys.say(envoys.open(), request("pods"))
    assert envoys.discovery.open_streams == 2


def test_a_router_that_stops_ends_the_streams_and_accepts_no_more() -> None:
    envoys = Envoys()
    numbers = [envoys.open() for _ in range(2)]

    envoys.discovery.close()
    envoys.exchange()
    numbers.append(envoys.open())

    assert [envoys.status(number) for number in numbers] == [14, 14, 14]
    assert envoys.discovery.open_streams == 0


def test_what_is_no_request_ends_its_stream_only() -> None:
    envoys = Envoys()
    good, bad = envoys.open(), envoys.open()

    envoys.say(bad, b"\xff")
    envoys.say(good, request("pods"))

    assert envoys.status(bad) == 3
    assert len(envoys.received(good)) == 1


def test_rejections_are_counted_and_logged_at_a_limited_rate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    envoys = Envoys()
    number = envoys.open()
    envoys.say(number, request("pods"))
    with caplog.at_level(logging.WARNING):
        for pods in range(2, 7):
            nonce = envoys.received(number)[-1].nonce
            envoys.say(number, request("pods", nonce=nonce, rejects="malformed IP address"))
            envoys.fleet.upsert(make_pod(pods))
            envoys.later()

    assert envoys.discovery.rejected == 5
    (line,) = caplog.messages
    assert "rejected the list of pods: malformed IP address" in line
