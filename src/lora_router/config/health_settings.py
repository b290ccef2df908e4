"""The settings of outlier ejection: when a pod that fails gets no further requests."""

from pydantic import BaseModel, Field

from lora_router.config import kinds


class HealthSettings(BaseModel):
    """Settings of outlier ejection, and of the pods that are tried in its place."""

    fallbacks: kinds.Whole = Field(
        1,
        ge=0,
        le=3,
        description="Maximum number of other pods that Envoy may try if a request cannot reach "
        "the picked pod.",
    )
    outlier_ejection: bool = Field(
        True,
        description="Whether pods that fail get no new requests until they answer again.",
    )
    outlier_consecutive_failures: kinds.Whole = Field(
        3,
        ge=1,
        le=1000,
        description="Failed requests in a row after which a pod is ejected.",
    )
    outlier_failure_share: kinds.Fraction = Field(
        0.5,
        description="Share of failed requests, of at least 10 in the last 10 s, above which a pod "
        "is ejected. 1: this share is not used.",
    )
    outlier_max_ejected_share: kinds.Fraction = Field(
        0.5,
        description="Maximum share of the pods of a base model that are ejected at the same time. "
        "One pod may always be, unless it is 0.",
    )
    outlier_min_ejection_seconds: kinds.Interval = Field(
        1.0,
        description="Time until an ejected pod is probed. It doubles with each failed probe.",
    )
    outlier_max_ejection_seconds: kinds.Interval = Field(
        60.0, description="Longest time between two probes of an ejected pod."
    )
    outlier_first_byte_seconds: kinds.Interval = Field(
        1.0,
        description="Shortest time without a sign of life after which a pod that a request waits "
        "for is suspect. A quarter of it, if four or more wait.",
    )
    outlier_first_byte_factor: kinds.Factor = Field(
        8.0,
        description="A pod is suspect when a first byte takes this many times longer than usual.",
    )
    outlier_probe: bool = Field(
        True,
        description="Whether the router sends a completion of one token, or an embedding, to an "
        "ejected pod, to find out whether it answers again. Otherwise a client's request is the "
        "probe.",
    )
