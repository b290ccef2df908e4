"""The command line, as a user types it."""

import importlib.abc
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from lora_router import __version__, terminal
from lora_router.cli import main
from lora_router.cli.commands import app
from lora_router.cli.serve import LogFormat, LogLevel
from lora_router.config.settings import Settings, allowed
from lora_router.routing.registry import installed
from tests.parameters import mostly_slow

COMMANDS = sorted(typer.main.get_group(app).commands)
PAGE = Path(__file__).parents[1] / "data/vllm-0.32.0/06_three_lora_one_waits_t1s.prom"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("AIBRIX_LORA_AFFINITY_THRESHOLD", "ROUTING_ALGORITHM"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def test_the_version() -> None:
    assert run("--version").stdout == f"lora-router {__version__}\n"


@pytest.mark.parametrize("columns", mostly_slow([60, 80, 120]))
@pytest.mark.parametrize("command", mostly_slow(COMMANDS))
def test_help_cuts_no_name(command: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", columns)

    result = run(command, "--help")

    assert result.exit_code == 0
    assert "…" not in result.stdout
    assert all(len(line) <= columns for line in result.stdout.splitlines())


@pytest.mark.slow
def test_help_has_a_short_option_everywhere() -> None:
    assert "Commands" in run("-h").stdout
    assert run("serve", "-h").stdout == run("serve", "--help").stdout != ""


def test_scrape_prints_one_json_object_for_each_source() -> None:
    result = run("scrape", str(PAGE), "-", "--json", stdin=PAGE.read_bytes())

    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert result.exit_code == 0
    assert list(first)[:6] == ["source", "running", "waiting", "kv_cache_usage", "deferred", "lora"]
    assert list(first)[6:] == ["started_at", "engine"]
    assert (first["source"], second["source"]) == (str(PAGE), "-")
    assert first["lora"]["active"] == second["lora"]["active"] == ["a1", "a2"]


def test_scrape_prints_a_table_for_people() -> None:
    assert "a1, a2" in run("scrape", str(PAGE)).stdout


def test_scrape_reports_what_it_cannot_read_and_prints_the_rest() -> None:
    result = run("scrape", "/nope", str(PAGE), "--json")

    assert result.exit_code == 1
    assert "lora-router: /nope: cannot be read: No such file or directory" in result.stderr
    assert json.loads(result.stdout)["running"] == 2
    assert run("scrape", "/nope").stdout == ""


def test_config_prints_each_value_and_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "router.yaml").write_text("grpc_port: 1\nadmin_port: 2\nlog_level: debug\n")
    monkeypatch.setenv("LORA_ROUTER_ADMIN_PORT", "3")
    monkeypatch.setenv("AIBRIX_LORA_AFFINITY_THRESHOLD", "0.5")
    monkeypatch.setenv("LORA_ROUTER_POD_API_KEY", "sesame")
    monkeypatch.setenv("LORA_ROUTER_ADMIN_PRT", "4")

    result = run(
        "config", "-c", "router.yaml", "--json", "--set", "log_level=error", "--algorithm", "random"
    )

    shown = json.loads(result.stdout)
    assert shown["grpc_port"] == {"value": 1, "from": "file router.yaml"}
    assert shown["admin_port"] == {"value": 3, "from": "env LORA_ROUTER_ADMIN_PORT"}
    assert shown["lora_affinity_threshold"] == {
        "value": 0.5,
        "from": "env AIBRIX_LORA_AFFINITY_THRESHOLD",
    }
    assert shown["log_level"] == {"value": "error", "from": "flag --set log_level"}
    assert shown["algorithm"] == {"value": "random", "from": "flag --algorithm"}
    assert shown["max_body_bytes"] == {"value": 33554432, "from": "default"}
    assert "sesame" not in result.stdout
    assert "LORA_ROUTER_ADMIN_PRT: unknown setting; did you mean 'admin_port'" in (result.stderr)


@pytest.mark.slow
def test_config_prints_a_line_for_each_setting_into_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    result = run("config", "--set", "model_header=x-model")

    assert result.exit_code == 0
    heading, *lines = result.stdout.splitlines()
    assert heading.split() == ["setting", "value", "from", "meaning"]
    assert [line.split()[0] for line in lines] == list(Settings.model_fields)
    assert all(
        str(field.description) in line
        for line, field in zip(lines, Settings.model_fields.values(), strict=True)
    )
    (header,) = (line for line in lines if line.startswith("model_header"))
    assert header.split()[1:5] == ["x-model", "flag", "--set", "model_header"]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("command", ["config", "scrape", "simulate"])
def test_no_terminal_is_too_narrow_for_a_whole_name(
    command: str, columns: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(terminal, "is_terminal", lambda _console: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    (tmp_path / "small.yaml").write_text("about: s\npods: 2\nslots: [2]\nadapters: 4\nrate: 4\n")
    page = tmp_path / "page-of-the-first-vllm-pod-in-the-cluster.prom"
    page.write_bytes(PAGE.read_bytes())
    arguments = {
        "config": ("config",),
        "scrape": ("scrape", page.name),
        "simulate": ("simulate", "small.yaml", "--duration", "5"),
    }
    names = {
        "config": set(Settings.model_fields),
        "scrape": {page.name, "a1,", "a2"},
        "simulate": {*installed(), "evicted", "p99"},
    }

    result = run(*arguments[command])

    assert result.exit_code == 0
    assert names[command] <= set(result.stdout.split())
    assert all(len(line.rstrip()) <= columns for line in result.stdout.splitlines())
    assert "…" not in result.stdout


@pytest.mark.parametrize("command", ["config", "serve", "envoy-config"])
def test_wrong_settings_stop_every_command_with_a_line_for_each(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIBRIX_LORA_AFFINITY_THRESHOLD", "1.5")

    result = run(command, "--set", "grpc_port=x", "--set", "log_level=loud")

    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert "lora-router: AIBRIX_LORA_AFFINITY_THRESHOLD=1.5: must be a number between 0 and 1" in (
        lines
    )
    assert "lora-router: --set grpc_port=x: must be a port, from 0 (any) to 65535" in lines
    assert "lora-router: --set log_level=loud: must be one of debug, info, warning, error" in lines
    assert len(lines) == 3


def test_a_flag_without_a_value_is_explained() -> None:
    result = run("config", "--set", "grpc_port")

    assert (result.exit_code, result.stderr) == (
        2,
        "lora-router: --set grpc_port: must be NAME=VALUE\n",
    )


def test_a_config_file_that_is_not_there_is_named() -> None:
    result = run("config", "-c", "missing.yaml")

    assert result.exit_code == 2
    assert "missing.yaml: cannot be read: No such file or directory" in result.stderr


@pytest.mark.parametrize("option", ["--model", "--request"])
def test_explain_needs_a_name(option: str) -> None:
    result = run("explain", option, "")

    assert (result.exit_code, result.stderr) == (2, f"lora-router: {option}: must not be empty\n")


@pytest.mark.parametrize("option", ["--model", "--request", "--filter", "--strategy"])
def test_explain_takes_no_text_that_is_not_utf8(option: str) -> None:
    others = () if option in {"--model", "--request"} else ("--model", "sql")

    result = run("explain", option, "\udcff", *others)  # As Python reads the byte FF.

    assert (result.exit_code, result.stderr) == (
        2,
        f"lora-router: {option}: must be UTF-8, not '\\udcff'\n",
    )


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "1e300"])
def test_a_demo_ends(seconds: str) -> None:
    result = run("demo", "--duration", seconds)

    assert result.exit_code == 2
    assert "--duration" in result.stderr


@pytest.mark.slow
def test_envoy_config_prints_yaml_or_json() -> None:
    settings = ("--set", "target_pod_header=x-pod", "--set", "envoy_pods=original-dst")
    text = yaml.safe_load(run("envoy-config", *settings).stdout)
    data = json.loads(run("envoy-config", "--json", *settings).stdout)

    assert text == data
    (_, pods) = text["static_resources"]["clusters"]
    assert pods["original_dst_lb_config"] == {"use_http_header": True, "http_header_name": "x-pod"}


@pytest.mark.slow
def test_envoy_config_writes_a_file_where_there_is_no_shell(tmp_path: Path) -> None:
    printed = run("envoy-config").stdout

    result = run("envoy-config", "--output", "envoy.yaml")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "envoy.yaml").read_text() == printed

    result = run("envoy-config", "--output", "/nowhere/envoy.yaml")
    assert result.exit_code == 1
    assert "/nowhere/envoy.yaml: cannot be written: No such file or directory" in result.stderr


@pytest.mark.slow
def test_serve_without_pods_says_how_to_name_them() -> None:
    result = run("serve", "--set", "admin_port=0", "--set", "grpc_port=0")

    assert result.exit_code == 2
    assert "set 'endpoints' (LORA_ROUTER_ENDPOINTS, --endpoints)" in result.stderr


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings with which ``serve`` would have started; it starts nothing."""
    settings: list[Settings] = []

    async def serve(given: Settings, _load: object) -> None:
        settings.append(given)

    monkeypatch.setattr("lora_router.serving.serve", serve)
    monkeypatch.setattr("lora_router.telemetry.logs.configure_logging", lambda *_: None)
    return settings


@pytest.mark.slow
def test_serve_has_flags_for_its_logs(served: list[Settings]) -> None:
    assert run("serve", "--log-level", "warning", "--log-format", "json").exit_code == 0
    assert run("serve", "-v").exit_code == 0
    assert run("serve", "--verbose", "--set", "log_format=json").exit_code == 0

    assert [(each.log_level, each.log_format) for each in served] == [
        ("warning", "json"),
        ("debug", "text"),
        ("debug", "json"),
    ]


def test_serve_refuses_two_log_levels_and_unknown_ones(served: list[Settings]) -> None:
    result = run("serve", "-v", "--log-level", "error")
    assert (result.exit_code, result.stderr) == (
        2,
        "lora-router: --verbose and --log-level exclude each other\n",
    )
    result = run("serve", "--log-level", "loud")
    assert result.exit_code == 2
    assert "'loud' is not one of" in result.stderr
    assert served == []


def test_the_flags_for_logs_allow_what_the_settings_allow() -> None:
    assert f"one of {', '.join(LogLevel)}" == allowed("log_level")
    assert f"one of {', '.join(LogFormat)}" == allowed("log_format")


@pytest.mark.parametrize("command", ["serve", "config", "envoy-config"])
def test_an_error_names_the_flag_as_it_was_typed(
    command: str, served: list[Settings], tmp_path: Path
) -> None:
    result = run(command, "--set", "log_levle=debug")
    assert "lora-router: --set log_levle: unknown setting; did you mean" in result.stderr
    assert (result.exit_code, served) == (2, [])

    if command != "envoy-config":
        result = run(command, "--algorithm", "best")
        assert "lora-router: --algorithm best: must be one of" in result.stderr


@pytest.mark.slow
def test_serve_refuses_an_option_that_no_algorithm_has() -> None:
    result = run("serve", "--set", "algorithm_options=shuffle_shard_x=2")

    assert result.exit_code == 2
    assert "unknown option 'shuffle_shard_x'; did you mean 'shuffle_shard_k'?" in result.stderr


@pytest.mark.slow
def test_serve_runs_where_the_user_has_no_home() -> None:
    """As in a container whose user is a number: no HOME, and no entry in /etc/passwd."""
    program = (
        "import pwd, sys\n"
        "def nobody(_): raise KeyError('getpwuid(): uid not found')\n"
        "pwd.getpwuid = nobody\n"
        "from lora_router.cli import main\n"
        "main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "serve", "--set", "grpc_port=0", "--set", "admin_port=0"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 2
    assert "set 'endpoints' (LORA_ROUTER_ENDPOINTS, --endpoints)" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_exit_statuses_are_documented() -> None:
    assert "Exit status: 0 success; 1 the command failed; 2" in " ".join(
        run("--help").stdout.split()
    )


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--version"], ["config"], ["config", "--json"], ["--help"]])
def test_a_reader_that_goes_away_is_no_traceback(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "lora_router", *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writing)

    assert (result.returncode, result.stderr) == (1, b"")


FROM_A_TERMINAL = """
import os, signal, sys
# A shell lets what it runs in the background ignore this signal, and the tests with it.
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "lora_router", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["scrape"], ["probe", "--timeout", "30", "--http"]])
def test_ctrl_c_is_no_traceback(arguments: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/readyz"
        with subprocess.Popen(
            [sys.executable, "-c", FROM_A_TERMINAL, *arguments, url], stderr=subprocess.PIPE
        ) as process:
            silent.accept()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)

    assert (process.returncode, stderr) == (130, b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timeout", "nan"], "--timeout nan: must be seconds, above 0 and up to 86400"),
        (["--timeout", "inf"], "--timeout inf: must be seconds, above 0 and up to 86400"),
        (["--timeout", "-1"], "--timeout -1: must be seconds, above 0 and up to 86400"),
        (
            ["--http", "ftp://x"],
            "--http ftp://x: must be http://HOST:PORT/PATH, or https, with a port from 1 to 65535",
        ),
    ],
)
def test_a_probe_that_could_never_end_or_be_sent_is_refused(
    arguments: list[str], message: str
) -> None:
    result = run("probe", *arguments)

    assert (result.exit_code, result.stderr) == (2, f"lora-router: {message}\n")


