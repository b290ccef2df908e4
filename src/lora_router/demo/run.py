"""Runs the demo: for each algorithm a fresh fleet, the same trace, a live view, and the figures."""

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.live import Live

from lora_router.demo.load import REQUESTS_PER_SECOND, Arrival, Player, make_trace
from lora_router.demo.plan import PODS, SLOTS, StackPlan, demo_plan, routers_text
from lora_router.demo.processes import ChildError, Children
from lora_router.demo.result import Result, summarise
from lora_router.demo.stack import DemoStack, PodReport
from lora_router.demo.view import live_view, result_view
from lora_router.routing.registry import UnknownAlgorithmError, check_installed
from lora_router.simulator.no_value import for_json, shown
from lora_router.terminal import output_console, print_report

DEFAULT_ALGORITHMS = ("random", "least-request", "lora-affinity", "lora-placement")
_REFRESH_SECONDS = 0.25
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to run."""

    duration: float
    """Seconds of load for each algorithm."""
    algorithms: tuple[str, ...]
    seed: int
    as_json: bool
    routers: int = 1
    peering: bool = True
    """Whether several routers are peers of each other."""
    slots: int = SLOTS
    """Adapter slots of each pod."""
    rate: float = REQUESTS_PER_SECOND
    """Requests per second, without those of chats."""

    @property
    def plan(self) -> StackPlan:
        """The fleet to run."""
        return demo_plan(self.routers, peering=self.peering, slots=self.slots)


def demo_command(options: DemoOptions) -> int:
    """Run the demo and print its figures; return the exit status.

    0: all requests were answered; 1: some were not, or a process failed; 2: unknown algorithm;
    130: interrupted.
    """
    # With --json, standard output has the figures and standard error everything else.
    console = output_console(stderr=options.as_json)
    try:
        check_installed(options.algorithms)
        results = asyncio.run(_interruptible(options, console))
    except UnknownAlgorithmError as error:
        _print_error(f"lora-router: {error}")
        return 2
    except ChildError as error:
        _print_error(f"lora-router: {error}")
        return 1
    if results is None:
        routers = "router" if options.routers == 1 else "routers"
        console.print(f"interrupted; pods, {routers} and Envoy are stopped")
        return _INTERRUPTED
    if options.as_json:
        sys.stdout.write(json.dumps(for_json(_document(options, results))) + "\n")
    else:
        print_report(console, "", result_view(results, options.plan, console.width))
    for algorithm, result in results.items():
        for example in result.error_examples:
            _print_error(f"{algorithm}: {example}")
    return 1 if any(result.errors for result in results.values()) else 0


def _print_error(text: str) -> None:
    # Not wrapped, so that a terminal, a log and a search see the line as one.
    console = output_console(stderr=True)
    console.print(text, style="red", markup=False, soft_wrap=True)


def _document(options: DemoOptions, results: dict[str, Result]) -> dict[str, object]:
    return {
        "duration_seconds": options.duration,
        "seed": options.seed,
        "rate": options.rate,
        "slots": options.slots,
        "routers": options.routers,
        "peering": options.routers > 1 and options.peering,
        "algorithms": {name: asdict(result) for name, result in results.items()},
    }


async def _interruptible(options: DemoOptions, console: Console) -> dict[str, Result] | None:
    task = asyncio.create_task(_run(options, console))
    loop = asyncio.get_running_loop()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        # Only once: a second Ctrl-C must not cut short the end of the child processes.
        if not interrupted:
            interrupted = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        if interrupted:
            return None
        raise


async def _run(options: DemoOptions, console: Console) -> dict[str, Result]:
    trace = make_trace(options.seed, options.duration, options.rate)
    results = {}
    for algorithm in options.algorithms:
        results[algorithm] = await _try_algorithm(algorithm, options.plan, trace, console)
    return results


async def _try_algorithm(
    algorithm: str, plan: StackPlan, trace: Sequence[Arrival], console: Console
) -> Result:
    with tempfile.TemporaryDirectory(prefix="lora-router-demo-") as name:
        directory = Path(name)
        async with Children(directory) as children:
            console.print(f"{algorithm}: starting {PODS} pods, {routers_text(plan)} and Envoy")
            stack = DemoStack(children, directory, plan)
            await stack.start(algorithm)
            console.print(
                f"{algorithm}: the page is {stack.admin_url}/ (or: lora-router top --admin "
                f"{stack.admin_url})",
                soft_wrap=True,
            )
            player = Player(stack.url, trace)
            playing = asyncio.create_task(player.play())
            helpers = [asyncio.create_task(children.watch())]
            if console.is_terminal and not console.is_dumb_terminal:
                helpers.append(
                    asyncio.create_task(_show(algorithm, stack, player, len(trace), console))
                )
            try:
                await asyncio.wait({playing, *helpers}, return_when=asyncio.FIRST_COMPLETED)
                for task in (*helpers, playing):
                    if task.done():
                        task.result()  # Raises ChildError if a child has ended.
                reports, by_router = await _reports(stack)
            finally:
                for task in (playing, *helpers):
                    task.cancel()
                await asyncio.gather(playing, *helpers, return_exceptions=True)
    result = summarise(player.outcomes, reports, by_router)
    console.print(
        f"{algorithm}: {result.requests} requests, time to first token "
        f"p50 {shown(result.ttft_ms['p50'], ',.0f', ' ms')}, "
        f"p99 {shown(result.ttft_ms['p99'], ',.0f', ' ms')}"
    )
    return result


async def _reports(stack: DemoStack) -> tuple[list[PodReport], dict[str, int]]:
    """Return the final state of the pods, and how many requests each router routed."""
    async with aiohttp.ClientSession() as session:
        try:
            return await stack.reports(session), await stack.decisions(session)
        except aiohttp.ClientError as error:
            raise ChildError(f"a pod or a router does not report its state: {error}") from None


async def _show(
    algorithm: str, stack: DemoStack, player: Player, total: int, console: Console
) -> None:
    """Show the fleet four times a second until cancelled."""
    async with aiohttp.ClientSession() as session:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            while True:
                # If a pod does not answer, the view stays as it is until the next turn.
                with suppress(aiohttp.ClientError):
                    reports = await stack.reports(session)
                    view = live_view(algorithm, reports, player.outcomes, total, console.width)
                    live.update(view, refresh=True)
                await asyncio.sleep(_REFRESH_SECONDS)
