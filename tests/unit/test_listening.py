"""Sockets that listen on the addresses of both families."""

import json
import socket

import pytest

from lora_router.admin.server import AdminServer, Readiness
from lora_router.config.settings import Settings
from lora_router.envoy.bootstrap import bootstrap_json
from lora_router.grpc_server.server import GrpcServer
from lora_router.listening import cannot_listen, everywhere, listen, shown_address
from lora_router.telemetry.exposition import Page

dual_stack = pytest.mark.skipif(
    not socket.has_dualstack_ipv6(), reason="the kernel has no IPv6 here"
)


def reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=60).close()
    except OSError:
        return False
    return True


def has_ipv6_loopback() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@dual_stack
def test_everywhere_means_both_families() -> None:
    with listen("::", 0) as listening:
        port = listening.getsockname()[1]
        assert reaches("127.0.0.1", port)
        assert reaches("::1", port) == has_ipv6_loopback()


def test_without_ipv6_in_the_kernel_it_means_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen("::", 0) as listening:
        assert listening.family == socket.AF_INET
        assert reaches("127.0.0.1", listening.getsockname()[1])
    assert everywhere("::1") == "::1"


def test_another_address_is_only_itself() -> None:
    with listen("127.0.0.1", 0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        assert not listening.getblocking()


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert shown_address("::", 8080) == "[::]:8080"
    assert shown_address("10.0.0.7", 8080) == "10.0.0.7:8080"


@dual_stack
async def test_the_admin_pages_and_the_grpc_port_are_reached_over_both() -> None:
    async def page(_accept: str) -> Page:
        return Page(b"", "text/plain")

    admin = AdminServer(
        page, lambda: Readiness(ready=True, reason="", details={}), lambda: 0.0, host="::", port=0
    )
    await admin.start()
    try:
        assert reaches("127.0.0.1", admin.port)
    finally:
        await admin.stop()

    server = GrpcServer({}, max_message_bytes=1024)
    port = await server.start("::", 0)
    try:
        assert reaches("127.0.0.1", port)
    finally:
        await server.drain(0)


@pytest.mark.slow
@pytest.mark.parametrize(("has_ipv6", "address"), [(True, "::"), (False, "0.0.0.0")])
def test_so_does_the_envoy_that_is_printed(
    monkeypatch: pytest.MonkeyPatch, has_ipv6: bool, address: str
) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: has_ipv6)

    [listener] = json.loads(bootstrap_json(Settings()))["static_resources"]["listeners"]

    found = listener["address"]["socket_address"]
    assert found["address"] == address
    assert found.get("ipv4_compat", False) is has_ipv6


def test_an_error_names_the_settings() -> None:
    with (
        listen("127.0.0.1", 0) as listening,
        pytest.raises(OSError, match="Address already in use") as caught,
    ):
        listen("127.0.0.1", listening.getsockname()[1])
    assert cannot_listen("127.0.0.1", 1, "gRPC (grpc_host, grpc_port)", caught.value) == (
        "cannot listen on 127.0.0.1:1 for gRPC (grpc_host, grpc_port): Address already in use; "
        "does another process use the port?"
    )
    assert cannot_listen("::1", 1, "gRPC").endswith(
        "[::1]:1 for gRPC: address not available; does another process use the port?"
    )


def test_a_name_without_an_address_is_no_port_that_is_taken() -> None:
    said = "Name or service not known"
    # `socket.create_server` raises the first, the event loop the second.
    for cause in (OSError(socket.EAI_NONAME, said), socket.gaierror(socket.EAI_NONAME, said)):
        assert cannot_listen("nowhere.invalid", 1, "gRPC", cause) == (
            "cannot listen on nowhere.invalid:1 for gRPC: no address of this host has that name"
        )
