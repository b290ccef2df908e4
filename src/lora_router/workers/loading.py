"""Declared adapters in a router with workers: the parent loads them, and workers hold requests.

The parent tells its workers what is declared, and what cannot be loaded. They tell it for which
adapters requests wait. The lists of pods reach them as always.
"""

import asyncio
import pickle
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from lora_router.adapter_assembly import DeclaredParts
from lora_router.adapters.declared import DeclaredAdapter, plain_name
from lora_router.adapters.demand import Demand
from lora_router.adapters.first_use import FirstUse
from lora_router.adapters.templates import Template
from lora_router.debug.slices import in_slices
from lora_router.discovery.adapters_list import AdaptersList
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.routing.selection import EVERY_POD, Selection
from lora_router.workers import messages
from lora_router.workers.crew import Crew
from lora_router.workers.member import Member
from lora_router.workers.messages import Asked, Declared, MayLoad, NotLoaded, Wanted

ASK_SECONDS = 0.5
"""How often a worker tells which adapters are asked for."""
_PODS_AT_ONCE = 200
_ADAPTERS_AT_ONCE = 256


class AdaptersOfCrew:
    """The parent's end."""

    def __init__(self, crew: Crew, declared: DeclaredParts) -> None:
        """Follow what is declared, and what workers hold.

        Args:
            crew: The workers.
            declared: What is declared.
        """
        self.want: Callable[[str], None] = lambda _name: None
        """Called with the served name of an adapter for which a request waits."""
        self._crew = crew
        self._declared = declared
        self._asked: dict[Member, Asked] = {}
        self._told: tuple[tuple[DeclaredAdapter, ...], tuple[Template, ...]] = ((), ())
        self._parts: Sequence[bytes] = tuple(_in_parts((), ()))
        """The messages that tell it."""
        self._is_due = False
        self._may_load = False
        declared.declarations.subscribe(self._changed)
        crew.on_started.append(self._tell_one)
        crew.on_asked = self._heard

    # What the loader asks and tells

    def use_may_load(self, may_load: bool) -> None:
        """Let workers tell peers whether this router may be the one that loads."""
        self._may_load = may_load
        self._crew.broadcast(messages.encode(MayLoad(may_load)))

    def demand(self) -> Demand:
        """Return for which adapters requests wait, and how many are in flight now."""
        waiting: set[str] = set()
        loads: Counter[str] = Counter()
        for asked in self._answers():
            waiting.update(asked.waiting)
            loads.update(asked.in_flight)
            loads.update(asked.held)
        return Demand(loads, waiting)

    def is_held(self, served: str) -> bool:
        """Return whether requests for an adapter wait, in this router or in another one."""
        return any(served in asked.held for asked in self._answers())

    def failed(self, served: str, detail: str, seconds: float) -> None:
        """Refuse requests for an adapter for some time, because it cannot be loaded."""
        self._declared.templated.failed(plain_name(served))
        self._crew.broadcast(messages.encode(NotLoaded(served, detail, seconds)))

    def loaded(self, served: str) -> None:
        """Note that an adapter has been loaded."""
        self._declared.sources.loaded(served)
        self._crew.broadcast(messages.encode(NotLoaded(served, "", 0.0)))

    def failed_for(
        self, served: str, selections: Collection[Selection], detail: str, seconds: float
    ) -> None:
        """Refuse nothing: ``selections`` excludes no pod, so that this is not called."""

    def selections(self, served: str) -> Collection[Selection]:
        """Return to which pods requests for an adapter may go. Workers do not tell it: to all."""
        return (EVERY_POD,)

    def selects(self, selection: Selection, state: PodState) -> bool:
        """Return whether requests may go to a pod."""
        return True

    def _answers(self) -> Iterator[Asked]:
        members = self._crew.members
        for member, asked in tuple(self._asked.items()):
            if members.get(member.number) is member:
                yield asked
            else:
                del self._asked[member]

    def _heard(self, member: Member, asked: Wanted | Asked) -> None:
        if isinstance(asked, Asked):
            self._asked[member] = asked
            return
        if self._declared.templated.want(plain_name(asked.name)):
            self.want(asked.name)

    # What workers are told

    def _changed(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._tell_all)

    def _tell_all(self) -> None:
        self._is_due = False
        now = self._now()
        if now != self._told:
            self._told = now
            self._make_part([], _in_parts(*now))

    def _make_part(self, made: list[bytes], left: Iterator[bytes]) -> None:
        """Make one message after the other, and then send all of them."""
        part = next(left, None)
        if self._is_due:
            return  # Something else is declared by now.
        if part is not None:
            made.append(part)
            asyncio.get_running_loop().call_soon(self._make_part, made, left)
            return
        self._parts = made
        for each in made:
            self._crew.broadcast(each)

    def _tell_one(self, member: Member) -> None:
        for each in self._parts:
            member.process.send(each)
        if self._may_load:
            member.process.send(messages.encode(MayLoad(may_load=True)))

    def _now(self) -> tuple[tuple[DeclaredAdapter, ...], tuple[Template, ...]]:
        declared = self._declared
        # Workers declare those of templates themselves, when they are asked for.
        adapters = tuple(each for each in declared.declarations if not each.is_templated)
        return adapters, tuple(declared.templated.templates)


