"""Custom resources of the Gateway API Inference Extension, of the shape of its definitions.

Only what the router reads is described, with the limits that the extension's own definitions have.
"""

from typing import Any

from tests.kube import crds
from tests.kube.server import KubeClient, KubeError

V1 = "inference.networking.k8s.io"
X = "inference.networking.x-k8s.io"
Document = dict[str, Any]

_PORT: Document = {"type": "integer", "minimum": 1, "maximum": 65535}
_PICKER: Document = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "group": {"type": "string", "default": ""},
        "kind": {"type": "string", "default": "Service"},
        "name": {"type": "string", "minLength": 1},
        "port": {"type": "object", "properties": {"number": _PORT}, "required": ["number"]},
        "failureMode": {
            "type": "string",
            "enum": ["FailOpen", "FailClose"],
            "default": "FailClose",
        },
    },
}
_LABELS: Document = {"type": "object", "additionalProperties": {"type": "string"}}

_POOL: Document = {
    "type": "object",
    "required": ["selector", "targetPorts"],
    "properties": {
        "selector": {
            "type": "object",
            "required": ["matchLabels"],
            "properties": {"matchLabels": _LABELS},
        },
        "targetPorts": {
            "type": "array",
            "minItems": 1,
            "maxItems": 8,
            "items": {"type": "object", "required": ["number"], "properties": {"number": _PORT}},
        },
        "appProtocol": {
            "type": "string",
            "enum": ["http", "kubernetes.io/h2c"],
            "default": "http",
        },
        "endpointPickerRef": _PICKER,
    },
}
_ALPHA_POOL: Document = {
    "type": "object",
    "required": ["selector", "targetPortNumber"],
    "properties": {
        "selector": _LABELS,
        "targetPortNumber": _PORT,
        "extensionRef": _PICKER,
    },
}
_OBJECTIVE: Document = {
    "type": "object",
    "required": ["poolRef"],
    "properties": {
        "priority": {"type": "integer"},
        "poolRef": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "group": {"type": "string", "default": V1},
                "kind": {"type": "string", "default": "InferencePool"},
                "name": {"type": "string"},
            },
        },
    },
}


def definitions() -> list[Document]:
    """Return the definitions of InferencePool, of both versions, and of InferenceObjective."""
    return [
        _definition(V1, "v1", "InferencePool", _POOL),
        _definition(X, "v1alpha2", "InferencePool", _ALPHA_POOL),
        _definition(X, "v1alpha2", "InferenceObjective", _OBJECTIVE),
    ]


def _definition(group: str, version: str, kind: str, spec: Document) -> Document:
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # The API server asks for it in groups of Kubernetes.
            "annotations": {"api-approved.kubernetes.io": "unapproved, only for tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "required": ["spec"],
                            "properties": {"spec": spec},
                        }
                    },
                }
            ],
        },
    }


async def install(admin: KubeClient) -> None:
    """Create the definitions, unless an earlier test has."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    try:
        await admin.call("GET", f"{path}/inferencepools.{V1}")
    except KubeError:
        await crds.install(admin, definitions())


def pool(name: str, app: str, *ports: int, **spec: object) -> Document:
    """Return an InferencePool of ``v1``."""
    return {
        "apiVersion": f"{V1}/v1",
        "kind": "InferencePool",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": app}},
            "targetPorts": [{"number": port} for port in ports],
            **spec,
        },
    }


def objective(name: str, priority: int, pool_name: str) -> Document:
    """Return an InferenceObjective."""
    return {
        "apiVersion": f"{X}/v1alpha2",
        "kind": "InferenceObjective",
        "metadata": {"name": name},
        "spec": {"priority": priority, "poolRef": {"name": pool_name}},
    }


def path(namespace: str, plural: str = "inferencepools", group: str = V1, name: str = "") -> str:
    """Return the URL path of the objects of a namespace, or of one of them."""
    version = "v1" if group == V1 else "v1alpha2"
    own = f"/{name}" if name else ""
    return f"/apis/{group}/{version}/namespaces/{namespace}/{plural}{own}"
