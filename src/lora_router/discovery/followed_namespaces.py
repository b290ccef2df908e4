"""Which namespaces have been read, and when the others are used without one that cannot be.

A router that starts waits for the first list of every namespace, since it would refuse requests for
the models of one that is missing. But a namespace may be gone for good, with the RoleBinding in it,
and must not keep all others out of use. Rules:

- A namespace is *left out* after ``REFUSED_SECONDS`` of refusals (403, 404), or after
  ``FAILING_SECONDS`` of other failures. It counts as an empty one, until it can be read.
- Only time in which another namespace is followed counts. While none is, the cause is most likely
  the API server, or a permission that all of them lack: a router that can read nothing waits.
- A namespace that has been read is never left out. What was last known of it stays in use.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from lora_router.discovery.kubernetes_api import ApiError

REFUSED_SECONDS = 3.0
"""An API server that has just started may refuse for a second."""
FAILING_SECONDS = 60.0
_REFUSALS = frozenset({"forbidden", "missing"})


class FollowedNamespace:
    """What one list and its watches cover, and how they are doing."""

    def __init__(self, namespace: str | None) -> None:
        """Create it, before the first list.

        Args:
            namespace: ``None``: all namespaces.
        """
        self.namespace = namespace
        self.listed = False
        """Whether it has been read once."""
        self.is_left_out = False
        """Whether the others are used without it, since it was never read."""
        self.error: str | None = None
        """Why it cannot be followed at the moment."""
        self.failing_since: float | None = None
        self.refused_since: float | None = None

    def __str__(self) -> str:
        return "all namespaces" if self.namespace is None else f"namespace {self.namespace}"


Namespace = TypeVar("Namespace", bound=FollowedNamespace)


class FollowedNamespaces(Generic[Namespace]):
    """All that one part of the router follows."""

    def __init__(
        self, namespaces: Sequence[Namespace], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Follow them.

        Args:
            namespaces: All of them, at least one.
            clock: Returns seconds, monotonic.
        """
        self._all = namespaces
        self._clock = clock

    def __iter__(self) -> Iterator[Namespace]:
        return iter(self._all)

    @property
    def are_read(self) -> bool:
        """Whether each namespace was read or is left out.

        One is left out only if another one was read.
        """
        return all(each.listed or each.is_left_out for each in self._all)

    @property
    def left_out(self) -> dict[str, str]:
        """The namespaces that are left out, and why they cannot be read."""
        return {str(each.namespace): each.error or "" for each in self._all if each.is_left_out}

    def was_listed(self, namespace: Namespace) -> None:
        """Note that a namespace was read."""
        namespace.listed, namespace.is_left_out = True, False

    def failed(self, namespace: Namespace, error: ApiError) -> bool:
        """Note a failure of a namespace; return whether it is left out from now on."""
        if namespace.listed or namespace.is_left_out:
            return False
        if not any(each.listed and each.error is None for each in self._all):
            namespace.failing_since = namespace.refused_since = None
            return False
        now = self._clock()
        if namespace.failing_since is None:
            namespace.failing_since = now
        if error.cause not in _REFUSALS:
            namespace.refused_since = None
        elif namespace.refused_since is None:
            namespace.refused_since = now
        refused = namespace.refused_since
        namespace.is_left_out = now - namespace.failing_since >= FAILING_SECONDS or (
            refused is not None and now - refused >= REFUSED_SECONDS
        )
        return namespace.is_left_out