def _in_parts(
    adapters: Sequence[DeclaredAdapter], templates: Sequence[Template]
) -> Iterator[bytes]:
    """Yield messages that tell what is declared: some adapters each, and at last the templates."""
    for begin in range(0, len(adapters), _ADAPTERS_AT_ONCE):
        some = adapters[begin : begin + _ADAPTERS_AT_ONCE]
        yield messages.encode(Declared(pickle.dumps(some), is_last=False))
    yield messages.encode(Declared(pickle.dumps(tuple(templates)), is_last=True))


class AdaptersOfWorker:
    """The worker's end."""

    def __init__(
        self,
        declared: DeclaredParts,
        first_use: FirstUse,
        fleet: Fleet,
        send: Callable[[bytes], None],
    ) -> None:
        """Tell the parent for which adapters there are requests.

        Args:
            declared: What is declared, as far as this worker has been told.
            first_use: Holds requests.
            fleet: Has the requests in flight.
            send: Sends a message to the parent.
        """
        self._declared = declared
        self._first_use = first_use
        self._fleet = fleet
        self._send = send
        self._last = Asked((), (), {})
        self._arrived: list[DeclaredAdapter] = []
        """What has arrived of the next list."""
        self._told = AdaptersList()
        self._is_told = asyncio.Event()
        first_use.on_wanted = self._want

    def declared(self, message: Declared) -> None:
        """Take in a part of what the parent declares. ``keep_declaring`` applies it."""
        part = pickle.loads(message.told)  # noqa: S301 -- from the parent
        if message.is_last:
            self._told = AdaptersList(tuple(self._arrived), part)
            self._arrived = []
            self._is_told.set()
        else:
            self._arrived += part

    async def keep_declaring(self) -> None:
        """Apply what the parent declares, whenever all of it has arrived."""
        while True:
            await self._is_told.wait()
            told = self._told
            await self._declared.declare(told)
            if self._told is told:
                self._is_told.clear()

    def not_loaded(self, message: NotLoaded) -> None:
        """Refuse requests for an adapter, or no longer."""
        if message.detail:
            self._first_use.failed(message.served, message.detail, message.seconds)
        else:
            self._first_use.loaded(message.served)

    async def keep_telling(self) -> None:
        """Tell the parent again and again which adapters are asked for, as far as it changes."""
        while True:
            await asyncio.sleep(ASK_SECONDS)
            in_flight: Counter[str] = Counter()
            async for states in in_slices(tuple(self._fleet), _PODS_AT_ONCE):
                for state in states:
                    in_flight.update(state.in_flight_adapters)
            first_use = self._first_use
            asked = Asked(_sorted(first_use.waiting()), _sorted(first_use.held()), dict(in_flight))
            if asked != self._last:
                self._last = asked
                self._send(messages.encode(asked))

    def _want(self, name: str) -> None:
        self._send(messages.encode(Wanted(name)))


def _sorted(names: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
