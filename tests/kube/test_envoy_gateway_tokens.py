"""Envoy Gateway's rate limits count the tokens that the router reads from answers."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import render
from tests.envoy import free_port
from tests.integration.usage_pod import UsagePod
from tests.kube.binaries import GATEWAY_TRANSLATOR, why_not
from tests.kube.gateway_config import Document, bootstrap, refusals, routes_of, translate
from tests.kube.gateway_install import gateway_values, installed
from tests.kube.installed import Releases
from tests.kube.rate_limit_service import RateLimitService
from tests.kube.server import KubeClient, KubeServer
from tests.waiting import until

_missing = why_not(GATEWAY_TRANSLATOR)
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
    pytest.mark.usefixtures("resources"),
]

ROOT = Path(__file__).parents[2]
EXAMPLE: dict[str, Any] = yaml.safe_load(
    (ROOT / "deploy/examples/token-rate-limits.yaml").read_text()
)
LIMIT = EXAMPLE["gateway"]["envoyGateway"]["rateLimit"]
ASKS = {"stream": True, "stream_options": {"include_usage": True}}


def with_limit(service: tuple[str, str], **changes: object) -> dict[str, Any]:
    """Values for a Gateway with the limit of the example."""
    return gateway_values(service, rateLimit=LIMIT, **changes) | {"settings": EXAMPLE["settings"]}


@pytest.mark.parametrize("destination", ["endpoint-override", "original-dst"])
async def test_the_example_is_accepted_and_reads_the_metadata(
    destination: str, folder: Path
) -> None:
    documents = render(with_limit(("models", "base"), destination=destination))
    pods = {("models", "base"): ["127.0.0.1:8001"]}

    found = await translate(documents, folder, pods)
    assert refusals(found) == []
    for route in routes_of(bootstrap(found, free_port())):
        [limits] = [
            each["rateLimits"]
            for filter_name, each in route["typedPerFilterConfig"].items()
            if "ratelimit" in filter_name
        ]
        checks, counts = limits
        assert checks["hitsAddend"] == {"number": "0"}
        assert counts["applyOnStreamDone"] is True
        assert counts["hitsAddend"] == {"format": "%DYNAMIC_METADATA(io.lora_router:total_tokens)%"}
        tenant = counts["actions"][-1]["requestHeaders"]
        assert tenant["headerName"] == "x-tenant-id"


async def test_a_tenant_that_used_its_tokens_gets_429(
    kube: KubeServer, admin: KubeClient, namespace: str, releases: Releases, folder: Path
) -> None:
    pods = [UsagePod("one")]
    service = (namespace, "base")
    async with RateLimitService(limit=40) as limits:

        def with_service(config: Document) -> None:
            config["static_resources"]["clusters"].append(limits.cluster())

        async with installed(
            kube,
            admin,
            releases,
            folder,
            {service: list(pods)},
            with_limit(service),
            change=with_service,
        ) as gateway:

            async def ask(tenant: str, answer: object, **fields: object) -> int:
                document = {"model": "base", "answer": answer, **fields}
                status, _ = await gateway.post(document, {"x-tenant-id": tenant})
                return status

            usage = {"usage": {"prompt_tokens": 11, "completion_tokens": 7}}
            assert await ask("a", usage) == 200
            await until(lambda: limits.used["a"] == 18)

            assert await ask("a", [{}, usage | {"choices": []}], **ASKS) == 200
            await until(lambda: limits.used["a"] == 36)

            assert await ask("a", {"text": "without numbers"}) == 200
            assert await ask("a", usage) == 200
            await until(lambda: limits.used["a"] == 54)

            assert await ask("a", usage) == 429
            assert await ask("b", usage) == 200
            await until(lambda: limits.used["b"] == 18)
            assert limits.used["a"] == 54
            # It was asked before each request, and after each answer that states tokens.
            assert limits.asked == 6 + 4
