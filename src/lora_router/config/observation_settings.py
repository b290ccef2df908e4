"""The settings of what the router shows: decisions, headers, metrics by adapter, tokens."""

from pydantic import BaseModel, Field

from lora_router.config import kinds


class ObservationSettings(BaseModel):
    """Settings of what the router shows of its decisions."""

    decisions: kinds.Whole = Field(
        10_000,
        ge=0,
        le=1_000_000,
        description="Number of decisions that the router remembers, each with its reason and what "
        "became of the request. 0: decisions are not recorded.",
    )
    decisions_share: kinds.Fraction = Field(
        1.0,
        description="Share of ordinary decisions that are remembered. Decisions about requests "
        "that were held, refused, retried, cancelled or slow, or that failed, always are.",
    )
    decisions_candidates_share: kinds.Fraction = Field(
        0.01,
        description="Share of ordinary decisions that are remembered with their candidates. Others "
        "as for decisions_share.",
    )
    slow_request_seconds: kinds.Interval = Field(
        5.0,
        description="A request is slow if its first byte takes longer. It is logged, and its "
        "decision is remembered with its candidates.",
    )
    log_abnormal_per_second: kinds.Whole = Field(
        10,
        ge=0,
        le=10_000,
        description="The most log lines of one level in a second about requests that were held, "
        "refused, retried, cancelled or slow, or that failed. 0: there are no such lines.",
    )
    metrics_adapters: kinds.Whole = Field(
        100,
        ge=0,
        le=10_000,
        description="Number of adapters, the busiest ones, that have series of their own in the "
        "metrics. The others share the label other.",
    )
    tokens: kinds.Tokens = Field(
        "off",
        json_schema_extra={
            "type": ["string", "boolean"],
            "enum": ["off", "on", "all", True, False],
        },
        description="Whether prompt and completion tokens are read from the usage in answers. "
        "Envoy then sends the router the bodies of these answers. on: not of streams whose "
        "requests do not ask for usage. all: of these, too, for servers that always state it.",
    )
    response_headers: kinds.Switch = Field(
        "off",
        json_schema_extra={"type": ["string", "boolean"], "enum": ["off", "on", True, False]},
        description="Whether answers tell clients the pod, the reason, and the time for which the "
        "request was held, in the headers x-lora-router-pod, x-lora-router-reason and "
        "x-lora-router-held-ms. Requires decisions above 0. x-request-id is sent in any case.",
    )
    admin_token_file: kinds.OwnFile = Field(
        None,
        description="File with a token that the page and the /debug pages of the admin port "
        "require. Without it, they are served only if admin_host is a loopback address.",
    )
