"""The settings of overload: what is done when more requests come than the fleet has room for."""

from pydantic import BaseModel, Field

from lora_router.config import kinds


class OverloadSettings(BaseModel):
    """Settings of overload. docs/overload.md explains them."""

    closed_slots_share: kinds.Fraction = Field(
        0.1,
        description="Share of the fleet's adapter slots that may be closed at the same time to "
        "further requests of the adapters in them, so that adapters that wait get these slots. "
        "Peers count together. At least one slot, unless it is 0.",
    )
