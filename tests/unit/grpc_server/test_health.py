"""The gRPC health checking protocol."""

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.unit.grpc_server.peer import CHECK, WATCH, Gateway, message

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


def asked(service: str) -> bytes:
    return message(HealthCheckRequest(service=service).SerializeToString())


def states(gateway: Gateway, number: int) -> list[int]:
    data, found = gateway.data(number), []
    while data:
        length = int.from_bytes(data[1:5], "big")
        found.append(HealthCheckResponse.FromString(data[5 : 5 + length]).status)
        data = data[5 + length :]
    return [int(state) for state in found]


def test_a_check_says_how_a_service_is() -> None:
    gateway = Gateway()
    gateway.health.set("readiness", NOT_SERVING)
    number = gateway.open(CHECK)
    gateway.send(number, asked("readiness"), end=True)

    assert states(gateway, number) == [NOT_SERVING]
    assert gateway.status(number) == 0


def test_a_check_of_nothing_is_not_found() -> None:
    gateway = Gateway()
    number = gateway.open(CHECK)
    gateway.send(number, asked("nothing"), end=True)

    assert gateway.status(number) == 5


@pytest.mark.parametrize(
    "data", [b"", asked("a") + asked("b"), message(b"\xff"), asked("a")[:-1], b"\x01\0\0\0\x01x"]
)
def test_what_is_no_request_is_an_error(data: bytes) -> None:
    gateway = Gateway()
    number = gateway.open(CHECK)
    gateway.send(number, data, end=True)

    assert gateway.status(number) == 13
    assert gateway.idle


def test_a_watcher_is_told_of_every_change() -> None:
    gateway = Gateway()
    gateway.health.set("readiness", NOT_SERVING)
    number = gateway.open(WATCH)
    gateway.send(number, asked("readiness"), end=True)

    gateway.health.set("readiness", SERVING)
    gateway.health.set("readiness", SERVING)
    gateway.health.set("liveness", SERVING)
    gateway.exchange()

    assert states(gateway, number) == [NOT_SERVING, SERVING]
    assert gateway.woken == 1
    assert gateway.status(number) is None


def test_a_watcher_of_what_is_not_there_is_told_when_it_comes() -> None:
    gateway = Gateway()
    number = gateway.open(WATCH)
    gateway.send(number, asked("later"), end=True)
    gateway.health.set("later", SERVING)
    gateway.exchange()

    assert states(gateway, number) == [SERVICE_UNKNOWN, SERVING]


def test_a_watcher_that_leaves_is_forgotten() -> None:
    gateway = Gateway()
    number = gateway.open(WATCH)
    gateway.send(number, asked("a"), end=True)
    gateway.reset(number)
    gateway.health.set("a", SERVING)

    assert gateway.woken == 0
    assert gateway.connection.output() == b""


def test_watching_ends_when_the_server_goes() -> None:
    gateway = Gateway()
    number = gateway.open(WATCH)
    gateway.send(number, asked("a"), end=True)

    gateway.health.close()
    gateway.exchange()

    assert gateway.status(number) == 14
    assert gateway.idle
