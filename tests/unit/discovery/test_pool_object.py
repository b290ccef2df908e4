"""Translation of InferencePools."""

from pathlib import Path

import msgspec
import pytest

from lora_router.discovery import pool_object
from lora_router.discovery.pool_object import (
    V1,
    V1ALPHA2,
    AlphaPoolObject,
    Pool,
    PoolError,
    PoolNameError,
    PoolObject,
    pool_name,
    pool_query,
    pool_type,
    to_pool,
)


def pool_of(spec: dict[str, object]) -> Pool:
    document = {"metadata": {"name": "pool"}, "spec": spec, "status": {"parents": []}}
    return to_pool(msgspec.json.decode(msgspec.json.encode(document), type=PoolObject))


def spec(**changes: object) -> dict[str, object]:
    return {
        "selector": {"matchLabels": {"app": "vllm"}},
        "targetPorts": [{"number": 8000}],
        **changes,
    }


def test_a_pool_selects_pods_and_names_their_ports() -> None:
    found = pool_of(
        {
            "selector": {"matchLabels": {"tier": "", "app.test/name": "vllm"}},
            "targetPorts": [{"number": 8000}, {"number": 8001}],
            "appProtocol": "kubernetes.io/h2c",
            "endpointPickerRef": {
                "name": "lora-router",
                "port": {"number": 50052},
                "failureMode": "FailOpen",
            },
        }
    )
    assert found == Pool("app.test/name=vllm,tier=", (8000, 8001), "kubernetes.io/h2c", "FailOpen")


def test_what_a_pool_leaves_out_is_the_default_of_its_api() -> None:
    assert pool_of(spec()) == Pool("app=vllm", (8000,), "http", None)
    assert pool_of(spec(endpointPickerRef={"name": "epp"})).failure_mode == "FailClose"


def test_a_pool_of_the_former_group_has_a_plain_selector_and_one_port() -> None:
    document = {
        "spec": {
            "selector": {"app": "vllm"},
            "targetPortNumber": 8000,
            "extensionRef": {"name": "epp", "failureMode": "FailOpen"},
        }
    }
    found = msgspec.json.decode(msgspec.json.encode(document), type=AlphaPoolObject)
    assert to_pool(found) == Pool("app=vllm", (8000,), "http", "FailOpen")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selector": {}}, "its selector has no labels"),
        ({"selector": {"matchLabels": {}}}, "its selector has no labels"),
        ({"selector": {"matchLabels": {"app": "a b"}}}, "its selector cannot be used"),
        ({"targetPorts": None}, "its target ports must be 1 to 32 ports"),
        ({"targetPorts": [{"number": 0}]}, "from 1 to 65535"),
        ({"targetPorts": [{"number": 65536}]}, "from 1 to 65535"),
        ({"targetPorts": [{"number": n} for n in range(1, 34)]}, "must be 1 to 32 ports"),
    ],
)
def test_a_pool_that_cannot_be_used_is_refused_with_the_reason(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(PoolError, match=message):
        pool_of(spec(**changes))


def test_the_namespace_is_the_routers_own_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_object, "NAMESPACE_FILE", tmp_path / "namespace")
    with pytest.raises(PoolNameError, match=r"inference_pool=llama: .*, write NAMESPACE/llama"):
        pool_name("llama")
    (tmp_path / "namespace").write_text("own\n")

    assert pool_name("llama") == ("own", "llama")
    assert pool_name("ml/llama") == ("ml", "llama")


def test_each_group_has_its_version_and_its_record() -> None:
    query = pool_query("ml", "pool", V1)
    assert (query.group, query.version, query.plural) == (V1, "v1", "inferencepools")
    assert pool_type(query) is PoolObject
    former = pool_query("ml", "pool", V1ALPHA2)
    assert former.version == "v1alpha2"
    assert pool_type(former) is AlphaPoolObject
