"""The settings of paths: what clients may ask for, and where requests name their model."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from lora_router.config import kinds
from lora_router.config.kinds import Allowed


class PathSettings(BaseModel):
    """Settings of paths. ``extproc.path_table`` has the paths that need no setting."""

    inference_paths: kinds.UrlPaths = Field(
        default_factory=list,
        description="Additional paths whose body names a model. Same as paths with routed.",
    )
    paths: kinds.PathTreatments = Field(
        default_factory=dict,
        description="What to do with further paths, or instead of the table in docs/paths.md.",
    )
    path_prefixes: kinds.UrlPaths = Field(
        default_factory=list,
        description="Prefixes that the gateway removes from paths, such as /llm. The Envoy of "
        "envoy-config does.",
    )
    unknown_paths: Literal["pass", "refuse"] = Field(
        "pass",
        description="What to do with a request on a path without a rule if its body names no "
        "model: send it to any pod, or refuse it with 404.",
    )
    unknown_ids: Literal["refuse", "pass"] = Field(
        "refuse",
        description="What to do with a request that names an ID, such as previous_response_id, if "
        "no ready pod is known to have made it: refuse it with 404, or send it to any pod, where "
        "pods share what they store.",
    )
    json_nan: Literal["allow", "refuse"] = Field(
        "allow",
        description="Whether JSON bodies may contain NaN and infinities. vLLM reads them.",
    )
    gateway_max_headers: kinds.Whole = Field(
        100,
        ge=20,
        le=10_000,
        description="Maximum number of headers of a request, including those that the router adds. "
        "A request with more is refused with 431. Envoy's own limit must not be lower.",
    )
    max_ids_bytes: Annotated[kinds.Whole, Allowed("a number of bytes, at least 65536")] = Field(
        64 * 1024 * 1024,
        ge=65536,
        le=2**40,
        description="Maximum memory for the IDs of responses, files and batches that pods made, "
        "about 240 bytes each. Those used least recently are forgotten.",
    )
    admin_paths: Literal["refuse", "allow"] = Field(
        "refuse",
        description="Whether clients may use paths that change a pod or show its internals, such "
        "as /v1/load_lora_adapter and /metrics. Loads and unloads then go to every pod.",
    )
