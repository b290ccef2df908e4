"""Defines every setting: its name, default, meaning, and allowed values.

A ``Settings`` object holds exactly what its constructor was given, and defaults for the rest.
``lora_router.config.sources`` reads the file, the environment and the flags.
"""

from collections.abc import Iterator
from typing import Self

from pydantic import ConfigDict, model_validator

from lora_router.config import kinds
from lora_router.config.agreement import Contradiction, ContradictionError, contradictions
from lora_router.config.fields import Fields

ENV_PREFIX = "LORA_ROUTER_"

AIBRIX_NAMES = {
    "AIBRIX_LORA_AFFINITY_THRESHOLD": "lora_affinity_threshold",
    "ROUTING_ALGORITHM": "algorithm",
    "AIBRIX_POD_METRIC_REFRESH_INTERVAL_MS": "pod_metric_refresh_interval_ms",
    "AIBRIX_GRPC_MAX_MESSAGE_SIZE_BYTES": "grpc_max_message_size_bytes",
}
"""Environment variables of AIBrix's gateway plugin, and the settings that they set."""

MESSAGE_ROOM_BYTES = 64 * 1024
"""Room in a gRPC message for everything except the body, rounded up generously."""


class Settings(Fields):
    """The settings in force. ``lora-router config`` prints them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        found = [
            *self._limit_body(),
            *self._need_room_for_one_message(),
            *contradictions(self),
        ]
        if found:
            raise ContradictionError(found)
        return self

    def _limit_body(self) -> Iterator[Contradiction]:
        room = self.grpc_max_message_size_bytes - MESSAGE_ROOM_BYTES
        if self.max_body_bytes <= room:
            return
        if "max_body_bytes" in self.model_fields_set:
            yield Contradiction(
                ("max_body_bytes", "grpc_max_message_size_bytes"),
                f"max_body_bytes={self.max_body_bytes}: must be at most {room}: "
                f"grpc_max_message_size_bytes minus {MESSAGE_ROOM_BYTES}",
            )
            return
        # Only the message limit was set, and below its default. The default body limit follows it.
        object.__setattr__(self, "max_body_bytes", room)

    def _need_room_for_one_message(self) -> Iterator[Contradiction]:
        # The longest message, and room for others beside it.
        needed = 2 * self.grpc_max_message_size_bytes
        if self.max_buffered_bytes >= needed:
            return
        if "max_buffered_bytes" in self.model_fields_set:
            yield Contradiction(
                ("max_buffered_bytes", "grpc_max_message_size_bytes"),
                f"max_buffered_bytes={self.max_buffered_bytes}: must be at least {needed}: twice "
                "grpc_max_message_size_bytes",
            )
            return
        # Only the message limit was set, and above the default of the buffer, which follows it.
        object.__setattr__(self, "max_buffered_bytes", needed)


def allowed(name: str) -> str:
    """Return which values a setting accepts, as a phrase that completes "must be …"."""
    return kinds.allowed_by(Settings.model_fields[name])