@pytest.mark.parametrize("interval", ["nan", "inf", "0", "-1"])
def test_top_needs_a_time_between_two_pictures(interval: str) -> None:
    result = run("top", "--interval", interval)

    assert (result.exit_code, result.stderr) == (
        2,
        f"lora-router: --interval {interval}: must be at least 0.2, and at most 3600\n",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_no_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "lora_router", "config"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )

    assert ended.returncode == 1
    assert ended.stderr == "lora-router: cannot write: No space left on device\n"


def test_a_terminal_that_lacks_a_character_gets_the_others() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "lora_router", "config", "--set", "default_model=modèle-漢"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "mod\\xe8le-\\u6f22" in ended.stdout


def test_ctrl_c_while_modules_are_read_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            if name == "lora_router.cli.commands":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "lora_router.cli.commands")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130


@pytest.mark.slow
def test_commands_that_print_no_table_do_not_import_what_prints_tables() -> None:
    program = "import sys, lora_router.cli.commands; sys.exit('rich.console' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


COMPLETION = """
lora-router --install-completion >/dev/null
source ~/.bashrc
complete -p lora-router
typed() {
  COMP_WORDS=(lora-router $1)
  COMP_CWORD=$2
  _lora_router_completion lora-router
  echo "$COMPREPLY"
}
typed 'envoy-' 1
typed 'serve --log-f' 2
typed 'serve --algorithm lora-a' 3
typed 'config --set envoy_listen_h' 3
"""


