"""An adapter as the operator declares it, in a file or as a resource of Kubernetes.

Clients ask for an adapter by its *name* or by one of its aliases. Pods load it under its *served
name*, which is the name itself, or ``NAME@VERSION`` if the declaration has a version. So two
versions can be on the same pod, and requests move from one to the other.
"""

import re
from dataclasses import dataclass

from lora_router.fleet.pod import Pod
from lora_router.routing.selector import Selector

MAX_DECLARED = 20_000
"""Adapters of one fleet that may be declared."""
MAX_NAME_LENGTH = 256
"""Characters of a name, of a version and of an alias."""
MAX_SOURCE_LENGTH = 2048
"""Characters of a source."""
TEMPLATE = "template"
"""The origin of adapters that a template declares."""
VERSION_MARK = "@"
"""Stands between the name of an adapter and its version."""

_UNFIT = re.compile(r"[,\s\x00-\x1f\x7f]|^$")
"""vLLM joins names by commas in ``lora_requests_info``."""

NAME_RULE = f"1 to {MAX_NAME_LENGTH} printable characters without white space, ',' and '@'"


@dataclass(frozen=True, slots=True)
class WantedPods:
    """On which pods of its base model an adapter belongs."""

    everywhere: bool = False
    """On all of them."""
    copies: int | None = None
    """On this many. ``None`` without ``everywhere``: on as many as its requests need."""
    selector: Selector | None = None
    """Only on pods with such labels."""
    namespace: str | None = None
    """Only on pods of this namespace of Kubernetes."""

    def admits(self, pod: Pod) -> bool:
        """Return whether the adapter may be on a pod."""
        if self.namespace is not None and not pod.name.startswith(f"{self.namespace}/"):
            return False
        return self.selector is None or self.selector.matches(pod.labels)


BY_DEMAND = WantedPods()


@dataclass(frozen=True, slots=True)
class DeclaredAdapter:
    """One adapter that should be served."""

    name: str
    """By which clients ask for it."""
    base_model: str
    """The base model whose pods load it."""
    source: str
    """The path or URL from which a pod loads it, as the pod takes it (vLLM: ``lora_path``)."""
    pods: WantedPods = BY_DEMAND
    pinned: bool = False
    """Whether it stays loaded when it is not asked for and others need its place."""
    version: str = ""
    """Empty: it has none, and pods serve it under its name."""
    share: int = 100
    """Percentage of requests that go to this version while pods serve an older one too."""
    aliases: tuple[str, ...] = ()
    """Other names by which clients may ask for it."""
    origin: str = "file"
    """Who declared it: ``file``, ``template``, ``command``, or ``model-adapter NAMESPACE/NAME``."""

    @property
    def served_name(self) -> str:
        """The name under which pods serve it."""
        return served_name(self.name, self.version)

    @property
    def is_templated(self) -> bool:
        """Whether a client chose its name, and a template declares it."""
        return self.origin == TEMPLATE


def served_name(name: str, version: str) -> str:
    """Return the name under which pods serve a version of an adapter."""
    return f"{name}{VERSION_MARK}{version}" if version else name


def plain_name(served: str) -> str:
    """Return the name of the adapter of which pods serve a version under a name."""
    return served.partition(VERSION_MARK)[0]


def is_version_of(served: str, name: str) -> bool:
    """Return whether pods serve some version of an adapter under a name."""
    return served == name or served.startswith(name + VERSION_MARK)


def is_name(text: object) -> bool:
    """Return whether a value can be a name, a version or an alias: see ``NAME_RULE``."""
    return (
        isinstance(text, str)
        and 0 < len(text) <= MAX_NAME_LENGTH
        and text.isprintable()
        and VERSION_MARK not in text
        and _UNFIT.search(text) is None
    )
