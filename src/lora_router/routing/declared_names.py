"""What routing asks about adapters that are declared, whether or not pods list them.

``adapters.first_use`` implements it. Without declared adapters, nothing does.
"""

from collections.abc import Callable, Collection
from typing import Protocol

from msgspec import Struct

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.pod import Pod
from lora_router.routing.refusal import Refused
from lora_router.routing.selection import Selection

FIRST_USE = "first-use"
"""Why a request is held for an adapter that is loaded for it."""


class DeclaredName(Struct, frozen=True):
    """An adapter that the router can have loaded."""

    name: str
    """The adapter's own name, for messages to clients."""
    base_model: str
    """The model whose pods load it."""
    admits: Callable[[Pod], bool] | None = None
    """Returns whether it may be on a pod; ``None``: on all pods of its base model."""
    problem: Refused | None = None
    """Why no request may wait for it now; ``None``: it may."""
    narrow_problem: Callable[[Selection], Refused | None] | None = None
    """Returns why requests that exclude some pods may not wait for it now; ``None``: all may."""

    def problem_of(self, selection: Selection) -> Refused | None:
        """Return why a request may not wait for it now; ``None``: it may.

        Args:
            selection: The pods to which the request may go.
        """
        narrow = self.narrow_problem
        return self.problem if narrow is None else self.problem or narrow(selection)


class DeclaredNames(Protocol):
    """The adapters that are declared, as routing knows them."""

    def find(self, model: str) -> DeclaredName | None:
        """Return the adapter that pods are asked for by a name; ``None``: none is declared.

        It changes nothing. Clients choose names.
        """

    def want(self, model: str) -> None:
        """Have an adapter loaded for which a request waits, or waited in vain."""

    def declared_instead(self, model: str) -> str | None:
        """Return the name under which pods list the declared version of an adapter.

        Args:
            model: The name of another version, which is declared no longer. If it is anything else,
                the answer is ``None``.
        """

    def other_versions(self, model: str) -> Collection[str]:
        """Return the names under which pods list other versions of an adapter.

        Args:
            model: The name under which they list the declared version.
        """

    def catalog(self, base_model: str) -> Catalog | None:
        """Return the names by which clients may ask for the adapters of a base model.

        The same names give the same object again. ``None``: there are none.
        """
