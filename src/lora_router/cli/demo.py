"""``lora-router demo``."""

from typing import Annotated

import typer

from lora_router.cli.options import AsJson, complete_algorithm, fail, number, whole

_MOST_ROUTERS = 16
"""The number of routers that a mesh of peers is made for."""
_MOST_SLOTS = 16
_HIGHEST_RATE = 100
"""More than that, with the pods beside it, is too much for two cores."""
_LONGEST_SECONDS = 3600
"""All requests of the load are drawn before the first one is sent."""


def demo(
    duration: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="Length of the load for each algorithm, 1 to 3600.",
            parser=number(1, _LONGEST_SECONDS),
        ),
    ] = 20.0,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Algorithm to try. Can be repeated.",
            show_default="random, least-request, lora-affinity, lora-placement",
            autocompletion=complete_algorithm,
        ),
    ] = None,
    routers: Annotated[
        int,
        typer.Option(
            metavar="NUMBER",
            help=f"Routers behind the Envoy, at most {_MOST_ROUTERS}. Several are peers of each "
            "other.",
            parser=whole(1, _MOST_ROUTERS),
        ),
    ] = 1,
    no_peering: Annotated[
        bool, typer.Option("--no-peering", help="Several routers do not know of each other.")
    ] = False,
    slots: Annotated[
        int,
        typer.Option(
            metavar="NUMBER",
            help="Adapter slots of each pod. With 3 and more, all adapters of the demo find one.",
            parser=whole(1, _MOST_SLOTS),
        ),
    ] = 2,
    rate: Annotated[
        float,
        typer.Option(
            metavar="NUMBER",
            help="Requests per second, 0.1 to 100, without those of chats.",
            parser=number(0.1, _HIGHEST_RATE),
        ),
    ] = 8.0,
    seed: Annotated[
        int,
        typer.Option(
            metavar="NUMBER",
            help="Seed of the load, which is the same for all.",
            parser=whole(),
        ),
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Run a real Envoy and simulated vLLM pods, with the same load for each algorithm."""
    if no_peering and routers == 1:
        fail("--no-peering: needs --routers 2 or more, because one router has no peers", status=2)
    from lora_router.demo.run import DEFAULT_ALGORITHMS, DemoOptions, demo_command

    options = DemoOptions(
        duration=duration,
        algorithms=tuple(dict.fromkeys(algorithm or DEFAULT_ALGORITHMS)),
        seed=seed,
        as_json=as_json,
        routers=routers,
        peering=not no_peering,
        slots=slots,
        rate=rate,
    )
    raise typer.Exit(demo_command(options))
