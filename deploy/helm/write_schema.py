"""Updates what the chart knows of the code: ``make schema``. A test fails if it is outdated.

- The settings and the adapters in the chart's schema. With it, Helm refuses what the router would
  refuse, before anything is rolled out.
- ``files/adapters-rules.json``: the patterns that the templates compare with sources and selectors.
  An error of the schema would show a pattern of hundreds of characters, and not the rule.
- ``files/algorithms.json``: the names of the built-in algorithms. An image may have others, so that
  the chart can only warn.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

from lora_router.config.report import settings_schema
from lora_router.discovery.adapters_schema import adapters_rules, adapters_schema
from lora_router.routing.registry import GROUP

RULES = Path(__file__).parent / "lora-router" / "files" / "adapters-rules.json"
ALGORITHMS = Path(__file__).parent / "lora-router" / "files" / "algorithms.json"
PROJECT = Path(__file__).parents[2] / "pyproject.toml"
SCHEMA = Path(__file__).parent / "lora-router" / "values.schema.json"
ELSEWHERE = {
    "lora_affinity_threshold": "loraAffinityThreshold",
    "pod_api_key": "podApiKey",
    "inference_pool": "gateway.inferencePool",
    "peer_service": "peering.enabled",
    "peer_secret_file": "peering.secretName",
    "peering": "peering.redis",
    "peering_password_file": "peering.redis",
    "replication": "replication",
    "lease_name": "replication",
    "lease_namespace": "replication",
    "workers": "workers",
    "adapters_file": "adapters.configMapName",
    "model_adapters": "adapters.modelAdapters",
    "adapter_sources": "adapters.sources",
}
"""Settings that have their own values: one that takes precedence, secrets, and names of objects."""
PORTS = ("grpc_port", "admin_port", "envoy_listen_port")
"""Port 0 (any) is not allowed in the chart, since probes and Services need the port."""


def rules() -> str:
    """Return the file that templates/_adapters.tpl reads."""
    return json.dumps(adapters_rules(), indent=2) + "\n"


def algorithms() -> str:
    """Return the file that templates/NOTES.txt reads."""
    groups = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]
    return json.dumps(sorted(groups[GROUP]), indent=2) + "\n"


def up_to_date(text: str) -> str:
    """Return the up-to-date schema."""
    document = json.loads(text)
    properties = {
        name: schema for name, schema in settings_schema().items() if name not in ELSEWHERE
    }
    for name in PORTS:
        properties[name]["minimum"] = 1
    for schema in properties.values():
        _allow_null(schema)
    elsewhere = ", ".join(f"{name} ({value})" for name, value in ELSEWHERE.items())
    document["properties"]["settings"] = {
        "description": f"Settings of the router, by name. With values of their own: {elsewhere}.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    adapters = document["properties"]["adapters"]["properties"]
    for name, schema in adapters_schema().items():
        adapters[name] = {"description": adapters[name]["description"], **schema}
    return json.dumps(document, indent=2) + "\n"


def _allow_null(schema: dict[str, Any]) -> None:
    """Let a setting be null, which the chart takes for absent.

    So a file of values can take back what another one sets.
    """
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "null" not in kinds:
        schema["type"] = [*kinds, "null"]
    if "enum" in schema and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]


if __name__ == "__main__":
    SCHEMA.write_text(up_to_date(SCHEMA.read_text()))
    RULES.write_text(rules())
    ALGORITHMS.write_text(algorithms())