@pytest.mark.slow
def test_completion_is_installed_and_completes_in_bash(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-c", COMPLETION],
        env={"HOME": str(tmp_path), "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout.splitlines() == [
        "complete -o default -F _lora_router_completion lora-router",
        "envoy-config",
        "--log-format",
        "lora-affinity",
        "envoy_listen_host=",
    ]


@pytest.mark.slow
def test_simulate_prints_figures_of_each_algorithm(tmp_path: Path) -> None:
    scenario = tmp_path / "small.yaml"
    scenario.write_text("about: small\npods: 2\nslots: [2]\nadapters: 4\nrate: 4\n")
    arguments = ("simulate", str(scenario), "--duration", "20", "--algorithm", "lora-affinity")

    shown = run(*arguments)
    assert shown.exit_code == 0
    assert "small: small, 4 requests/s" in shown.stdout
    assert "…" not in shown.stdout, "figures are cut off"
    result = json.loads(run(*arguments, "--json", "--seed", "1", "--seed", "2").stdout)
    found = result["scenarios"]["small"]["lora-affinity"]
    assert found["requests"] > 50
    assert list(found["ttft"]) == ["p50", "p95", "p99"]


@pytest.mark.slow
def test_simulate_says_what_routers_may_know_of_each_other(tmp_path: Path) -> None:
    result = run("simulate", str(tmp_path / "any.yaml"), "--peers", "often")
    assert result.exit_code == 2
    assert "--peers: must be nothing, scrapes (of pods), or peering" in result.stderr
    assert "not 'often'" in result.stderr


@pytest.mark.slow
def test_simulate_replays_a_file(tmp_path: Path) -> None:
    scenario, trace = tmp_path / "small.yaml", tmp_path / "trace.csv"
    scenario.write_text("about: small\npods: 2\nslots: [2]\nadapters: 4\nrate: 4\n")
    rows = [f"{number},sql-{number % 3},10,20" for number in range(30)]
    trace.write_text("\n".join(["timestamp,model,prompt_tokens,output_tokens", *rows]))

    result = run(
        "simulate", str(scenario), "--trace", str(trace), "--algorithm", "random", "--json"
    )
    assert json.loads(result.stdout)["scenarios"]["small"]["random"]["requests"] == 30


@pytest.mark.slow
def test_simulate_draws_plots_and_still_prints_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = tmp_path / "small.yaml"
    scenario.write_text("about: small\npods: 2\nslots: [2]\nadapters: 4\nrate: 4\n")
    arguments = ("simulate", str(scenario), "--duration", "10", "--algorithm", "random", "--json")

    result = run(*arguments, "--plot", "plots")
    assert list(json.loads(result.stdout)["scenarios"]["small"]) == ["random"]
    assert "written: plots/small-ttft.svg" in result.stderr
    assert (tmp_path / "plots" / "small-slots.svg").read_text().startswith("<?xml")

    result = run(*arguments, "--plot", str(scenario))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "small.yaml: cannot be written: File exists" in result.stderr

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run(*arguments, "--plot", "plots")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "lora-router: --plot needs matplotlib, which is not installed: pip install" in (
        result.stderr
    )


@pytest.mark.slow
def test_simulate_names_what_it_cannot_use() -> None:
    assert "missing.yaml: cannot be read" in run("simulate", "missing.yaml").stderr
    result = run("simulate", "missing.yaml", "--algorithm", "best")
    assert result.exit_code == 2
    assert "unknown algorithm 'best'; known are" in result.stderr


@pytest.mark.parametrize(
    "settings", ["endpoints: missing.yaml", "endpoints: pods.yaml\nadapters_file: missing.yaml"]
)
def test_a_file_that_the_settings_name_is_a_part_of_them(tmp_path: Path, settings: str) -> None:
    (tmp_path / "pods.yaml").write_text("pods: []")
    file = tmp_path / "router.yaml"
    file.write_text(f"{settings}\ngrpc_port: 0\nadmin_port: 0\n".replace(": m", f": {tmp_path}/m"))
    file.write_text(file.read_text().replace(": pods", f": {tmp_path}/pods"))

    result = run("serve", "--config", str(file))

    assert result.exit_code == 2
    assert "missing.yaml: cannot be read: No such file or directory" in result.stderr
