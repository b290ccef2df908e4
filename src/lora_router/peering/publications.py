"""What a router publishes where all routers listen: made, and checked when it arrives.

Others may be able to publish there too. With a secret, what has no valid signature is refused.
Every publication is used at most once, and only for some seconds, so that nobody can repeat what a
router published. No clocks of routers are compared: the time is that of the server that carries
it.
"""

from collections.abc import Callable

from google.protobuf.message import DecodeError

from lora_router import __version__
from lora_router.peering.conversation import OLDEST_VERSION, VERSION, is_router_name
from lora_router.peering.limits import MAX_BROADCAST_BYTES, MAX_BROADCAST_PEERS
from lora_router.peering.pb.broadcast_pb2 import Broadcast, Publication
from lora_router.peering.secret import Secret

FRESH_SECONDS = 5.0
"""For how long a publication may be used."""
STATE_SECONDS = 15.0
"""For how long a stored one may be used."""
_MAX_ROUTERS = 2 * MAX_BROADCAST_PEERS
"""Routers whose last publications are remembered, also after they are gone."""


class RefusedError(ValueError):
    """A publication that cannot be used. The message says why."""

    def __init__(self, cause: str, message: str, router: str = "") -> None:
        self.cause = cause
        """Used as a metric label."""
        self.router = router
        """Who published it, if that is known for sure."""
        super().__init__(message)


class Publications:
    """Makes those of this router, and checks those of others."""

    def __init__(self, router: str, secret: Secret | None, now: Callable[[], float]) -> None:
        """Create it. ``set_time`` must be called before anything is published or checked.

        Args:
            router: This router's name.
            secret: Signs what is published. ``None``: whoever can publish is believed.
            now: Seconds on this router's monotonic clock.
        """
        self._router = router
        self._secret = secret
        self._now = now
        self._ahead = 0.0
        """The server's time minus this router's."""
        self._sequence = 0
        self._last: dict[str, tuple[int, float]] = {}
        """The last publication of each router, and when it arrived."""

    def set_time(self, seconds: float) -> None:
        """Take over the time of the server, in seconds since 1970."""
        self._ahead = seconds - self._now()

    def time(self) -> float:
        """Return the time of the server, in seconds since 1970."""
        return self._now() + self._ahead

    def make(self, message: bytes, to: str = "") -> bytes:
        """Return a message as it is published, for one router or for all."""
        self._sequence += 1
        publication = Publication(
            router=self._router,
            version=VERSION,
            oldest_version=OLDEST_VERSION,
            release=__version__,
            sequence=self._sequence,
            sent_ms=int(self.time() * 1000),
            to=to,
            message=message,
        ).SerializeToString()
        signature = b"" if self._secret is None else self._secret.sign(publication)
        return Broadcast(publication=publication, signature=signature).SerializeToString()

    def read(self, data: bytes, *, is_stored: bool = False) -> Publication | None:
        """Return a publication that may be used.

        It may be this router's own, which is not checked. ``None``: it is for another router, or
        it has arrived before.

        Raises:
            RefusedError: It may not be used.
        """
        if len(data) > MAX_BROADCAST_BYTES:
            raise RefusedError("too-large", "the message is too long")
        try:
            broadcast = Broadcast.FromString(data)
            publication = Publication.FromString(broadcast.publication)
        except DecodeError:
            raise RefusedError("malformed", "not a Broadcast message") from None
        router = publication.router
        if router == self._router:
            return publication
        if publication.to and publication.to != self._router:
            return None
        self._check(broadcast, publication)
        age = self.time() - publication.sent_ms / 1000
        if abs(age) > (STATE_SECONDS if is_stored else FRESH_SECONDS):
            raise RefusedError("stale", f"it was published {age:.1f} s ago", router)
        last = self._last.get(router)
        if last is not None and publication.sequence <= last[0]:
            return None
        self._remember(router, publication.sequence)
        return publication

    def _check(self, broadcast: Broadcast, publication: Publication) -> None:
        secret = self._secret
        if secret is not None and not secret.has_signed(broadcast.publication, broadcast.signature):
            raise RefusedError("unauthenticated", "the signature is missing or wrong")
        router = publication.router
        if not is_router_name(router, publication.release[:64]):
            raise RefusedError("malformed", "the router's name is unusable")
        version = min(publication.version, VERSION)
        if version < max(OLDEST_VERSION, publication.oldest_version):
            raise RefusedError(
                "version",
                f"peering versions {publication.oldest_version} to {publication.version} are not "
                f"spoken here, but {OLDEST_VERSION} to {VERSION}",
                router,
            )

    def _remember(self, router: str, sequence: int) -> None:
        now, last = self._now(), self._last
        if router not in last and len(last) >= _MAX_ROUTERS:
            for each, (_, at) in tuple(last.items()):
                # What is older is refused as stale.
                if now - at > 2 * STATE_SECONDS:
                    del last[each]
            if len(last) >= _MAX_ROUTERS:
                raise RefusedError("too-many-peers", "too many routers in a short time", router)
        last[router] = sequence, now
