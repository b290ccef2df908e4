"""A pod, as discovery describes it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lora_router.fleet.lora_spec import NO_SPEC, LoraSpec


@dataclass(frozen=True, slots=True)
class Pod:
    """One replica of a model server, with one endpoint.

    A Kubernetes pod with a server on each of several ports, its data-parallel ranks, is several of
    these records, which share the uid.

    Discovery creates these records. Two equal records describe the same pod in the same state.
    """

    name: str
    """Unique in the fleet. On Kubernetes ``namespace/name``, or of one of several servers in a pod
    ``namespace/name-rank-N`` (``namespace/name:rank-N`` if another pod has such a name)."""
    address: str
    """The endpoint that serves requests, ``ip:port`` (``[ip]:port`` for IPv6)."""
    metrics_url: str
    """The URL of its metrics, ``/metrics`` of most engines."""
    models_url: str
    """The URL of ``/v1/models``."""
    ready: bool = True
    """Whether the pod may receive new requests."""
    models: tuple[str, ...] | None = None
    """The names of the models that it serves: the base model first, then the adapters. ``None``:
    the router asks the pod."""
    base_model: str | None = None
    """The base model's name from the pod's label. The pod is assumed to serve it until its
    ``/v1/models`` has been read."""
    engine: str | None = None
    """The model server, one of ``engine_names``. ``None``: detected from the metrics page."""
    uid: str = ""
    """Distinguishes a pod from an earlier one with the same name and address, if discovery provides
    it."""
    scheme: str = "http"
    """``http`` or ``https``: how the endpoint takes requests."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The labels that ``external-filter`` selects on."""
    lora: LoraSpec = NO_SPEC
    """What is known of its adapter slots and host memory from how it was started."""

    @property
    def pool(self) -> str:
        """``NAMESPACE/MODEL``, by which a gateway can tell which Service the pod belongs to."""
        namespace, _, _ = self.name.rpartition("/")
        return f"{namespace}/{self.base_model or ''}"


RANK_NAME = re.compile(r"(.+)([-:])rank-[0-9]+")
"""The names that ``rank_name`` (``-``) and ``distinct_rank_name`` (``:``) return. The first group
is the name of the Kubernetes pod. A pod may have a name with ``-`` itself."""


def rank_name(pod: str, rank: int | str) -> str:
    """Return the name of one of several servers in a pod."""
    return f"{pod}-rank-{rank}"


def distinct_rank_name(pod: str, rank: int | str) -> str:
    """Return such a name that no Kubernetes pod can have itself."""
    return f"{pod}:rank-{rank}"
