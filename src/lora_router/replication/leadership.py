"""Active-standby as one part of a router: follows the Lease, and publishes whether it leads.

A router that leads is ready. A standby is not: Envoy's health checks send requests to the leader. A
standby still answers every request that arrives, because with peering it decides almost as well as
the leader. So the Lease decides where requests go, never whether they are answered.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from lora_router.discovery.kubernetes_api import ApiError, Credentials, CredentialsError
from lora_router.replication.candidate import Candidate
from lora_router.replication.election import Election
from lora_router.replication.kubernetes_lease import KubernetesLease, LeaseName
from lora_router.replication.lease import LeaseStore
from lora_router.supervision import Supervisor, cancel

log = logging.getLogger("lora_router.replication")

_REQUEST_SHARE = 0.375
"""Timeout of a request as a share of the duration: two of them fit between renewal and its end."""

Publish = Callable[[bool], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Duty:
    """What the holder of a Lease does, in logs and names of tasks."""

    task: str = "lease"
    does: str = "leads"
    waits: str = "standby"


LEADS = Duty()


@dataclass(frozen=True, slots=True)
class LeaseOptions:
    """Which Lease to use, and how."""

    name: LeaseName
    duration: int
    """Seconds after which a claim that is not renewed ends."""
    credentials: Credentials
    watch_seconds: int = 30
    """Server-side timeout of a watch."""


class Leadership:
    """The part. Must be created in a running event loop."""

    def __init__(
        self,
        identity: str,
        options: LeaseOptions,
        supervisor: Supervisor,
        *,
        duty: Duty = LEADS,
        knows: Callable[[str], bool] = lambda _: True,
        clock: Callable[[], float] = time.monotonic,
        open_store: Callable[[], Awaitable[LeaseStore]] | None = None,
    ) -> None:
        """Create it, without connecting.

        Args:
            identity: What this run of the router writes into the Lease.
            options: Which Lease.
            supervisor: Runs its tasks.
            duty: What this router does while it holds the Lease.
            knows: Returns whether a router is a peer of this one.
            clock: Returns seconds, monotonic.
            open_store: Opens the Lease. Default: at the Kubernetes API server.
        """
        self._options = options
        self._supervisor = supervisor
        self._duty = duty
        self._knows = knows
        self._clock = clock
        self._news = asyncio.Event()
        self.election = Election(identity, options.duration, clock)
        self.candidate = Candidate(
            self.election, open_store or self._open, str(options.name), clock, self._news.set
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._campaigns = False
        self._shown = False
        self._shown_holder: str | None = None
        self.began_to_lead = 0
        self.ceased_to_lead = 0

    @property
    def leads(self) -> bool:
        """Whether this router leads."""
        return self._campaigns and self.election.leads

    def start(self, publish: Publish) -> None:
        """Follow the Lease, and claim it after ``campaign``.

        Args:
            publish: Called with whether this router leads, whenever that changes. One call at a
                time.
        """

        async def keep_publishing() -> None:
            await self._keep_publishing(publish)

        self._tasks = [
            self._supervisor.keep(self._duty.task, self.candidate.run),
            self._supervisor.keep(f"{self._duty.task}-publish", keep_publishing),
        ]

    def campaign(self) -> None:
        """Claim the Lease when it is free: this router is able to lead."""
        self._campaigns = True
        self.candidate.campaign()
        self._news.set()

    async def resign(self) -> None:
        """Stop to lead, and release the Lease. The caller has published that it is not ready.

        May be called again, and before ``start``.
        """
        if self._shown:
            self.ceased_to_lead += 1
        self._campaigns = self._shown = False
        tasks, self._tasks = self._tasks, []
        await cancel(tasks)
        try:
            await self.candidate.release()
        except (ApiError, CredentialsError) as error:
            log.warning(
                "cannot release lease %s, which ends in %d s: %s",
                self._options.name,
                self._options.duration,
                error,
            )
        finally:
            await self.candidate.close()

    def standby_reason(self) -> str:
        """Return why this router does not lead, in one line."""
        claim = self.election.claim
        reason = "standby: no router leads"
        if self.election.lease is not None and self.election.free_in > 0:
            reason = f"standby: {claim.holder} leads since {claim.acquired}"
            if not self._knows(claim.holder):
                # Either this standby knows nothing of its leader's requests, or it has no leader.
                reason += (
                    f", and is not a peer of this router; does another fleet use lease "
                    f"{self._options.name}?"
                )
        if self.candidate.error is not None:
            reason += f"; cannot use lease {self._options.name}: {self.candidate.error}"
        return reason

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        claim = self.election.claim
        status: dict[str, object] = {
            "replication": "lease",
            "lease": str(self._options.name),
            "leads": self.leads,
        }
        if self.leads or self.election.free_in > 0:
            status |= {"leader": claim.holder, "leader_since": claim.acquired}
        if self.candidate.error is not None:
            status["lease_error"] = self.candidate.error
        return status

    async def _open(self) -> LeaseStore:
        options = self._options
        return await KubernetesLease.open(
            options.credentials,
            options.name,
            request_seconds=options.duration * _REQUEST_SHARE,
            watch_seconds=options.watch_seconds,
        )

    async def _keep_publishing(self, publish: Publish) -> None:
        """Publish each change. Beside the calls of the API, so that none of them delays an end."""
        while True:
            self._news.clear()
            leads = self.leads
            if leads != self._shown:
                await publish(leads)
                self._note(leads)
            elif not leads:
                self._note_holder()
            # A claim that is not renewed ends without any news.
            with suppress(TimeoutError):
                async with asyncio.timeout(self.election.valid_for if leads else None):
                    await self._news.wait()

    def _note(self, leads: bool) -> None:
        self._shown = leads
        name, does = self._options.name, self._duty.does
        if leads:
            self.began_to_lead += 1
            self._shown_holder = self.election.identity
            log.info("%s: this router holds lease %s", does, name)
            return
        self.ceased_to_lead += 1
        if self.election.claim.holder == self.election.identity:
            log.warning(
                "%s no longer: lease %s was not renewed in time: %s",
                does,
                name,
                self.candidate.error or "the API server did not answer in time",
            )
        else:
            holder = self.election.claim.holder
            log.warning("%s no longer: %s holds lease %s", does, holder, name)

    def _note_holder(self) -> None:
        holder = self.election.claim.holder
        if holder != self._shown_holder and self.election.free_in > 0:
            self._shown_holder = holder
            log.info("%s: %s holds lease %s", self._duty.waits, holder, self._options.name)
