"""The settings of adapters that are declared, and of how they are loaded."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from lora_router.config import kinds
from lora_router.config.kinds import Allowed


class AdapterSettings(BaseModel):
    """Settings of declared adapters. ``docs/adapters.md`` describes them."""

    adapters_file: kinds.OwnFile = Field(
        None,
        description="File with the adapters that the fleet should serve. The router loads them "
        "into pods. The file is read again when it changes.",
    )
    model_adapters: bool = Field(
        False,
        description="Whether the ModelAdapter resources of AIBrix declare adapters, and get their "
        "status from this router. AIBrix's own controller must not run. Requires adapter_sources.",
    )
    adapter_sources: kinds.SourcePrefixes = Field(
        default_factory=list,
        description="Beginnings of the paths and URLs from which pods may load adapters, such as "
        "s3://lora/team. They are compared by segments. Templates, ModelAdapter resources and "
        "commands may name no other sources. The adapters of adapters_file may while this is "
        "empty.",
    )
    adapter_load_timeout_seconds: kinds.Interval = Field(
        120.0, description="Longest time that a pod may take to load an adapter."
    )
    adapter_loads_at_once: Annotated[
        Annotated[kinds.Whole, Field(ge=1, le=256)] | None,
        Allowed("a whole number from 1 to 256"),
    ] = Field(
        None,
        description="How many pods may load an adapter at the same time. One pod loads one adapter "
        "at a time. Default: a quarter of the pods, at least 8.",
    )
    adapter_min_copies: kinds.Whole = Field(
        1,
        ge=1,
        le=64,
        description="On how many pods an adapter is loaded at least whose declaration does not say "
        "it. More follow its requests.",
    )
    first_use_seconds: kinds.Hold = Field(
        30.0,
        description="Longest time that a request waits for an adapter that is declared and that no "
        "pod has loaded yet. 0: it is refused. Envoy must allow that time (docs/adapters.md).",
    )
    adapter_update: Literal["beside", "in-place"] = Field(
        "beside",
        description="How a new version or source of an adapter is loaded. beside: under a name of "
        "its own, so that requests move to it, and the old one is unloaded after its last request. "
        "in-place: a pod replaces the adapter (vLLM's load_inplace), with no version in its name.",
    )
    adapter_move_seconds: kinds.Seconds = Field(
        0.0,
        description="Time in which requests move from an old version to the new one, once enough "
        "pods serve it. 0: they move at once.",
    )

    @property
    def loads_adapters(self) -> bool:
        """Whether adapters may be declared, so that this router loads them."""
        return self.adapters_file is not None or self.model_adapters or bool(self.adapter_sources)
