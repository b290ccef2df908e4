"""Which of several routers loads adapters, where all of them receive requests.

The routers share a Lease of its own for it. It decides nothing else: a router without it is ready,
and knows what the others know. Where one router leads (``leadership``), that one loads, and there
is no such Lease.
"""

import time
from collections.abc import Awaitable, Callable

from lora_router.replication.leadership import Duty, Leadership, LeaseOptions
from lora_router.replication.lease import LeaseStore
from lora_router.supervision import Supervisor

SUFFIX = "-loader"
"""The name of the Lease is that of the routers' Lease with this at its end."""
SHORTEST_SECONDS = 6
"""Shortest duration of a claim. No request waits for its end, so it is renewed less often."""
_DUTY = Duty("adapter-lease", "loads adapters", "does not load adapters")


def loader_lease_name(name: str) -> str:
    """Return the name of the Lease, for the name of the Lease by which routers would lead."""
    return f"{name[: 253 - len(SUFFIX)]}{SUFFIX}"


class LoaderLease:
    """The part of one router. Must be created in a running event loop."""

    def __init__(
        self,
        identity: str,
        options: LeaseOptions,
        supervisor: Supervisor,
        *,
        clock: Callable[[], float] = time.monotonic,
        open_store: Callable[[], Awaitable[LeaseStore]] | None = None,
    ) -> None:
        """Create it, without connecting.

        Args:
            identity: What this run of the router writes into the Lease.
            options: Which Lease.
            supervisor: Runs its tasks.
            clock: Returns seconds, monotonic.
            open_store: Opens the Lease. Default: at the Kubernetes API server.
        """
        self._name = str(options.name)
        self.leadership = Leadership(
            identity, options, supervisor, duty=_DUTY, clock=clock, open_store=open_store
        )

    @property
    def loads(self) -> bool:
        """Whether this router loads."""
        return self.leadership.leads

    def start(self) -> None:
        """Follow the Lease, and claim it after ``campaign``."""
        self.leadership.start(_publish_nothing)

    def campaign(self) -> None:
        """Claim the Lease when it is free: this router knows the pods and what they have."""
        self.leadership.campaign()

    async def resign(self) -> None:
        """Stop to load, and release the Lease, so that another router loads within seconds."""
        await self.leadership.resign()

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        election = self.leadership.election
        shown: dict[str, object] = {"lease": self._name, "loads": self.loads}
        if self.loads or election.free_in > 0:
            shown |= {"loader": election.claim.holder, "since": election.claim.acquired}
        if self.leadership.candidate.error is not None:
            shown["error"] = self.leadership.candidate.error
        return {"adapter_loader": shown}


async def _publish_nothing(_: bool) -> None:
    """Publish nothing: the loader asks."""
