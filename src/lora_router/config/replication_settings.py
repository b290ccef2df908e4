"""The settings of replication: which of several routers receive requests."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from lora_router.config import kinds
from lora_router.config.kinds import Allowed

_LEASE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def _lease_name(value: str) -> str:
    if _LEASE_NAME.fullmatch(value) is None or ".." in value:
        raise ValueError("must be a Lease's name")
    return value


class ReplicationSettings(BaseModel):
    """Settings of replication. They matter when there are several routers."""

    replication: Literal["active-active", "lease"] = Field(
        "active-active",
        description="Which routers are ready for requests: active-active, all of them, or lease, "
        "the one that holds a Kubernetes Lease. The others are its standbys.",
    )
    lease_name: Annotated[
        Annotated[str, AfterValidator(_lease_name)] | None, Allowed("the name of a Lease")
    ] = Field(
        None,
        description="Lease of replication=lease. Default: the name of peer_service, else "
        "lora-router. With '-loader' at its end, the Lease of the router that loads adapters where "
        "all routers receive requests.",
    )
    lease_namespace: kinds.Namespace = Field(
        None,
        description="Namespace of the Lease. Default: the namespace in peer_service, else the "
        "router's own.",
    )
    lease_duration_seconds: kinds.Whole = Field(
        2,
        ge=2,
        le=60,
        description="Time without a renewal after which another router may take the Lease. The "
        "leader renews it every quarter of that time, and is not ready after three quarters. The "
        "Lease of the router that loads adapters has at least 6 s.",
    )
