"""The settings of overload: what is done when more requests come than the fleet has room for."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from lora_router.config import kinds
from lora_router.config.kinds import Allowed


class OverloadSettings(BaseModel):
    """Settings of overload. docs/overload.md explains them."""

    overload: Literal["hold", "shed"] = Field(
        "shed",
        description="What to do with a request that would wait for too long "
        "(max_expected_wait_seconds). shed: refuse it at once with 429 and retry-after. hold: let "
        "it wait for up to max_hold_seconds.",
    )
    max_expected_wait_seconds: kinds.Interval = Field(
        2.0,
        description="With overload: shed: longest expected wait of a request, in seconds, above "
        "which there is overload. In a burst, a request may wait for three times as long. The "
        "router estimates the wait from the requests that wait before it and from how fast these "
        "leave.",
    )
    closed_slots_share: kinds.Fraction = Field(
        0.1,
        description="Share of the adapter slots on the pods of a base model that may be closed at "
        "the same time to further requests of the adapters in them, so that adapters that wait get "
        "these slots. Peers count together. At least one slot, unless it is 0.",
    )
    max_requests_per_pod: Annotated[
        Annotated[kinds.Whole, Field(ge=1, le=1_000_000)] | None,
        Allowed("a whole number from 1 to 1000000"),
    ] = Field(
        None,
        description="Maximum number of requests in flight on a pod, of all known senders. Further "
        "requests wait in the router. Default: any number.",
    )
    max_seconds_per_token: Annotated[
        Annotated[kinds.Interval, Field(ge=0.001, le=60.0)] | None,
        Allowed("a number of seconds from 0.001 to 60"),
    ] = Field(
        None,
        description="Longest usual time between two tokens of an answer, in seconds. The router "
        "learns from scrapes how many requests a pod may have for that. Further requests wait in "
        "the router. Default: any time.",
    )
    priority_header: kinds.OptionalHeaderName = Field(
        None,
        description="Header with the priority of a request: a whole number from -1000 to 1000, in "
        "place of that of its InferenceObjective. Any other value is ignored. Clients must not be "
        "able to set it. Default: not read.",
    )
    tenant_header: kinds.OptionalHeaderName = Field(
        None,
        description="Header that says whose request it is. Of the requests of one priority that "
        "wait, those of the tenants that were served least lately go first. Default: not read.",
    )
