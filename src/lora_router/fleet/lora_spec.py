"""What discovery says about the adapters of a server, from how the server was started."""

from dataclasses import dataclass

UNLIMITED = 1 << 62
"""A size of host memory without a limit."""
UNLIMITED_WORD = "unlimited"
"""The word for it."""

COMMAND_LINE, LABEL, PODS_FILE, ASSUMED = "command-line", "label", "pods-file", "assumed"
"""Where the size of host memory is known from. ``ASSUMED``: nothing names it."""
LEARNED = "learned"
"""Nothing names it, and loads showed that more fit than was assumed."""


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """The adapter options of one server. Everything may be unknown."""

    slots: int | None = None
    """Distinct adapters in one batch (vLLM: ``--max-loras``). ``None``: unknown."""
    host_memory: int | None = None
    """Adapters that fit in host memory, those in slots included (vLLM: ``--max-cpu-loras``).
    ``UNLIMITED``: any number. ``None``: unknown."""
    source: str = ASSUMED
    """Where ``host_memory`` is known from: ``command-line``, ``label``, ``pods-file``, or
    ``assumed`` if it is unknown."""
    preloaded: tuple[str, ...] = ()
    """Adapters that the server loads when it starts, in this order (vLLM: ``--lora-modules``)."""
    loads_when_listed: bool = False
    """Whether the server has loaded every adapter that it lists, as vLLM and SGLang do: the list
    grows by adapters that were just loaded. They may have been evicted since."""


NO_SPEC = LoraSpec()
