"""The size of a pod's host memory, as a label or the pods file states it."""

from lora_router.discovery.server_options import MAX_SIZE
from lora_router.fleet.lora_spec import UNLIMITED, UNLIMITED_WORD
from lora_router.yaml_document import is_whole_number

SIZE_RULE = f"a number of adapters from 1 to {MAX_SIZE}, or {UNLIMITED_WORD}"


def read_size(value: object) -> int | None:
    """Return a size of host memory in adapters; ``None``: the value is not ``SIZE_RULE``."""
    if value == UNLIMITED_WORD:
        return UNLIMITED
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 7:
        value = int(value)
    if is_whole_number(value) and 1 <= value <= MAX_SIZE:
        return int(value)
    return None
