"""Write the settings into the chart's schema anew: ``make schema``. A test says when that is due.

So Helm refuses a setting that the router would refuse, before anything is rolled out.
"""

import json
from pathlib import Path

from lora_router.config.report import settings_schema

SCHEMA = Path(__file__).parent / "lora-router" / "values.schema.json"
ELSEWHERE = {
    "lora_affinity_threshold": "loraAffinityThreshold",
    "pod_api_key": "podApiKey",
}
"""Settings that have values of their own: one that would win, one that is a secret."""
PORTS = ("grpc_port", "admin_port", "envoy_listen_port")
"""Here 0 does not mean any: probes and Services must know them."""


def with_settings(text: str) -> str:
    """Return the schema as it should be."""
    document = json.loads(text)
    properties = {
        name: schema for name, schema in settings_schema().items() if name not in ELSEWHERE
    }
    for name in PORTS:
        properties[name]["minimum"] = 1
    elsewhere = ", ".join(f"{name} is {value}" for name, value in ELSEWHERE.items())
    document["properties"]["settings"] = {
        "description": f"Settings of the router, by name. {elsewhere}, outside of here.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(with_settings(SCHEMA.read_text()))
