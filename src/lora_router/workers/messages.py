"""What the parent and its workers tell each other.

Both are processes of the same release and trust each other: the parent starts the workers, and
nobody else has the sockets. So there are no versions, and what does not decode is a fault.
"""

from typing import Literal, TypeAlias

import msgspec

from lora_router.fleet.pod import Pod
from lora_router.workers.kept import NOTHING, Kept

MAX_BYTES = 256 * 1024 * 1024
"""Length of a message: the longest is the list of models of a pod."""


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """One message."""


# From the parent


class Start(_Message, frozen=True):
    """The first message."""

    number: int
    """The worker's, from 1."""
    settings: bytes
    """The settings, pickled."""
    host: str
    """Identifies this run of the parent."""
    kept: Kept = NOTHING
    """What files contained when they could last be used."""


class Pods(_Message, frozen=True):
    """Pods that are new or changed, and the names of those that are gone."""

    pods: tuple[Pod, ...]
    gone: tuple[str, ...]


class Objectives(_Message, frozen=True):
    """The priority of each objective."""

    priorities: dict[str, int]


class Synced(_Message, frozen=True):
    """The list of pods is complete."""


class Warm(_Message, frozen=True):
    """Every pod was scraped once, or the time for that is over. The worker may become ready."""

    peers: int
    """The other workers that run, from which it should hear before."""


class Readings(_Message, frozen=True):
    """What was read from pods, or that it could not be read."""

    readings: bytes
    """A message ``Readings`` of peering."""


class Looked(_Message, frozen=True):
    """The lists of models of all pods are recent: a round that was asked for has ended."""


class Addresses(_Message, frozen=True):
    """Where the routers of all hosts may be."""

    addresses: tuple[tuple[str, str], ...]
    """The target and the host name of each."""
    is_complete: bool = True
    """Whether these are all, and not only some that were found first."""


class Speak(_Message, frozen=True):
    """Hand on what peers on other hosts tell of pods, or no longer: one worker does."""

    speaks: bool


class Tell(_Message, frozen=True):
    """Send a message about pods to all peers on other hosts."""

    message: bytes
    """A message ``PeerMessage`` of peering."""


class Declared(_Message, frozen=True):
    """A part of what is declared: first the adapters, and last the templates."""

    told: bytes
    """A tuple of them, pickled."""
    is_last: bool


class NotLoaded(_Message, frozen=True):
    """An adapter cannot be loaded for some time. Without a detail: it has been loaded."""

    served: str
    detail: str
    seconds: float


class MayLoad(_Message, frozen=True):
    """Tell peers whether this router may be the one that loads adapters."""

    may_load: bool


class Refresh(_Message, frozen=True):
    """Read the TLS files again."""


class UseLog(_Message, frozen=True):
    """Use these settings of the log."""

    level: str
    style: Literal["text", "json"]


class Shed(_Message, frozen=True):
    """Ask a gateway to replace a connection, because another worker has fewer."""


class AskMetrics(_Message, frozen=True):
    """Send the metrics."""

    number: int
    """Identifies the question."""


class Ask(_Message, frozen=True):
    """Ask this worker, and all routers that it knows, what people want to know."""

    number: int
    """Identifies the question."""
    question: bytes


class Drain(_Message, frozen=True):
    """Drain, then end."""


class Hurry(_Message, frozen=True):
    """End the drain at once."""


# From a worker


class Status(_Message, frozen=True):
    """How the worker is doing. It is sent several times a second: its event loop runs."""

    ready: bool
    reason: str
    details: bytes
    """Further fields of ``/readyz``, as JSON."""
    received: int
    """Connections that the worker has received so far."""
    connections: int
    """Open connections, without those that are being replaced."""
    streams: int
    """Open ext_proc streams."""
    links: tuple[int, ...]
    """The workers to which it has a link."""
    name: str = ""
    """Its name among its peers."""
    peers: tuple[str, ...] = ()
    """The names of its peers on other hosts."""
    loaders: tuple[str, ...] = ()
    """Those of them that may be the ones that load adapters."""
    short: bool = False
    """Whether it has as many file descriptors as it may."""


class Failed(_Message, frozen=True):
    """The worker cannot start."""

    error: str


class ReadSoon(_Message, frozen=True):
    """A pod answered 404 for a model that it should serve: read its list of models again."""

    pod: str


class LookAgain(_Message, frozen=True):
    """A client asked for an unknown model: read the lists that are not recent again."""


class Wanted(_Message, frozen=True):
    """A request waits for an adapter that no pod lists."""

    name: str
    """Its served name."""


class Asked(_Message, frozen=True):
    """For which adapters there are requests."""

    waiting: tuple[str, ...]
    """Adapters that no pod lists, for which requests wait."""
    held: tuple[str, ...]
    """All models for which requests wait."""
    in_flight: dict[str, int]
    """Requests in flight by adapter."""


class Heard(_Message, frozen=True):
    """What a peer on another host tells of pods."""

    peer: str
    readings: bytes
    """A message ``Readings`` of peering."""


class HistogramRow(msgspec.Struct, frozen=True, array_like=True):
    """One histogram."""

    labels: tuple[tuple[str, str], ...]
    counts: bytes
    """By bucket: ``array("Q")``."""
    seconds: float
    """The sum."""
    exemplars: tuple[tuple[int, str, float, float], ...]
    """By classic bucket: the fields of an ``Exemplar``."""


class Family(msgspec.Struct, frozen=True, array_like=True):
    """Series of one metric."""

    name: str
    documentation: str
    type: str
    samples: tuple[tuple[str, tuple[tuple[str, str], ...], float], ...]
    """Names, labels and values."""
    bounds: tuple[float, ...] = ()
    """The upper bounds of the classic buckets of ``rows``, without infinity."""
    rows: tuple[HistogramRow, ...] = ()


class Metrics(_Message, frozen=True):
    """A part of the answer to ``AskMetrics``."""

    number: int
    families: tuple[Family, ...]
    """A metric may be in several of them, with different series."""
    is_last: bool = True


Answers: TypeAlias = tuple[tuple[str, bytes], ...]
"""The routers that were asked, by name, each with its answer. Empty: it did not answer."""


class Answered(_Message, frozen=True):
    """The answer to ``Ask``."""

    number: int
    answers: Answers


FromParent: TypeAlias = (
    Start
    | Pods
    | Objectives
    | Synced
    | Warm
    | Readings
    | Looked
    | Addresses
    | Speak
    | Tell
    | Declared
    | NotLoaded
    | MayLoad
    | Refresh
    | UseLog
    | Shed
    | AskMetrics
    | Ask
    | Drain
    | Hurry
)
FromWorker: TypeAlias = (
    Status | Failed | ReadSoon | LookAgain | Wanted | Asked | Heard | Metrics | Answered
)

encode = msgspec.msgpack.Encoder().encode
from_parent = msgspec.msgpack.Decoder(FromParent).decode
from_worker = msgspec.msgpack.Decoder(FromWorker).decode
