"""Scenarios: a fleet and what is asked of it, from a YAML file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lora_router.simulator.engine import EngineOptions
from lora_router.simulator.fleet_simulation import FleetOptions, Outage
from lora_router.simulator.trace import Crowd, Workload

Share = Annotated[float, Field(ge=0, le=1)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]


class ScenarioError(ValueError):
    """A scenario cannot be used; the message names the file, the key and what is wrong."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CrowdFile(_Model):
    """``crowd``: many requests for an adapter that nobody asked for before."""

    at: Share
    """When it begins, as a share of the duration."""
    lasts: Share
    """How long, as a share of the duration."""
    share: Share
    """Its share of the requests in that time."""


class OutageFile(_Model):
    """One of ``outages``: a pod that goes and comes back."""

    pod: Annotated[int, Field(ge=0)]
    at: Share
    """When it goes, as a share of the duration."""
    lasts: Share
    """How long, as a share of the duration."""
    sudden: bool = False
    """Whether what runs on it is lost, or may end."""


class ScenarioFile(_Model):
    """The keys of a scenario."""

    about: str
    """One line for people."""
    pods: Annotated[int, Field(ge=1, le=10_000)]
    slots: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    """Slots of the pods, in turn: ``[4]`` for all alike, ``[2, 8]`` for every other."""
    adapters: Annotated[int, Field(ge=1, le=100_000)]
    rate: Annotated[float, Field(gt=0, le=1e6)]
    """Requests in a second."""
    zipf: Annotated[float, Field(ge=0, le=5)] = 0.0
    base_share: Share = 0.0
    prompt_tokens: tuple[Tokens, Tokens] = (50, 450)
    output_tokens: tuple[Tokens, Tokens] = (50, 250)
    shuffle_seconds: Annotated[float, Field(gt=0)] | None = None
    burstiness: Annotated[float, Field(ge=1, le=100)] = 1.0
    crowd: CrowdFile | None = None
    outages: tuple[OutageFile, ...] = ()
    max_cpu_loras: Annotated[int, Field(ge=1)] = 64
    kv_cache_tokens: Annotated[int, Field(ge=1)] = 200_000
    loads_block: bool = True
    """Whether loading an adapter stalls the batch."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ScenarioFile":
        for name in ("prompt_tokens", "output_tokens"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name}: the first must not be above the second")
        for outage in self.outages:
            if outage.pod >= self.pods:
                raise ValueError(f"outages: there is no pod {outage.pod}")
        if self.max_cpu_loras < max(self.slots):
            raise ValueError("max_cpu_loras must be at least as many as a pod's slots")
        return self


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fleet and what is asked of it."""

    name: str
    about: str
    rate: float
    workload: Workload
    file: ScenarioFile

    def fleet(self, seconds: float, routers: int = 1) -> FleetOptions:
        """Return the fleet of a run of this length."""
        file = self.file
        engines = tuple(
            EngineOptions(
                max_loras=file.slots[number % len(file.slots)],
                max_cpu_loras=file.max_cpu_loras,
                kv_cache_tokens=file.kv_cache_tokens,
                loads_block=file.loads_block,
            )
            for number in range(file.pods)
        )
        outages = tuple(
            Outage(each.pod, each.at * seconds, each.lasts * seconds, each.sudden)
            for each in file.outages
        )
        return FleetOptions(engines, self.workload.adapter_names, routers=routers, outages=outages)


def read_scenario(path: Path) -> Scenario:
    """Read a scenario.

    Raises:
        ScenarioError: The file cannot be read or is no scenario.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ScenarioError(f"{path}: cannot be read: {why}") from None
    except yaml.YAMLError as error:
        raise ScenarioError(f"{path}: is not YAML: {error}") from None
    try:
        file = ScenarioFile.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ScenarioError(f"{path}: {key + ': ' if key else ''}{first['msg']}") from None
    crowd = None if file.crowd is None else Crowd(**file.crowd.model_dump())
    workload = Workload(
        adapters=file.adapters,
        zipf=file.zipf,
        base_share=file.base_share,
        prompt_tokens=file.prompt_tokens,
        output_tokens=file.output_tokens,
        shuffle_seconds=file.shuffle_seconds,
        burstiness=file.burstiness,
        crowd=crowd,
    )
    return Scenario(path.stem, file.about, file.rate, workload, file)
