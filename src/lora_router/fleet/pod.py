"""A pod, as discovery describes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pod:
    """One replica of a model server.

    Discovery makes these; two that compare equal describe the same pod in the same state.
    """

    name: str
    """Unique in the fleet; on Kubernetes ``namespace/name``."""
    address: str
    """The endpoint that serves requests, ``ip:port`` (``[ip]:port`` for IPv6)."""
    metrics_url: str
    """Where ``/metrics`` is read."""
    models_url: str
    """Where ``/v1/models`` is read."""
    ready: bool = True
    """Whether new requests may be sent to it."""
    models: tuple[str, ...] | None = None
    """Model names it serves: the base model first, then adapters. ``None``: ask the pod."""
    base_model: str | None = None
    """The base model's name by its label: what is taken for served until the pod has been asked."""
    engine: str | None = None
    """Model server (``vllm``, ``sglang``). ``None``: told from its metrics page."""
    uid: str = ""
    """Tells a pod from an earlier one of the same name and address, where discovery can."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What ``external-filter`` selects on."""
