"""One run of a live fleet: the processes of the demo, a trace, and what can be done to routers."""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from lora_router.demo.load import Arrival, Outcome, Player
from lora_router.demo.load import make_trace as demo_trace
from lora_router.demo.plan import StackPlan, demo_plan
from lora_router.demo.processes import Children
from lora_router.demo.router_process import RouterProcess
from lora_router.demo.stack import DemoStack
from lora_router.simulator.percentile import percentile
from lora_router.simulator.scenario import shipped_scenario
from lora_router.simulator.simulated_pod import PodOptions
from lora_router.simulator.summary import WARM_UP
from lora_router.simulator.trace import make_trace

ENOUGH_SLOTS, HALF_BASE = "enough slots", "half of f-half-base"
LOADS = (ENOUGH_SLOTS, HALF_BASE)
_SLOTS, _RATE = 4, 32.0
"""Slots of the demo's pods, and its requests per second. Each adapter finds a slot: a request that
waits for one does so because of the routers."""
_STREAM_INTERVAL = 25
"""Tokens in an event of a stream. It leaves the CPUs to the routers and to what is measured."""
_ASK_SECONDS = 0.01
_SCRAPES_SECONDS = 1.5
PEER_LOAD = (
    "lora_router_peer_in_flight_requests",
    "lora_router_peer_in_flight_adapters",
    "lora_router_peer_held_adapters",
)
"""What a router believes of its peers' requests, slots and held requests."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is run."""

    load: str
    algorithm: str
    routers: int = 1
    peering: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured."""

    outcomes: tuple[Outcome, ...]
    loads: int
    """Loads of an adapter into a slot, on all pods."""
    slot_waits: int
    """Requests that waited for a slot on their pod."""


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to the routers during a run. Times in seconds."""

    killed_at: float
    forgotten_after: float
    """Time from the death of a router until its peer had forgotten it."""
    ghosts: float
    """What the peer then still believed of it: requests, slots and held requests, in sum."""
    added_at: float
    """When a router was started that Envoy and its peer knew of."""
    used_after: float
    """Time from its start until Envoy used it."""


def plan_of(case: Case, spare_routers: int = 0) -> StackPlan:
    """Return the fleet of a case."""
    if case.load == ENOUGH_SLOTS:
        plan = demo_plan(slots=_SLOTS)
        pods = plan.pods
    else:
        scenario = shipped_scenario("f-half-base")
        keys = scenario.keys
        scenario = replace(
            scenario,
            keys=replace(
                keys, pods=keys.pods // 2, adapters=keys.adapters // 2, rate=keys.rate / 2
            ),
        )
        fleet = scenario.fleet(1.0)
        pods = tuple(
            PodOptions(f"pod-{number}", adapters=fleet.adapters, preload=True, engine=engine)
            for number, engine in enumerate(fleet.engines)
        )
    return StackPlan(
        tuple(replace(pod, stream_interval=_STREAM_INTERVAL) for pod in pods),
        routers=case.routers,
        spare_routers=spare_routers,
        peering=case.peering,
    )


