"""Follows a Lease, claims it when it is free, and renews the claim.

A standby watches the Lease: it learns of a release at once, and of each renewal. Without a change
for the duration of the claim it reads the Lease again, since the watch may be broken, and claims it
if nothing changed. If the Lease cannot be watched, it is read again and again.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from lora_router.discovery.kubernetes_api import ApiError, CredentialsError
from lora_router.discovery.watch_pace import SHORT_SECONDS
from lora_router.log_limit import LogLimit
from lora_router.replication.election import Election
from lora_router.replication.lease import LeaseStore

log = logging.getLogger("lora_router.replication")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0
"""Longest pause after a failure. A leader that died meanwhile is replaced this much later."""
_LEADERS_PAUSE_SHARE = 0.1
"""Longest pause of a leader as a share of the duration, so that it does not miss its renewal."""
_SHORTEST_WATCH_SECONDS = 0.2
"""Time between the starts of two watches. A pause that grows would delay the next leader."""
_MANY = 3
"""So many watches in a row that end at once, and so many claims that are refused although nobody
else holds the Lease, are no accident."""


class Candidate:
    """Keeps the election of one router up to date."""

    def __init__(
        self,
        election: Election,
        open_store: Callable[[], Awaitable[LeaseStore]],
        name: str,
        clock: Callable[[], float],
        on_news: Callable[[], None],
        rng: random.Random | None = None,
    ) -> None:
        """Create it, without connecting.

        Args:
            election: The state, which it updates.
            open_store: Opens the Lease with the current credentials.
            name: The name of the Lease, for logs.
            clock: The clock of ``election``.
            on_news: Called after each call of the API.
            rng: Source of the backoff's jitter.
        """
        self._election = election
        self._open_store = open_store
        self._name = name
        self._clock = clock
        self._on_news = on_news
        self._rng = rng or random.Random()
        self._limit = LogLimit(60.0)
        self._store: LeaseStore | None = None
        self._campaigns = asyncio.Event()
        self._pause = _FIRST_PAUSE_SECONDS
        self._hasty_watches = 0
        """Watches in a row that ended within ``SHORT_SECONDS``."""
        self._refused_claims = 0
        """Claims in a row that were refused although nobody else holds the Lease."""
        self.errors: Counter[str] = Counter()
        """Failed calls of the API, by cause."""
        self.error: str | None = None
        """Why the Lease cannot be followed or claimed at the moment."""

    def campaign(self) -> None:
        """Claim the Lease from now on. Before, it is only followed."""
        self._campaigns.set()

    async def run(self) -> None:
        """Follow, claim and renew, for ever."""
        while True:
            try:
                self._store = self._store or await self._open_store()
                await self._turn(self._store)
            except (ApiError, CredentialsError) as error:
                self._failed(error)
                self._on_news()
                # The next attempt reads the credentials again, and makes a new connection.
                await self.close()
                pause = self._pause
                if self._election.leads:
                    pause = min(pause, self._election.duration * _LEADERS_PAUSE_SHARE)
                await asyncio.sleep(pause * self._rng.uniform(0.5, 1.0))
                self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            else:
                self._on_news()

    async def release(self) -> None:
        """Give up the claim, so that another router leads at once. ``run`` must have ended.

        Raises:
            ApiError, CredentialsError: It could not be released, and ends with its duration.
        """
        election = self._election
        election.resign()
        if election.lease is None or election.claim.holder != election.identity:
            return
        self._store = self._store or await self._open_store()
        try:
            await self._store.write(election.released_claim(), election.lease)
        except ApiError as error:
            if error.cause != "conflict":
                raise
            # The last renewal was cancelled, and arrived.
            lease = await self._store.read()
            if lease is None or lease.claim.holder != election.identity:
                return
            await self._store.write(election.released_claim(), lease)
        log.info("lease %s released", self._name)

    async def close(self) -> None:
        """Close the connection. The next call opens one."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    async def _turn(self, store: LeaseStore) -> None:
        election = self._election
        if election.leads:
            await asyncio.sleep(election.renewal_in)
            await self._claim(store)
            return
        election.observe(await store.read())
        self._on_news()
        if election.free_in > 0:
            await self._follow(store)
        elif self._campaigns.is_set():
            await self._claim(store)
        else:
            self._well()
            await self._campaigns.wait()

    async def _claim(self, store: LeaseStore) -> None:
        election = self._election
        sent_at = self._clock()
        try:
            lease = await store.write(election.own_claim(), election.lease)
        except ApiError as error:
            if error.cause not in ("conflict", "missing"):
                raise
            # Another router was first, or an earlier write of this one arrived although its answer
            # did not. Then the claim has little time left: it is renewed without a pause.
            found = await store.read()
            election.observe(found)
            self._refused_claims = 0 if election.free_in > 0 else self._refused_claims + 1
            if self._refused_claims > _MANY:
                raise
            if found is None or found.claim.holder != election.identity:
                await asyncio.sleep(_FIRST_PAUSE_SECONDS * self._rng.uniform(0.5, 1.0))
        else:
            self._refused_claims = 0
            election.claimed(lease, sent_at)
            self._well()

    async def _follow(self, store: LeaseStore) -> None:
        """Watch until the Lease is free, has not changed for its duration, or the watch ends."""
        election = self._election
        loop = asyncio.get_running_loop()
        began = loop.time()
        version = election.lease.version if election.lease is not None else ""
        try:
            async with (
                asyncio.timeout(election.free_in) as limit,
                aclosing(store.watch(version)) as changes,
            ):
                async for lease in changes:
                    election.observe(lease)
                    self._well()
                    self._on_news()
                    if election.free_in <= 0:
                        return
                    limit.reschedule(loop.time() + election.free_in)
        except TimeoutError:
            return
        except ApiError as error:
            if error.cause != "expired":
                raise
        self._note_end(loop.time() - began)
        await asyncio.sleep(max(0.0, began + _SHORTEST_WATCH_SECONDS - loop.time()))

    def _note_end(self, lasted: float) -> None:
        """Note that the server ended a watch. If it ends each one at once, say so."""
        self._hasty_watches = 0 if lasted >= SHORT_SECONDS else self._hasty_watches + 1
        if self._hasty_watches >= _MANY:
            self._failed(ApiError("connect", "the server ends each watch immediately"))

    def _well(self) -> None:
        self._pause = _FIRST_PAUSE_SECONDS
        if self.error is not None:
            self.error = None
            self._limit.log(log, logging.INFO, "recovered", "lease %s: recovered", self._name)

    def _failed(self, error: ApiError | CredentialsError) -> None:
        cause = error.cause if isinstance(error, ApiError) else "credentials"
        self.errors[cause] += 1
        self.error = str(error)
        if cause == "forbidden":
            self.error += (
                " (the Role needs create for leases in coordination.k8s.io, and get, update and "
                "watch for this one)"
            )
        self._limit.log(
            log, logging.WARNING, cause, "cannot use lease %s: %s", self._name, self.error
        )
