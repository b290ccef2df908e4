"""The settings of overload: what is done when more requests come than the fleet has room for."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from lora_router.config import kinds
from lora_router.config.kinds import Allowed


class OverloadSettings(BaseModel):
    """Settings of overload. docs/overload.md explains them."""

    overload: Literal["hold", "shed"] = Field(
        "hold",
        description="What to do with a request that would wait for longer than "
        "max_expected_wait_seconds. hold: let it wait for up to max_hold_seconds. shed: refuse it "
        "at once with 429 and retry-after.",
    )
    max_expected_wait_seconds: kinds.Interval = Field(
        2.0,
        description="With overload: shed: longest expected wait, in seconds, of a request that is "
        "held. The router estimates it from the requests that wait before it and from how fast "
        "these leave.",
    )
    closed_slots_share: kinds.Fraction = Field(
        0.1,
        description="Share of the fleet's adapter slots that may be closed at the same time to "
        "further requests of the adapters in them, so that adapters that wait get these slots. "
        "Peers count together. At least one slot, unless it is 0.",
    )
    max_requests_per_pod: Annotated[
        Annotated[kinds.Whole, Field(ge=1, le=1_000_000)] | None,
        Allowed("a whole number from 1 to 1000000"),
    ] = Field(
        None,
        description="Maximum number of requests in flight on a pod, of all known senders. Further "
        "requests wait in the router. Default: any number.",
    )
    tenant_header: kinds.OptionalHeaderName = Field(
        None,
        description="Header that says whose request it is. Of the requests of one priority that "
        "wait, those of the tenants that were served least lately go first. Default: not read.",
    )
