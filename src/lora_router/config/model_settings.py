"""The settings of names of models: aliases, names that no pod lists, adapters without pods."""

from typing import Literal

from pydantic import BaseModel, Field

from lora_router.config import kinds


class ModelSettings(BaseModel):
    """Settings of names of models. ``docs/models.md`` describes them."""

    model_rewrites: kinds.ModelRewrites = Field(
        default_factory=dict,
        description="Names that stand for other models, each with its targets and their weights. "
        "The name in the request is replaced.",
        json_schema_extra={
            "additionalProperties": {
                "type": ["object", "string"],
                "minLength": 1,
                "minProperties": 1,
                "maxProperties": 64,
                "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
            }
        },
    )
    rewrite_sticky_header: kinds.OptionalHeaderName = Field(
        None,
        description="Header whose value decides between the targets of a rewrite, such as a "
        "user's ID. Without it, each request is decided by chance.",
    )
    model_rewrite_header: kinds.OptionalHeaderName = Field(
        None,
        description="Header that names the model which takes the place of the one in the request, "
        "such as x-gateway-model-name-rewrite of endpoint pickers. A gateway that sets it must "
        "remove it from clients' requests.",
    )
    inference_model_rewrites: bool = Field(
        False,
        description="Whether the InferenceModelRewrite resources of inference_pool are followed. "
        "Those of model_rewrites come first.",
    )
    answer_model: Literal["served", "asked"] = Field(
        "served",
        description="The name in an answer to a request that was rewritten: that of the model that "
        "answered, or the one that the client asked for.",
    )
    unknown_model: Literal["wait", "reject", "base"] = Field(
        "wait",
        description="What to do with a model that no pod lists: read the lists of the pods once "
        "more before refusing it, refuse it at once, or send it to the pods of "
        "unknown_model_base, which may load it on first use.",
    )
    unknown_model_base: kinds.BaseModelName = Field(
        None, description="Base model of adapters that no pod lists, for unknown_model=base."
    )
    adapter_fallback: Literal["none", "base"] = Field(
        "none",
        description="base: the base model answers a request for an adapter that no healthy pod "
        "serves. The answer says so in the header x-lora-router-fallback.",
    )
