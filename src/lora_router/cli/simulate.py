"""``lora-router simulate``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from lora_router.cli.options import AsJson, fail, number, whole


def complete_scenario(incomplete: str) -> Iterator[str]:
    """Yield the shipped scenarios whose names begin with ``incomplete``, for completion."""
    from lora_router.simulator.scenario import shipped_scenarios

    yield from (name for name in shipped_scenarios() if name.startswith(incomplete))


def complete_algorithm(incomplete: str) -> Iterator[str]:
    """Yield the algorithms that can be simulated whose names begin with ``incomplete``."""
    from lora_router.simulator.algorithms import known_algorithms

    yield from (name for name in known_algorithms() if name.startswith(incomplete))


def simulate(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SCENARIO...",
            help="Scenarios that come with lora-router (see --list), or YAML files.",
            show_default=False,
            autocompletion=complete_scenario,
        ),
    ] = None,
    list_scenarios: Annotated[
        bool,
        typer.Option(
            "--list",
            help="Print the scenarios and the published policies that come with lora-router.",
        ),
    ] = False,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Algorithm to try: an installed one, or one of the published policies that "
            "--list prints. Can be repeated.",
            show_default="all installed",
            autocompletion=complete_algorithm,
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            metavar="NUMBER",
            parser=whole(),
            help="Seed of a trace. Can be repeated; the result is then the median.",
            show_default="1",
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=number(),
            help="Length of a trace.",
            show_default="the scenario's, or 300",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            parser=number(),
            help="Requests per second.",
            show_default="the scenario's",
        ),
    ] = None,
    load: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            parser=number(),
            help="Requests per second, as a share of the scenario's capacity: 0.85 is 85 % of it.",
            show_default=False,
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Recorded requests to replay: CSV with the columns timestamp, model, "
            "prompt_tokens, output_tokens, or a trace of Mooncake, Azure or BurstGPT.",
            show_default=False,
        ),
    ] = None,
    trace_format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Its format: csv, mooncake, azure or burstgpt.",
            show_default="its first line tells",
        ),
    ] = None,
    sessions_adapters: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            parser=whole(),
            help="Adapters that are drawn for the sessions of a trace that names none.",
            show_default="the scenario's",
        ),
    ] = None,
    sessions_zipf: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            parser=number(),
            help="Popularity of the nth of them: n to the power of minus this.",
            show_default="the scenario's",
        ),
    ] = None,
    sessions_base: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            parser=number(),
            help="Share of these sessions that ask for the base model.",
            show_default="the scenario's",
        ),
    ] = None,
    routers: Annotated[
        int, typer.Option(metavar="NUMBER", help="Routers that share the fleet.", parser=whole())
    ] = 1,
    peers: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="What the routers know of each other: nothing, scrapes (of pods), or peering "
            "(reports of the other routers too).",
        ),
    ] = "scrapes",
    overload: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="What routers do with a request that would wait for too long: shed (refuse it) or "
            "hold (let it wait).",
            show_default="the scenario's, or shed",
        ),
    ] = None,
    max_wait: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=number(),
            help="With shed: the longest expected wait of a request that is held.",
            show_default="the scenario's, or 2",
        ),
    ] = None,
    peer_delay: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            parser=number(),
            help="Time that a message between routers takes, in milliseconds.",
            show_default="the scenario's, or 5",
        ),
    ] = None,
    peer_jitter: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            parser=number(),
            help="The most that is added to it at random.",
            show_default="the scenario's, or 5",
        ),
    ] = None,
    peer_loss: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            parser=number(),
            help="Share of the messages between routers that never arrive.",
            show_default="the scenario's, or 0",
        ),
    ] = None,
    peer_late: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            parser=number(),
            help="Share of the packets between routers that TCP has to send again.",
            show_default="the scenario's, or 0",
        ),
    ] = None,
    partition: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=number(),
            help="How long no message passes between routers, from the middle of the trace.",
            show_default="no partition",
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            metavar="NUMBER",
            parser=number(),
            help="Threshold of the algorithm lora-affinity.",
        ),
    ] = 0.999,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory to write plots to, as SVG. Needs the extra 'plot'.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run algorithms on a simulated fleet, with the same traces for all, in simulated time."""
    from lora_router.routing.registry import UnknownAlgorithmError, installed
    from lora_router.simulator.command import SimulateOptions, list_command, simulate_command
    from lora_router.simulator.knowledge import read_knowledge
    from lora_router.simulator.plots import PlotError
    from lora_router.simulator.router_options import RouterOptions

    if list_scenarios:
        list_command(as_json=as_json)
        return
    if not scenarios:
        fail("name a scenario or a YAML file; --list prints the scenarios", status=2)
    chosen = tuple(dict.fromkeys(algorithm or sorted(installed())))
    try:
        simulate_command(
            SimulateOptions(
                scenarios=tuple(scenarios),
                algorithms=chosen,
                seeds=tuple(dict.fromkeys(seed or (1,))),
                seconds=duration,
                rate=rate,
                load=load,
                trace=trace,
                trace_format=trace_format,
                sessions_adapters=sessions_adapters,
                sessions_zipf=sessions_zipf,
                sessions_base_share=sessions_base,
                routers=RouterOptions(
                    routers=routers,
                    knowledge=read_knowledge(peers),
                    overload=overload,
                    max_expected_wait_seconds=max_wait,
                    delay_ms=peer_delay,
                    jitter_ms=peer_jitter,
                    loss=peer_loss,
                    late=peer_late,
                    partition_seconds=partition,
                ),
                lora_affinity_threshold=threshold,
                as_json=as_json,
                plot=plot,
            )
        )
    except PlotError as error:
        fail(str(error), status=1)
    except (ValueError, UnknownAlgorithmError) as error:
        fail(str(error), status=2)
