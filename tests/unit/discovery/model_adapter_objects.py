"""ModelAdapter objects as an API server returns them."""

import json
from collections.abc import Mapping, Sequence

import msgspec

from lora_router.adapters.sources import AllowedSources
from lora_router.discovery.model_adapter_object import ModelAdapterObject
from lora_router.discovery.model_adapter_record import ModelAdapter, manager_of, next_record

ALLOWED = AllowedSources(["org", "/models", "s3://lora"])
MANAGER = manager_of("mine")
SPEC: Mapping[str, object] = {"baseModel": "base", "artifactURL": "huggingface://org/sql"}


def model_adapter(
    name: str = "sql",
    spec: Mapping[str, object] = SPEC,
    *,
    namespace: str = "ml",
    version: int = 1,
    created: str = "2026-11-28T10:00:00Z",
    uid: str = "",
    annotations: Mapping[str, str] | None = None,
    status: object = None,
    finalizers: Sequence[str] = (),
    writers: Sequence[tuple[str, str]] = (),
    deleted: bool = False,
) -> ModelAdapterObject:
    """Return an object. ``writers``: field managers of its status, and when they wrote."""
    document = {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or name,
            "resourceVersion": str(version),
            "generation": 1,
            "creationTimestamp": created,
            "annotations": dict(annotations or {}),
            "finalizers": list(finalizers),
            "managedFields": [
                {"manager": manager, "subresource": "status", "time": time, "fieldsV1": {}}
                for manager, time in writers
            ],
        },
        "spec": dict(spec),
        "status": {} if status is None else status,
    }
    if deleted:
        document["metadata"]["deletionTimestamp"] = "2026-11-28T11:00:00Z"  # type: ignore[index]
    return msgspec.json.decode(json.dumps(document), type=ModelAdapterObject)


def record(
    found: ModelAdapterObject | None = None, known: ModelAdapter | None = None
) -> ModelAdapter:
    """Return the record of an object."""
    return next_record(known, found or model_adapter(), ALLOWED, MANAGER)
