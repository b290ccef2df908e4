"""The parts for ModelAdapters, as the settings make them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.loader import Loader
from lora_router.adapters.sources import AllowedSources
from lora_router.config.settings import Settings
from lora_router.fleet.fleet import Fleet
from lora_router.kubernetes_assembly import ModelAdapterParts, _in_use, make_model_adapters
from lora_router.supervision import Supervisor

SQL = DeclaredAdapter("sql", "base", "org/sql", origin="model-adapter ml/sql")


def make(loader: Any) -> ModelAdapterParts:
    settings = Settings(model_adapters=True, adapter_sources=["org"], lease_name="mine")
    allowed = AllowedSources(settings.adapter_sources)

    async def declare(_adapters: Sequence[DeclaredAdapter]) -> None:
        """Use none."""

    return make_model_adapters(
        settings, Declarations(), declare, allowed, cast("Loader", loader), Supervisor()
    )


def test_the_status_is_that_of_what_is_declared_in_the_end() -> None:
    declarations = Declarations()
    assert _in_use(declarations, SQL) is None
    declarations.replace("kubernetes", [SQL])
    assert _in_use(declarations, SQL) == SQL
    declarations.replace("file", [DeclaredAdapter("other", "base", "/a", aliases=("sql",))])
    assert _in_use(declarations, SQL) == "'sql' is declared already by file as 'other'"


async def test_statuses_are_written_by_the_router_that_loads_once_it_has_a_plan() -> None:
    failures = SimpleNamespace(of_adapter=lambda _: {})
    loader = SimpleNamespace(
        fleet=Fleet(), plan=SimpleNamespace(by_name={}), failures=failures, pods={}, loads=False
    )
    parts = make(loader)
    may_write: Callable[[], bool] = parts.writer._may_write
    assert not may_write()
    loader.loads = True
    assert not may_write()
    loader.plan = SimpleNamespace(by_name={})
    assert may_write()
    assert parts.status() == {"model_adapters": {"resources": 0}}


def test_model_adapters_are_for_pods_of_kubernetes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model_adapters and endpoints: set one of them"):
        Settings(model_adapters=True, adapter_sources=["org"], endpoints=tmp_path / "pods.yaml")
