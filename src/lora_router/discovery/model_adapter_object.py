"""Decodes AIBrix's ModelAdapter objects.

Only the fields that the router needs are decoded. Source: ``model.aibrix.ai/v1alpha1`` of AIBrix,
as of v0.8.0, and its controller, whose finalizer is ``adapter.model.aibrix.ai/finalizer``.

``spec`` and ``status`` are decoded one object at a time: a cluster may have another schema for
them, and one object that does not fit must not hide the others.
"""

import msgspec

GROUP, VERSION, PLURAL, KIND = "model.aibrix.ai", "v1alpha1", "modeladapters", "ModelAdapter"
AIBRIX_FINALIZER = "adapter.model.aibrix.ai/finalizer"

PODS_ANNOTATION = "lora-router/pods"
PINNED_ANNOTATION = "lora-router/pinned"
VERSION_ANNOTATION = "lora-router/version"
SHARE_ANNOTATION = "lora-router/share"
ALIASES_ANNOTATION = "lora-router/aliases"


class Annotations(
    msgspec.Struct,
    frozen=True,
    rename={
        "pods": PODS_ANNOTATION,
        "pinned": PINNED_ANNOTATION,
        "version": VERSION_ANNOTATION,
        "share": SHARE_ANNOTATION,
        "aliases": ALIASES_ANNOTATION,
    },
):
    """The annotations that the router reads, for what the resource has no field."""

    pods: str | None = None
    pinned: str | None = None
    version: str | None = None
    share: str | None = None
    aliases: str | None = None


class ManagedField(msgspec.Struct, frozen=True):
    """Who wrote some fields, one of ``metadata.managedFields``."""

    manager: str = ""
    subresource: str = ""
    time: str = ""


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """``metadata`` of an object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    finalizers: list[str] | None = None
    annotations: Annotations | None = None
    managed_fields: list[ManagedField] | None = None


class MatchExpression(msgspec.Struct, frozen=True):
    """One of a label selector's ``matchExpressions``."""

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class LabelSelector(msgspec.Struct, frozen=True, rename="camel"):
    """A label selector as an object."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[MatchExpression] | None = None


class SecretRef(msgspec.Struct, frozen=True):
    """Names a Secret."""

    name: str = ""


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """``spec`` of a ModelAdapter."""

    base_model: str | None = None
    pod_selector: LabelSelector | None = None
    artifact_url: str = msgspec.field(default="", name="artifactURL")
    replicas: int | None = None
    """``None``: on all pods that the selector matches."""
    credentials_secret_ref: SecretRef | None = None


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """One of ``status.conditions``."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""


class ModelAdapterStatus(msgspec.Struct, frozen=True, rename="camel"):
    """``status`` of a ModelAdapter."""

    phase: str = ""
    candidates: int = 0
    """Pods on which it may be loaded."""
    desired_replicas: int = 0
    ready_replicas: int = 0
    instances: list[str] = []
    """The pods that have it loaded."""
    conditions: list[Condition] = []


class ModelAdapterObject(msgspec.Struct, frozen=True):
    """A ModelAdapter as the API server returns it."""

    metadata: Metadata = Metadata()
    spec: msgspec.Raw = msgspec.Raw(b"{}")
    status: msgspec.Raw = msgspec.Raw(b"{}")
