"""``lora-router demo``."""

from typing import Annotated

import typer

from lora_router.cli.options import AsJson, complete_algorithm


def demo(
    duration: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Length of the load for each algorithm.", min=1.0),
    ] = 15.0,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Algorithm to try. Can be repeated.",
            show_default="random, least-request, lora-affinity, lora-placement",
            autocompletion=complete_algorithm,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="NUMBER", help="Seed of the load, which is the same for all.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Run a real Envoy and simulated vLLM pods, with the same load for each algorithm."""
    from lora_router.demo.run import DEFAULT_ALGORITHMS, DemoOptions, demo_command

    options = DemoOptions(
        duration=duration,
        algorithms=tuple(dict.fromkeys(algorithm or DEFAULT_ALGORITHMS)),
        seed=seed,
        as_json=as_json,
    )
    raise typer.Exit(demo_command(options))
