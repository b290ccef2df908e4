"""Each alert fires on what it is for, and on nothing else (``promtool test rules``)."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus.alert_cases import CASES, Case, Series, expanded
from tests.prometheus.expressions import GRAFANA, alerts, rules
from tests.prometheus.server import program


def firing(*names: str) -> list[dict[str, object]]:
    """The alerts that fire, as promtool expects them, each once for all its labels."""
    return [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)]


def group(name: str, series: Series, *expected: str, at: str = "40m") -> dict[str, Any]:
    return {
        "name": name,
        "interval": "1m",
        "input_series": [
            {"series": each, "values": values} for each, values in expanded(series).items()
        ],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": at,
                "exp_samples": firing(*expected),
            }
        ],
    }


def run(folder: Path, *groups: dict[str, Any]) -> None:
    document = {
        "rule_files": [str(GRAFANA / "alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": list(groups),
    }
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [program("promtool"), "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid() -> None:
    command = [program("promtool"), "check", "rules", str(GRAFANA / "alerts.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_there_is_a_case_for_each_alert() -> None:
    assert list(dict.fromkeys(each.alert for each in CASES)) == [each.place for each in alerts()]


def test_no_alert_fires_for_healthy_routers(tmp_path: Path) -> None:
    run(tmp_path, group("healthy", {}))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_alone_and_stays_quiet_below_its_threshold(
    case: Case, tmp_path: Path
) -> None:
    run(
        tmp_path,
        group("fires", case.fires, case.alert, at=case.at),
        group("quiet", case.quiet, at=case.at),
    )
