"""The built-in gRPC server passes h2spec, the HTTP/2 conformance tests, including strict ones."""

import asyncio

import pytest

from lora_router.grpc_server.limits import Limits
from tests.integration.test_transports import serving
from tests.kube.binaries import CONFORMANCE, find, why_not

pytestmark = pytest.mark.skipif(why_not(CONFORMANCE) is not None, reason=str(why_not(CONFORMANCE)))


async def test_h2spec_passes() -> None:
    binary = find("h2spec")
    assert binary is not None
    # h2spec opens as many streams as the server allows, and one more.
    async with serving("builtin", limits=Limits(max_streams=100)) as served:
        process = await asyncio.create_subprocess_exec(
            *(binary, "--strict", "--timeout", "2", "--port", str(served.transport.port)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await process.communicate())[0].decode()
        assert served.idle

    assert process.returncode == 0, output
    assert " 0 skipped, 0 failed" in output
