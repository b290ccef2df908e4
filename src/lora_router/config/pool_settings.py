"""The settings of discovery through an InferencePool, and of priorities."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from lora_router.config import kinds, name_rules
from lora_router.config.kinds import Allowed

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_ALLOWED = "the name of an InferencePool, NAME or NAMESPACE/NAME"


def _pool_name(value: str) -> str:
    namespace, slash, name = value.rpartition("/")
    if slash:
        name_rules.namespace(namespace)
    if _NAME.fullmatch(name) is None or ".." in name:
        raise ValueError(f"must be {_ALLOWED}")
    return value


class PoolSettings(BaseModel):
    """Settings of discovery through an InferencePool, and of priorities."""

    inference_pool: Annotated[
        Annotated[str, AfterValidator(_pool_name)] | None, Allowed(_ALLOWED)
    ] = Field(
        None,
        description="InferencePool whose pods are used. Its selector and its ports take the place "
        "of kubernetes_selector, kubernetes_port and the pods' labels of ports. Without a "
        "namespace, it is in the router's own.",
    )
    inference_pool_group: Literal[
        "inference.networking.k8s.io", "inference.networking.x-k8s.io"
    ] = Field(
        "inference.networking.k8s.io",
        description="API group of that InferencePool: inference.networking.k8s.io (v1), or "
        "inference.networking.x-k8s.io (v1alpha2).",
    )
    inference_objective_group: Literal["inference.networking.x-k8s.io", "llm-d.ai"] = Field(
        "inference.networking.x-k8s.io",
        description="API group of the InferenceObjectives that give requests for that pool a "
        "priority.",
    )
    objective_header: kinds.HeaderName = Field(
        "x-gateway-inference-objective",
        description="Header in which a client names an InferenceObjective.",
    )