def trace_of(load: str, seconds: float, seed: int) -> Sequence[Arrival]:
    """Return the requests of a load."""
    if load == ENOUGH_SLOTS:
        return demo_trace(seed, seconds, _RATE)
    scenario = shipped_scenario("f-half-base")
    workload = replace(scenario.workload, adapters=scenario.workload.adapters // 2)
    made = make_trace(workload, rate=scenario.rate / 2, seconds=seconds, seed=seed)
    return [Arrival(each.at, each.model, each.output_tokens) for each in made]


async def play(case: Case, seconds: float, seed: int) -> Run:
    """Run a case without a change of routers."""
    with tempfile.TemporaryDirectory(prefix="lora-router-bench-") as name:
        async with Children(Path(name)) as children:
            stack = DemoStack(children, Path(name), plan_of(case))
            await stack.start(case.algorithm)
            await _warm_up(stack, children)
            player = Player(stack.url, trace_of(case.load, seconds, seed))
            await _all_of(player, children)
            return await _run(player, stack)


async def play_with_change(case: Case, seconds: float, seed: int) -> tuple[Run, Change]:
    """Run a case; kill the last router after a third of the time, and add one after two thirds."""
    with tempfile.TemporaryDirectory(prefix="lora-router-bench-") as name:
        async with Children(Path(name)) as children:
            stack = DemoStack(children, Path(name), plan_of(case, spare_routers=1))
            await stack.start(case.algorithm)
            await _warm_up(stack, children)
            player = Player(stack.url, trace_of(case.load, seconds, seed))
            playing = asyncio.create_task(_all_of(player, children))
            try:
                change = await _change(stack, children, case.routers, seconds)
                await playing
            finally:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
            return await _run(player, stack), change


async def _warm_up(stack: DemoStack, children: Children) -> None:
    """Use an adapter on each pod, and wait until routers have read of it.

    The pages of a vLLM that has not had an adapter yet do not say how many slots it has.
    """
    await asyncio.gather(
        *(
            _all_of(
                Player(f"http://{address}", [Arrival(0.0, options.adapters[number], 1)]), children
            )
            for number, (address, options) in enumerate(
                zip(stack.pods, stack.plan.pods, strict=True)
            )
        )
    )
    await asyncio.sleep(_SCRAPES_SECONDS)


async def _change(stack: DemoStack, children: Children, routers: int, seconds: float) -> Change:
    loop = asyncio.get_running_loop()
    began = loop.time()
    witness, killed, added = stack.routers[0], stack.routers[routers - 1], stack.routers[routers]
    await asyncio.sleep(seconds / 3)
    async with aiohttp.ClientSession() as session:
        await _until_peers(witness, routers - 1, session)
        killed_at = loop.time()
        await children.kill(killed.name)
        await _until_peers(witness, routers - 2, session)
        forgotten_at = loop.time()
        believed = await witness.metrics(session) if routers == 2 else {}
        await asyncio.sleep(max(0.0, began + 2 * seconds / 3 - loop.time()))
        added_at = loop.time()
        await stack.start_router(added)
        await stack.until_used(routers)
        used_at = loop.time()
    return Change(
        killed_at=killed_at - began,
        forgotten_after=forgotten_at - killed_at,
        ghosts=sum(believed.get(name, 0.0) for name in PEER_LOAD),
        added_at=added_at - began,
        used_after=used_at - added_at,
    )


async def _until_peers(router: RouterProcess, count: int, session: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(30):
        while True:
            peers = (await router.status(session))["peers"]
            assert isinstance(peers, dict)
            if len(peers) == count:
                return
            await asyncio.sleep(_ASK_SECONDS)


async def _all_of(player: Player, children: Children) -> None:
    """Play the trace; raise if a child ends meanwhile."""
    watching = asyncio.create_task(children.watch())
    playing = asyncio.create_task(player.play())
    try:
        await asyncio.wait({watching, playing}, return_when=asyncio.FIRST_COMPLETED)
        for task in (watching, playing):
            if task.done():
                task.result()
    finally:
        for task in (watching, playing):
            task.cancel()
        await asyncio.gather(watching, playing, return_exceptions=True)


async def _run(player: Player, stack: DemoStack) -> Run:
    async with aiohttp.ClientSession() as session:
        reports = await stack.reports(session)
    return Run(
        tuple(player.outcomes),
        # Without that of the warm-up.
        loads=sum(report.loads - 1 for report in reports),
        slot_waits=sum(report.slot_waits for report in reports),
    )


def after_warm_up(runs: Sequence[Run], seconds: float) -> list[Outcome]:
    """Return the requests of all runs that were not sent while the fleet was still empty."""
    return [outcome for run in runs for outcome in run.outcomes if outcome.at >= WARM_UP * seconds]


def ttft(outcomes: Sequence[Outcome], share: float) -> float:
    """Return a percentile of the time to first token, in seconds, of the answered requests."""
    return percentile(
        sorted(each.first_token_seconds for each in outcomes if each.error is None), share
    )
