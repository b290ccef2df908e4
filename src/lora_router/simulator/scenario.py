"""Scenarios: a fleet and its traffic, from a YAML file of this package or of the user."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path

from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.fleet_options import (
    FleetOptions,
    Outage,
    RouterEvent,
    RouterTrouble,
)
from lora_router.simulator.goodput import Goodput
from lora_router.simulator.key_kinds import WrongValueError
from lora_router.simulator.key_records import Record
from lora_router.simulator.network import WireOptions
from lora_router.simulator.recorded.recording import Recording
from lora_router.simulator.scenario_keys import ALL, NONE, ScenarioKeys, of_pod
from lora_router.simulator.trace import Workload
from lora_router.simulator.traffic_keys import prompt_lengths
from lora_router.yaml_document import YamlDocumentError, parse_yaml, read_file

_SHIPPED = files("lora_router.simulator") / "scenarios"
_SUFFIX = ".yaml"
_LARGEST_FILE = 1 << 20
"""Bytes. A list of preloaded adapters may be long."""
_UNLIMITED = 1 << 62
"""Adapters in host memory: more than any trace names."""


class ScenarioError(ValueError):
    """A scenario cannot be used. The message names the file, key, value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fleet and its traffic."""

    name: str
    keys: ScenarioKeys
    where: str
    """For errors: the file; of a shipped one, the name."""
    file: str

    @property
    def about(self) -> str:
        """One line that describes it."""
        return self.keys.about

    @property
    def rate(self) -> float:
        """Requests in a second."""
        return self.keys.rate

    @property
    def seconds(self) -> float:
        """Duration, unless the command names another."""
        return self.keys.seconds

    @property
    def goodput(self) -> Goodput:
        """Limits of a good request."""
        return self.keys.goodput.limits()

    def rate_at(self, load: float) -> float:
        """Return a share of what the best algorithm carries, in requests per second.

        Raises:
            ScenarioError: The scenario does not say what that is.
        """
        if self.keys.capacity is None:
            raise ScenarioError(
                f"{self.where}: capacity: is required for --load, which is a share of it"
            )
        return load * self.keys.capacity

    def check_is_generated(self) -> None:
        """Check that the requests do not have to be read from a file.

        Raises:
            ScenarioError: They do.
        """
        if self.keys.recorded is not None:
            raise ScenarioError(
                f"{self.where}: recorded: its requests are in a file of the format "
                f"{self.keys.recorded}, which --trace must name"
            )

    def check_fits(self, recording: Recording) -> None:
        """Check that recorded requests are those that the scenario is for.

        Raises:
            ScenarioError: The scenario is for requests of another format. Its capacity is not that
                of these.
        """
        wanted = self.keys.recorded
        if wanted is not None and recording.format != wanted:
            raise ScenarioError(
                f"{self.where}: recorded: it is for requests of the format {wanted}, and "
                f"{recording.path} has the format {recording.format}"
            )

    @property
    def workload(self) -> Workload:
        """The traffic, without its rate."""
        keys = self.keys
        return Workload(
            adapters=keys.adapters,
            zipf=keys.zipf,
            base_share=keys.base_share,
            prompt_tokens=prompt_lengths(keys.prompt_tokens, keys.long_prompts),
            output_tokens=keys.output_tokens,
            sessions=None if keys.sessions is None else keys.sessions.sessions(),
            shuffle_seconds=keys.shuffle_seconds,
            burstiness=keys.burstiness,
            crowd=None if keys.crowd is None else keys.crowd.crowd(),
            bursts=None if keys.bursts is None else keys.bursts.bursts(),
            load=tuple(each.point() for each in keys.load),
        )

    def fleet(
        self, seconds: float, routers: int = 1, adapters: Sequence[str] | None = None
    ) -> FleetOptions:
        """Return the fleet of a run.

        Args:
            seconds: Length of the trace. Outages are shares of it.
            routers: Routers in front of the fleet.
            adapters: The adapters of a replayed trace, in place of the scenario's own.

        Raises:
            ScenarioError: ``preload`` names an adapter that the fleet does not serve, or
                ``router_events`` a router that it does not have.
        """
        keys = self.keys
        for number, event in enumerate(keys.router_events):
            if event.router >= routers:
                raise ScenarioError(
                    f"{self.where}: router_events[{number}].router: must be below the number of "
                    f"routers (--routers {routers}), not {event.router}"
                )
        served = self.workload.adapter_names if adapters is None else tuple(adapters)
        return FleetOptions(
            tuple(self._engine(pod) for pod in range(keys.pods)),
            served,
            routers=routers,
            host_memory_told=keys.host_memory_told,
            preloaded=self._preloaded(served),
            outages=tuple(
                Outage(each.pod, each.at * seconds, each.lasts * seconds, each.sudden)
                for each in keys.outages
            ),
            strangers=keys.strangers,
            lost_scrapes=keys.lost_scrapes,
            wire=WireOptions() if keys.wire is None else keys.wire.options(),
            router_events=tuple(
                RouterEvent(RouterTrouble(each.event), each.router, each.at * seconds, each.seconds)
                for each in keys.router_events
            ),
            clock_rates=keys.clock_rates,
            max_hold_seconds=keys.router.max_hold_seconds,
            overload=keys.router.options(),
            autoscaler=None if keys.autoscaler is None else keys.autoscaler.options(),
            loader=None if keys.loader is None else keys.loader.options(),
        )

    def _engine(self, pod: int) -> EngineOptions:
        keys = self.keys
        room = keys.host_room(pod)
        speed = of_pod(keys.speed, pod)
        return EngineOptions(
            max_loras=of_pod(keys.slots, pod),
            max_cpu_loras=_UNLIMITED if room is None else room,
            max_num_seqs=of_pod(keys.max_num_seqs, pod),
            step_seconds=of_pod(keys.step_ms, pod) / 1000 / speed,
            step_seconds_per_request=of_pod(keys.step_ms_per_request, pod) / 1000 / speed,
            prefill_seconds_per_token=1 / (of_pod(keys.prefill_tokens_per_second, pod) * speed),
            host_load_seconds=of_pod(keys.host_load_ms, pod) / 1000,
            disk_load_seconds=of_pod(keys.disk_load_ms, pod) / 1000,
            loads_block=keys.loads_block,
            kv_cache_tokens=of_pod(keys.kv_cache_tokens, pod),
            block_tokens=of_pod(keys.block_tokens, pod),
            prefix_caching=keys.prefix_caching,
            chunk_tokens=None if keys.chunk_tokens is None else of_pod(keys.chunk_tokens, pod),
            preemption=keys.preemption,
        )

    def _preloaded(self, served: tuple[str, ...]) -> tuple[str, ...]:
        preload = self.keys.preload
        if isinstance(preload, str):
            return {ALL: served, NONE: ()}[preload]
        if isinstance(preload, int):
            return served[:preload]
        known = frozenset(served)
        for name in preload:
            if name not in known:
                these = f"{len(served)}, {served[0]} to {served[-1]}" if served else "none"
                raise ScenarioError(
                    f"{self.where}: preload: the fleet serves no adapter {name!r}; "
                    f"it serves {these}"
                )
        return preload


def shipped_scenarios() -> tuple[str, ...]:
    """Return the names of the scenarios in this package, in alphabetical order."""
    names = (each.name for each in _SHIPPED.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


def scenarios_of_fixed_fleets() -> tuple[str, ...]:
    """Return the names of those scenarios whose number of pods is fixed.

    Algorithms are compared on them. With an autoscaler, an algorithm that needs more pods gets
    more.
    """
    return tuple(
        name for name in shipped_scenarios() if shipped_scenario(name).keys.autoscaler is None
    )


def find_scenario(name_or_path: str) -> Scenario:
    """Return a scenario of this package by its name, or read a file.

    A name has neither a slash nor ``.yaml`` or ``.yml`` at its end.

    Raises:
        ScenarioError: There is no scenario of this name, or the file is not a scenario.
    """
    if "/" in name_or_path or name_or_path.endswith((_SUFFIX, ".yml")):
        return read_scenario(Path(name_or_path))
    known = shipped_scenarios()
    if name_or_path not in known:
        near = get_close_matches(name_or_path, known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ScenarioError(
            f"there is no scenario {name_or_path!r}.{hint} The scenarios are {', '.join(known)}; "
            f"a file needs a slash or {_SUFFIX} in its name"
        )
    return shipped_scenario(name_or_path)


def shipped_scenario(name: str) -> Scenario:
    """Return a scenario of this package."""
    return _read(_SHIPPED / f"{name}{_SUFFIX}", name, name)


def read_scenario(path: Path) -> Scenario:
    """Read a scenario from a file.

    Raises:
        ScenarioError: The file cannot be read or is not a scenario.
    """
    return _read(path, path.stem, str(path))


def _read(file: Path | Traversable, name: str, where: str) -> Scenario:
    try:
        with as_file(file) as path:
            document = parse_yaml(read_file(path, max_bytes=_LARGEST_FILE))
        keys = Record(ScenarioKeys).read(document)
    except YamlDocumentError as error:
        raise ScenarioError(f"{where}: {error}") from None
    except WrongValueError as error:
        key = f"{error.key}: " if error.key else ""
        raise ScenarioError(f"{where}: {key}{error}") from None
    return Scenario(name, keys, where, str(file))
