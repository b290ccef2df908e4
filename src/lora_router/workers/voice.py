"""How the parent shares its reads of pods with other hosts: one worker speaks for it.

The worker sends what the parent has read to all peers on other hosts, and hands on what these tell.
Other routers know the parent by the name of that worker. When the worker ends, another one speaks.
"""

import logging
from collections.abc import Callable, Collection

from google.protobuf.message import DecodeError

from lora_router.clock import Clock, Timer
from lora_router.log_limit import LogLimit
from lora_router.peering.passing import PassesReadings
from lora_router.peering.pb.readings_pb2 import Readings
from lora_router.peering.report_reader import ReportError
from lora_router.workers import messages
from lora_router.workers.crew import Crew
from lora_router.workers.framing import FramedProtocol
from lora_router.workers.member import Member

log = logging.getLogger("lora_router.workers")

_MAX_UNSENT_BYTES = 8 * 1024 * 1024
"""Bytes that wait for the parent to read them, with which a worker hands on no more."""


class Voice:
    """The worker that speaks, as the parent sees it. For its ``ReadingExchange``, it is the hub."""

    def __init__(self, crew: Crew, clock: Clock) -> None:
        """Create it. Nobody speaks yet.

        Args:
            crew: The workers.
            clock: Time and timers.
        """
        self.name = ""
        """The name of the worker that speaks."""
        self.peers: frozenset[str] = frozenset()
        """The routers on other hosts that it exchanges reports with."""
        self._loaders: tuple[str, ...] = ()
        self.now = clock.now
        self.readings: PassesReadings | None = None
        self.on_named: Callable[[str], None] = lambda _name: None
        """Called with the name of each worker that begins to speak."""
        self._crew = crew
        self._clock = clock
        self._speaker: Member | None = None
        self._limit = LogLimit(60.0)
        crew.on_status = self._follow
        crew.on_heard = self._heard

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, ``seconds`` from now."""
        return self._clock.call_later(seconds, call)

    def loaders(self) -> Collection[str]:
        """Return the routers on other hosts that may be the ones that load adapters."""
        return self._loaders

    def send_to_all(self, message: bytes) -> None:
        """Send a message to every peer on another host that has room for it."""
        if self._speaker is not None:
            tell = messages.encode(messages.Tell(message))
            self._speaker.process.send(tell, skippable=True)

    def _follow(self) -> None:
        speaker = self._speaker
        if speaker is None or not self._can_speak(speaker):
            speaker = self._choose()
        status = None if speaker is None else speaker.status
        peers = frozenset(() if status is None else status.peers)
        gone, self.peers = self.peers - peers, peers
        self._loaders = () if status is None else status.loaders
        if self.readings is not None:
            for name in gone:
                self.readings.gone(name)

    def _choose(self) -> Member | None:
        """Let another worker speak."""
        if self._speaker is not None:
            self._speaker.process.send(messages.encode(messages.Speak(speaks=False)))
        members = (self._crew.members[number] for number in sorted(self._crew.members))
        speaker = self._speaker = next(filter(self._can_speak, members), None)
        if speaker is not None and speaker.status is not None:
            speaker.process.send(messages.encode(messages.Speak(speaks=True)))
            self.name = speaker.status.name
            self.on_named(self.name)
        return speaker

    def _can_speak(self, member: Member) -> bool:
        is_running = self._crew.members.get(member.number) is member
        return is_running and member.status is not None and member.share.responsive

    def _heard(self, member: Member, heard: messages.Heard) -> None:
        if member is not self._speaker or self.readings is None:
            return
        try:
            self.readings.received(heard.peer, Readings.FromString(heard.readings))
        except (ReportError, DecodeError) as error:
            self._limit.log(
                log,
                logging.WARNING,
                "readings",
                "what peer %s told of pods was rejected: %s",
                heard.peer,
                error,
            )


class PassedReadings:
    """The worker's end: hands on what peers on other hosts tell of pods, if it speaks."""

    def __init__(self, control: FramedProtocol, on_gone: Callable[[], None]) -> None:
        """Create it.

        Args:
            control: Sends to the parent.
            on_gone: Called when a peer is gone.
        """
        self.speaks = False
        self._control = control
        self._on_gone = on_gone

    def take(self) -> list[bytes]:
        """Return nothing: what the parent tells goes out at once."""
        return []

    def received(self, name: str, message: Readings) -> None:
        """Hand on what a peer tells."""
        if self.speaks and self._control.unsent <= _MAX_UNSENT_BYTES:
            heard = messages.Heard(name, message.SerializeToString())
            self._control.send(messages.encode(heard))

    def gone(self, _name: str) -> None:
        """Tell the parent soon that a peer is gone."""
        self._on_gone()
