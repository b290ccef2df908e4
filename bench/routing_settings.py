"""The settings of the routing tables: a scenario, its traffic at a load, and the runs on it."""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from bench.highest_rate import maker
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.recorded.formats import read_recording
from lora_router.simulator.recorded.recording import Recording
from lora_router.simulator.recorded.session_adapters import SessionAdapters
from lora_router.simulator.scenario import Scenario, find_scenario
from lora_router.simulator.summary import Summary, summarise
from lora_router.simulator.traffic import GeneratedTraffic, Traffic, replayed


@dataclass(frozen=True, slots=True)
class Setting:
    """A scenario, and possibly recorded requests in place of generated ones."""

    scenario: Scenario
    trace: Path | None = None
    aside: bool = False
    """Whether a load delays only the requests of its adapter, and does not stall the batch."""
    seconds: float | None = None
    """Length of generated traces, or of the part of a recorded one. ``None``: the scenario's, or
    all of it."""

    @property
    def name(self) -> str:
        """The name in the tables."""
        trace = None if self.scenario.keys.recorded else self.trace
        recorded = "" if trace is None else f", {trace.stem}"
        return self.scenario.name + recorded + (", loads aside" if self.aside else "")

    @property
    def content(self) -> str:
        """A digest of everything that the setting says."""
        digest = hashlib.sha256(repr((self.scenario.keys, self.aside, self.seconds)).encode())
        if self.trace is not None:
            digest.update(_digest_of(self.trace).encode())
        return digest.hexdigest()[:12]

    def played(self) -> Scenario:
        """Return the scenario as it is run."""
        if not self.aside:
            return self.scenario
        return replace(self.scenario, keys=replace(self.scenario.keys, loads_block=False))

    def traffic(self, rate: float) -> Traffic:
        """Return the requests at a rate, in requests per second.

        Raises:
            TraceError: The recording cannot be used.
        """
        if self.trace is None:
            seconds = self.seconds or self.scenario.seconds
            return GeneratedTraffic(self.scenario.workload, rate, seconds)
        keys = self.scenario.keys
        sessions = SessionAdapters(keys.adapters, keys.zipf, keys.base_share)
        return replayed(_recording(self.trace), sessions, rate=rate, seconds=self.seconds)


def setting_of(
    name_or_path: str, *, trace: Path | None, aside: bool, seconds: float | None
) -> Setting:
    """Return the setting of a scenario.

    Raises:
        ScenarioError: There is no such scenario, or it needs a file of recorded requests.
    """
    scenario = find_scenario(name_or_path)
    if trace is None:
        scenario.check_is_generated()
    return Setting(scenario, trace, aside, seconds)


def play(setting: Setting, rate: float, policy: str, seed: int) -> Summary:
    """Return the figures of one run at a rate, in requests per second.

    Raises:
        UnknownAlgorithmError: There is no such policy.
    """
    scenario, traffic = setting.played(), setting.traffic(rate)
    fleet = scenario.fleet(traffic.seconds, adapters=traffic.adapters)
    run = FleetSimulation(fleet, maker(policy, fleet), seed).run(traffic.requests(seed))
    return summarise(run, traffic.seconds, scenario.goodput)


@lru_cache(maxsize=4)
def _recording(path: Path) -> Recording:
    return read_recording(path)


@lru_cache(maxsize=16)
def _digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
