"""Settings: layers, names, and what is said of wrong ones."""

from pathlib import Path

import pytest

from lora_router.config import kinds
from lora_router.config.cores import cores
from lora_router.config.report import config_json
from lora_router.config.settings import Settings, allowed
from lora_router.config.sources import LoadedSettings, SettingsError, load_settings
from lora_router.routing.registry import installed


def load(
    environ: dict[str, str] | None = None,
    flags: dict[str, object] | None = None,
    file: Path | None = None,
) -> LoadedSettings:
    return load_settings(file=file, environ=environ or {}, flags=flags or {})


def problem(
    environ: dict[str, str] | None = None,
    flags: dict[str, object] | None = None,
    file: Path | None = None,
) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environ, flags, file)
    return str(caught.value)


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "router.yaml"


class TestWorkers:
    def test_auto_is_the_number_of_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kinds, "cores", lambda: 3)
        assert load({"LORA_ROUTER_WORKERS": "auto"}).settings.workers == 3
        monkeypatch.setattr(kinds, "cores", lambda: 256)
        assert load({"LORA_ROUTER_WORKERS": "auto"}).settings.workers == 32

    @pytest.mark.parametrize("value", ["0", "33", "many", "1.5", ""])
    def test_other_values_are_refused(self, value: str) -> None:
        said = problem(flags={"workers": value})
        assert said == f"--workers {value}: must be a whole number from 1 to 32, or auto"

    def test_they_need_a_transport_that_takes_connections(self) -> None:
        said = problem(flags={"workers": "2", "transport": "grpcio"})
        assert said.startswith("workers=2: requires transport=builtin")

    @pytest.mark.parametrize("peers", ["peers", "peer_service", "peering"])
    def test_they_may_have_peers_on_other_hosts(self, peers: str) -> None:
        address = {
            "peers": "10.0.0.1:50052",
            "peer_service": "default/routers",
            "peering": "redis://10.0.0.1",
        }[peers]
        flags: dict[str, object] = {
            "workers": "2",
            peers: address,
            "peer_allow_unauthenticated": "true",
        }
        settings = load(flags=flags).settings
        assert (settings.workers, settings.has_peers) == (2, True)
        assert settings.has_mesh == (peers != "peering")


def test_the_limit_of_a_container_bounds_the_cores(tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    allowed = cores(file)
    for text, expected in (
        ("50000 100000", 1),
        ("max 100000", allowed),
        ("10000000 100000", allowed),
        ("0 0", allowed),
        ("", allowed),
    ):
        file.write_text(text)
        assert cores(file) == expected, text


class TestLayers:
    def test_defaults_need_nothing(self) -> None:
        loaded = load()

        assert loaded.settings.grpc_port == 50052
        assert loaded.settings.lora_affinity_threshold == 0.999
        assert set(loaded.origins.values()) == {"default"}

    def test_the_former_name_of_the_builtin_transport_is_still_accepted(self) -> None:
        assert load({"LORA_ROUTER_TRANSPORT": "lean"}).settings.transport == "builtin"

    def test_a_file_is_weaker_than_the_environment_and_that_than_a_flag(self, write: Path) -> None:
        write.write_text("grpc_port: 1\nadmin_port: 1\nscrape_concurrency: 1\n")
        environ = {"LORA_ROUTER_GRPC_PORT": "2", "LORA_ROUTER_ADMIN_PORT": "2"}

        loaded = load(environ, {"grpc_port": "3"}, write)

        settings = loaded.settings
        assert (settings.grpc_port, settings.admin_port, settings.scrape_concurrency) == (3, 2, 1)
        assert loaded.origins["grpc_port"] == "flag --grpc-port"
        assert loaded.origins["admin_port"] == "env LORA_ROUTER_ADMIN_PORT"
        assert loaded.origins["scrape_concurrency"] == f"file {write}"

    @pytest.mark.parametrize(
        ("variable", "name", "value"),
        [
            ("AIBRIX_LORA_AFFINITY_THRESHOLD", "lora_affinity_threshold", 0.25),
            ("ROUTING_ALGORITHM", "algorithm", "random"),
            ("AIBRIX_POD_METRIC_REFRESH_INTERVAL_MS", "pod_metric_refresh_interval_ms", 50),
            ("AIBRIX_GRPC_MAX_MESSAGE_SIZE_BYTES", "grpc_max_message_size_bytes", 1 << 27),
        ],
    )
    def test_aibrixs_names_are_understood(self, variable: str, name: str, value: object) -> None:
        loaded = load({variable: str(value)})

        assert getattr(loaded.settings, name) == value
        assert loaded.origins[name] == f"env {variable}"

    def test_our_name_is_stronger_than_aibrixs(self) -> None:
        environ = {"ROUTING_ALGORITHM": "random", "LORA_ROUTER_ALGORITHM": "least-request"}

        assert load(environ).settings.algorithm == "least-request"

    def test_an_empty_variable_is_not_set(self) -> None:
        environ = {"LORA_ROUTER_GRPC_PORT": "", "ROUTING_ALGORITHM": ""}

        assert set(load(environ).origins.values()) == {"default"}

    def test_an_empty_file_sets_nothing(self, write: Path) -> None:
        write.write_text("# nothing\n")

        assert load(file=write).settings == Settings()

    def test_a_path_in_a_file_is_meant_from_where_the_file_is(self, write: Path) -> None:
        write.write_text("endpoints: pods.yaml\n")
        assert load(file=write).settings.endpoints == write.parent / "pods.yaml"

        write.write_text("endpoints: /etc/pods.yaml\n")
        assert load(file=write).settings.endpoints == Path("/etc/pods.yaml")
        assert load({}, {"endpoints": "pods.yaml"}).settings.endpoints == Path("pods.yaml")

    def test_addresses_may_be_a_list_as_other_settings(self, write: Path) -> None:
        write.write_text(
            "peers: [10.0.0.1:50052, '[::1]:50052']\npeer_allow_unauthenticated: true\n"
            "envoy_router_address: [a:1]\n"
        )

        settings = load(file=write).settings

        assert (settings.peers, settings.envoy_router_address) == (
            "10.0.0.1:50052,[::1]:50052",
            "a:1",
        )

    def test_lists_and_mappings_can_be_written_as_text(self, write: Path) -> None:
        environ = {
            "LORA_ROUTER_INFERENCE_PATHS": "/a, /b,",
            "LORA_ROUTER_ALGORITHM_OPTIONS": "k=2, mode=fast",
        }
        settings = load(environ).settings
        assert settings.inference_paths == ["/a", "/b"]
        assert settings.algorithm_options == {"k": "2", "mode": "fast"}

        write.write_text("inference_paths: [/a]\nalgorithm_options: {mode: fast}\n")
        settings = load(file=write).settings
        assert settings.inference_paths == ["/a"]
        assert settings.algorithm_options == {"mode": "fast"}

    def test_header_names_are_lower_case(self) -> None:
        assert load({"LORA_ROUTER_MODEL_HEADER": "X-Model"}).settings.model_header == "x-model"


class TestNothingElseIsRead:
    @pytest.fixture(autouse=True)
    def _surroundings(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("LORA_ROUTER_GRPC_PORT", "1")
        monkeypatch.setenv("ROUTING_ALGORITHM", "random")
        (tmp_path / ".env").write_text("LORA_ROUTER_ADMIN_PORT=1\n")
        monkeypatch.chdir(tmp_path)

    def test_settings_hold_their_arguments_and_defaults(self) -> None:
        assert Settings(admin_port=2).model_fields_set == {"admin_port"}
        assert Settings().grpc_port == 50052

    def test_an_empty_environment_sets_nothing(self) -> None:
        loaded = load_settings(file=None, environ={}, flags={})

        assert loaded.settings.model_fields_set == set()
        assert set(loaded.origins.values()) == {"default"}


class TestBodyLimit:
    def test_it_follows_a_lower_message_limit(self) -> None:
        settings = load({"AIBRIX_GRPC_MAX_MESSAGE_SIZE_BYTES": "1000000"}).settings

        assert settings.max_body_bytes == 1_000_000 - 65_536

    def test_it_must_fit_into_a_message(self) -> None:
        environ = {
            "AIBRIX_GRPC_MAX_MESSAGE_SIZE_BYTES": "1000000",
            "LORA_ROUTER_MAX_BODY_BYTES": "999999",
        }

        assert problem(environ).startswith("max_body_bytes=999999: must be at most 934464: ")


class TestProblems:
    @pytest.mark.parametrize(
        ("environ", "message"),
        [
            (
                {"AIBRIX_LORA_AFFINITY_THRESHOLD": "1.01"},
                "AIBRIX_LORA_AFFINITY_THRESHOLD=1.01: must be a number between 0 and 1",
            ),
            (
                {"LORA_ROUTER_LORA_AFFINITY_THRESHOLD": "nan"},
                "LORA_ROUTER_LORA_AFFINITY_THRESHOLD=nan: must be a number between 0 and 1",
            ),
            (
                {"AIBRIX_POD_METRIC_REFRESH_INTERVAL_MS": "0"},
                "AIBRIX_POD_METRIC_REFRESH_INTERVAL_MS=0: "
                "must be a whole number from 10 to 3600000",
            ),
            (
                {"ROUTING_ALGORITHM": "best"},
                f"ROUTING_ALGORITHM=best: must be one of {', '.join(sorted(installed()))}",
            ),
            (
                {"LORA_ROUTER_GRPC_PORT": "http"},
                "LORA_ROUTER_GRPC_PORT=http: must be a port, from 0 (any) to 65535",
            ),
            (
                {"LORA_ROUTER_METRICS_MAX_AGE_SECONDS": "inf"},
                "LORA_ROUTER_METRICS_MAX_AGE_SECONDS=inf: must be seconds, above 0 and up to 86400",
            ),
            (
                {"LORA_ROUTER_TARGET_POD_HEADER": ":path"},
                "LORA_ROUTER_TARGET_POD_HEADER=:path: must be a header's name",
            ),
            (
                {"LORA_ROUTER_INFERENCE_PATHS": "v1/x"},
                "LORA_ROUTER_INFERENCE_PATHS=v1/x: must be paths, each beginning with a slash, "
                "joined by commas",
            ),
            (
                {"LORA_ROUTER_ALGORITHM_OPTIONS": "fast"},
                "LORA_ROUTER_ALGORITHM_OPTIONS=fast: must be name=value,name=value",
            ),
            (
                {"LORA_ROUTER_ENVOY_ROUTER_ADDRESS": "router"},
                "LORA_ROUTER_ENVOY_ROUTER_ADDRESS=router: must be host:port, or several "
                "joined by commas",
            ),
            (
                {"LORA_ROUTER_TRANSPORT": "fast"},
                "LORA_ROUTER_TRANSPORT=fast: must be one of builtin, grpcio",
            ),
            (
                {"LORA_ROUTER_GRPC_TLS_CERT_FILE": "tls.crt"},
                "grpc_tls_cert_file and grpc_tls_key_file: set both or neither "
                "(LORA_ROUTER_GRPC_TLS_CERT_FILE=tls.crt)",
            ),
            (
                {"LORA_ROUTER_GRPC_TLS_KEY_FILE": "tls.key"},
                "grpc_tls_cert_file and grpc_tls_key_file: set both or neither "
                "(LORA_ROUTER_GRPC_TLS_KEY_FILE=tls.key)",
            ),
            (
                {"LORA_ROUTER_GRPC_TLS_CLIENT_CA_FILE": "ca.crt"},
                "grpc_tls_client_ca_file: requires grpc_tls_cert_file "
                "(LORA_ROUTER_GRPC_TLS_CLIENT_CA_FILE=ca.crt)",
            ),
            (
                {"LORA_ROUTER_POD_TLS_CERT_FILE": "tls.crt"},
                "pod_tls_cert_file and pod_tls_key_file: set both or neither "
                "(LORA_ROUTER_POD_TLS_CERT_FILE=tls.crt)",
            ),
            (
                {"LORA_ROUTER_POD_API_KEY": "k", "LORA_ROUTER_POD_API_KEY_FILE": "key"},
                "pod_api_key and pod_api_key_file: set at most one of them "
                "(LORA_ROUTER_POD_API_KEY=(not shown); LORA_ROUTER_POD_API_KEY_FILE=key)",
            ),
            (
                {"LORA_ROUTER_POD_TLS_SKIP_VERIFY": "1", "LORA_ROUTER_POD_TLS_CA_FILE": "ca.crt"},
                "pod_tls_skip_verify and pod_tls_ca_file: set at most one of them "
                "(LORA_ROUTER_POD_TLS_SKIP_VERIFY=1; LORA_ROUTER_POD_TLS_CA_FILE=ca.crt)",
            ),
            (
                {"LORA_ROUTER_POD_TLS_SERVER_NAME": "*.pods"},
                "LORA_ROUTER_POD_TLS_SERVER_NAME=*.pods: must be a DNS name",
            ),
            (
                {"LORA_ROUTER_POD_SCHEME": "h2"},
                "LORA_ROUTER_POD_SCHEME=h2: must be one of http, https",
            ),
            (
                {"LORA_ROUTER_POD_METRICS_PATH": "metrics"},
                "LORA_ROUTER_POD_METRICS_PATH=metrics: must be a path that begins with a slash, "
                "of up to 1024 ASCII characters without spaces",
            ),
            (
                {"LORA_ROUTER_PEERS": "no-port"},
                "LORA_ROUTER_PEERS=no-port: must be host:port, or several joined by commas",
            ),
            (
                {"LORA_ROUTER_PEER_SERVICE": "a/b/c"},
                "LORA_ROUTER_PEER_SERVICE=a/b/c: must be the name of a Service, NAME or "
                "NAMESPACE/NAME",
            ),
            (
                {
                    "LORA_ROUTER_PEERS": "h:1",
                    "LORA_ROUTER_PEER_SERVICE": "routers",
                    "LORA_ROUTER_PEER_SECRET_FILE": "secret",
                },
                "peers and peer_service: set at most one of them "
                "(LORA_ROUTER_PEERS=h:1; LORA_ROUTER_PEER_SERVICE=routers)",
            ),
            (
                {"LORA_ROUTER_PEERS": "h:1", "LORA_ROUTER_GRPC_HOST": "::"},
                "peers: peers must prove who they are: set peer_secret_file, or "
                "grpc_tls_client_ca_file for mutual TLS, or peer_allow_unauthenticated=true if "
                "only routers and gateways can reach the gRPC port (LORA_ROUTER_PEERS=h:1)",
            ),
            (
                {"LORA_ROUTER_MODEL_HEADER": "Target-Pod"},
                "two headers have the name 'target-pod': all names must differ "
                "(LORA_ROUTER_MODEL_HEADER=Target-Pod)",
            ),
        ],
    )
    def test_variable_value_and_what_is_allowed_are_named(
        self, environ: dict[str, str], message: str
    ) -> None:
        assert problem(environ) == message

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("grpc_host", ["[::1]", "a b", "x\ny", "127.1", "http://x", "h:1", "-h"]),
            ("admin_host", [" ", "٣"]),
            ("envoy_listen_host", ["localhost", "x\ny", "[::]", "1.2.3"]),
            ("envoy_router_name", ["", "a b", "*.routers", "x\0"]),
            ("peer_tls_server_name", ["", "a/b", "x\ny"]),
            ("kubernetes_context", ["", " ", "x\ny"]),
            ("kubernetes_port_name", ["", "HTTP", "a--b", "80", "-a", "x\ny", "a" * 16]),
            ("default_model", ["", " ", "a\nb", "\x1b[31m", "a" * 5000]),
            ("unknown_model_base", ["", "a\nb"]),
            ("pod_api_key", ["", "a\nb", "a b", "é"]),
            ("outlier_first_byte_factor", [True, "nan", "0", "1001"]),
            ("peers", ["x\ny:1", "a b:1", "[::1:1", ":1", "h:0", "h:65536", "h:1,"]),
            ("envoy_router_address", ["x\x1b:1", "http://h:1"]),
            ("algorithm_options", ["shuffle_shard_k=2,shuffle_shard_k=3"]),
            ("model_rewrites", ["a=b,a=c"]),
            ("paths", ["/x=routed,/x=passed", " , "]),
            ("peers", ["h:00050000000"]),
            ("max_hold_seconds", ["3596", "-1"]),
            ("first_use_seconds", ["3600"]),
            ("envoy_message_timeout_seconds", ["3601", "0", "0.0000005"]),
            ("envoy_pod_idle_seconds", ["0.0000005"]),
            ("endpoints", [" "]),
            ("kubernetes_namespaces", [" , ", " "]),
            ("kubernetes_selector", [" ", "\t"]),
            ("inference_paths", [","]),
        ],
    )
    def test_a_value_that_nothing_could_use_is_refused(
        self, name: str, values: list[object]
    ) -> None:
        for value in values:
            said = problem(flags={name: value})
            assert said.startswith(f"--{name.replace('_', '-')} "), value
            assert said.endswith(f": must be {allowed(name)}"), value
            assert len(said.splitlines()) == 1, value

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("grpc_host", ["::", "::1", "127.0.0.1", "localhost", "my_router", "fe80::1%eth0"]),
            ("envoy_listen_host", ["0.0.0.0", "::"]),
            ("envoy_router_name", ["router.routers.svc"]),
            ("kubernetes_context", ["admin@cluster", "arn:aws:eks:x:1:cluster/y"]),
            ("kubernetes_port_name", ["http", "http-8000", "8000-tcp"]),
            ("default_model", ["org/model:v1", "Llama 3"]),
            ("pod_api_key", ["sk-a/b+c=="]),
            ("algorithm_options", ["a=1,b=1"]),
        ],
    )
    def test_a_value_that_something_can_use_is_not(self, name: str, values: list[str]) -> None:
        for value in values:
            assert load(flags={name: value}).origins[name].startswith("flag")

    def test_every_problem_has_a_line(self) -> None:
        text = problem({"LORA_ROUTER_GRPC_PORT": "x"}, {"admin_port": "y"})

        assert len(text.splitlines()) == 2

    def test_file_and_key_are_named(self, write: Path) -> None:
        write.write_text("grpc_port: [1]\n")

        assert problem(file=write) == (
            f"{write}: line 1: grpc_port: [1]: must be a port, from 0 (any) to 65535"
        )

    def test_the_line_is_right_after_settings_that_take_several_lines(self, write: Path) -> None:
        write.write_text(
            "paths:\n  /my/status: passed\n"
            "path_prefixes:\n  - /llm\n"
            "model_rewrites: {gpt: {sql-lora: 1}}\n"
            "admin_paths: open\n"
            "grpc_port: no\n"
        )

        assert problem(file=write).splitlines() == [
            f"{write}: line 7: grpc_port: False: must be a port, from 0 (any) to 65535",
            f"{write}: line 6: admin_paths: open: must be one of refuse, allow",
        ]

    def test_an_unknown_key_is_named_with_the_closest_one(self, write: Path) -> None:
        write.write_text("lora_afinity_threshold: 1\nnonsense: 2\n")

        assert problem(file=write).splitlines() == [
            f"{write}: line 1: lora_afinity_threshold: unknown setting; "
            "did you mean 'lora_affinity_threshold'?",
            f"{write}: line 2: nonsense: unknown setting",
        ]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("grpc_port: yes", "grpc_port: True: must be a port, from 0 (any) to 65535"),
            ("grpc_port: 2024-01-02", "grpc_port: 2024-01-02: must be a port"),
            ("drain_timeout_seconds: on", "drain_timeout_seconds: True: must be seconds, from 0"),
            ("endpoints: ''", "endpoints: : must be the path of a file"),
            ("default_model: 7", "default_model: 7: must be a model's name"),
            ("algorithm_options: {k: [1]}", "algorithm_options: {'k': [1]}: must be name=value"),
            ("grpc_port: 1e9", "grpc_port: 1e9: must be a port, from 0 (any) to 65535"),
            ("grpc_port: '" + "9" * 5000 + "'", "9… (5000 characters): must be a port"),
        ],
    )
    def test_a_value_of_another_kind_is_named_with_its_line(
        self, write: Path, line: str, message: str
    ) -> None:
        write.write_text(f"# comment\nadmin_port: 1\n{line}\n")

        text = problem(file=write)

        assert text.startswith(f"{write}: line 3: ")
        assert message in text
        assert len(text) < 600

    @pytest.mark.parametrize("value", ["2024-13-45", "9" * 5000, "2024-01-02T25:00:00Z"])
    def test_what_only_looks_like_a_date_or_a_number_is_named_with_its_line(
        self, write: Path, value: str
    ) -> None:
        write.write_text(f"admin_port: 1\nalgorithm_options: {{built: {value}}}\n")

        assert problem(file=write).startswith(f"{write}: line 2, column 28: ")

    def test_a_key_that_is_there_twice_is_named_with_both_lines(self, write: Path) -> None:
        write.write_text("grpc_port: 1\nadmin_port: 1\ngrpc_port: 2\n")

        assert problem(file=write) == (f"{write}: line 3, column 1: duplicate key 'grpc_port'")

    def test_options_in_a_file_may_be_numbers(self, write: Path) -> None:
        write.write_text("algorithm_options: {shuffle_shard_k: 3, adapter_load_seconds: 0.5}\n")

        assert load(file=write).settings.algorithm_options == {
            "shuffle_shard_k": "3",
            "adapter_load_seconds": "0.5",
        }

    def test_options_in_a_file_are_what_was_written(self, write: Path) -> None:
        write.write_text("algorithm_options: {a: 010, b: 0x1F, c: 1:30}\n")

        assert load(file=write).settings.algorithm_options == {"a": "010", "b": "0x1F", "c": "1:30"}

    def test_a_flag_is_named_as_it_was_spelled(self) -> None:
        spelled = {"grpc_port": "--set grpc_port="}

        with pytest.raises(SettingsError, match=r"^--set grpc_port=x: must be a port"):
            load_settings(file=None, environ={}, flags={"grpc_port": "x"}, spelled=spelled)
        loaded = load_settings(file=None, environ={}, flags={"grpc_port": "1"}, spelled=spelled)
        assert loaded.origins["grpc_port"] == "flag --set grpc_port"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"- a", "must be a mapping of settings to values"),
            (b"1: 2", "yaml: line 1: 1: must be the name of a setting"),
            (b"a: [", r"yaml: line \d.*: not YAML: "),
            (b"\xff\xfe\xfd", "not YAML"),
        ],
    )
    def test_a_file_that_is_none_is_named(self, write: Path, content: bytes, message: str) -> None:
        write.write_bytes(content)

        with pytest.raises(SettingsError, match=message):
            load(file=write)

    def test_a_secret_is_not_shown(self) -> None:
        text = problem({}, {"pod_api_key": ["sk-secret"]})

        assert "secret" not in text
        assert "(not shown)" in text


class TestWarnings:
    def test_a_variable_that_is_no_setting_is_suspicious(self) -> None:
        loaded = load({"LORA_ROUTER_ADMIN_PRT": "1", "OTHER": "x"})

        (warning,) = loaded.warnings
        assert warning.startswith("LORA_ROUTER_ADMIN_PRT: unknown setting; did you mean")

    def test_what_kubernetes_sets_for_a_service_of_our_name_is_not(self) -> None:
        names = [
            "LORA_ROUTER_SERVICE_HOST",
            "LORA_ROUTER_SERVICE_PORT",
            "LORA_ROUTER_SERVICE_PORT_GRPC",
            "LORA_ROUTER_PORT",
            "LORA_ROUTER_PORT_50052_TCP",
            "LORA_ROUTER_PORT_50052_TCP_ADDR",
        ]

        assert load(dict.fromkeys(names, "tcp://10.0.0.1:50052")).warnings == ()


def test_every_setting_says_what_it_means_and_what_it_may_be() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert allowed(name), name


class TestInferencePool:
    @pytest.mark.parametrize("name", ["llama", "ml/llama", "ml/llama.v2"])
    def test_a_pool_has_a_name_and_maybe_a_namespace(self, name: str) -> None:
        assert Settings.model_validate({"inference_pool": name}).inference_pool == name

    @pytest.mark.parametrize("name", ["", "ML/llama", "a/b/c", "/llama", "ml/", "a..b"])
    def test_another_text_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="inference_pool"):
            Settings.model_validate({"inference_pool": name})

    @pytest.mark.parametrize(
        ("other", "value"),
        [
            ("endpoints", "pods.yaml"),
            ("kubernetes_selector", "app=vllm"),
            ("kubernetes_namespaces", ["ml"]),
            ("kubernetes_port", 9000),
            ("kubernetes_port_name", "openai"),
        ],
    )
    def test_what_the_pool_says_cannot_be_set_too(self, other: str, value: object) -> None:
        message = f"inference_pool and {other}: set at most one of them"
        with pytest.raises(ValueError, match=message):
            Settings.model_validate({"inference_pool": "ml/llama", other: value})


class TestPeers:
    @pytest.mark.parametrize(
        "proof",
        [
            {"grpc_host": "127.0.0.1"},
            {"grpc_host": "::1"},
            {"grpc_host": "localhost"},
            {"peer_secret_file": "secret"},
            {"peer_allow_unauthenticated": True},
            {
                "grpc_tls_cert_file": "tls.crt",
                "grpc_tls_key_file": "tls.key",
                "grpc_tls_client_ca_file": "ca.crt",
            },
        ],
    )
    def test_peers_need_a_proof_or_a_loopback_address(self, proof: dict[str, object]) -> None:
        settings = Settings.model_validate({"peers": "routers:50052", **proof})

        assert settings.has_peers

    def test_tls_without_client_certificates_is_no_proof(self) -> None:
        with pytest.raises(ValueError, match="peer_service: peers must prove who they are"):
            Settings.model_validate(
                {
                    "peer_service": "routers",
                    "grpc_tls_cert_file": "tls.crt",
                    "grpc_tls_key_file": "tls.key",
                }
            )

    @pytest.mark.parametrize(
        "proof",
        [
            {"peering": "redis://cache:6379", "peer_secret_file": "secret"},
            {"peering": "redis+cluster://a,b", "peer_allow_unauthenticated": True},
            {"peering": "rediss://127.0.0.1:6379"},
        ],
    )
    def test_a_redis_needs_a_proof_or_a_loopback_address(self, proof: dict[str, object]) -> None:
        settings = Settings.model_validate(proof)

        assert settings.has_peers
        assert settings.redis_address is not None

    def test_mutual_tls_with_gateways_proves_nothing_to_a_redis(self) -> None:
        with pytest.raises(ValueError, match="peering: peers must prove who they are"):
            Settings.model_validate(
                {
                    "peering": "redis://cache",
                    "grpc_tls_cert_file": "cert",
                    "grpc_tls_key_file": "key",
                    "grpc_tls_client_ca_file": "ca",
                }
            )

    def test_a_lease_needs_peers(self) -> None:
        with pytest.raises(ValueError, match="replication=lease: needs peering"):
            Settings.model_validate({"replication": "lease"})
        with pytest.raises(ValueError, match="workers=2 and replication=lease: set one of them"):
            Settings.model_validate({"replication": "lease", "workers": 2})

        values = {"peer_service": "routers", "peer_secret_file": "s", "replication": "lease"}
        assert Settings.model_validate(values).lease_duration_seconds == 2

    @pytest.mark.parametrize("name", ["Upper", "under_score", "-a", "a..b", "", "x" * 254])
    def test_a_lease_has_the_name_of_an_object(self, name: str) -> None:
        with pytest.raises(SettingsError, match="the name of a Lease"):
            load_settings(file=None, environ={}, flags={"lease_name": name})

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"peering": "mesh"}, "requires peers or peer_service"),
            ({"peering_password_file": "p"}, "requires peering=redis"),
            ({"peering": "redis://localhost", "peers": "a:1"}, "set at most one"),
            (
                {"peering": "redis://:secret-word@localhost", "peering_password_file": "p"},
                "has a password too",
            ),
        ],
    )
    def test_the_carriers_of_peering_exclude_each_other(
        self, values: dict[str, object], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            Settings.model_validate(values)

    def test_the_password_in_the_address_is_never_shown(self) -> None:
        with pytest.raises(SettingsError) as failure:
            load_settings(file=None, environ={}, flags={"peering": "redis://:secret-word@a:x"})
        assert "secret-word" not in str(failure.value)
        assert "--peering (not shown): must be mesh, or redis://" in str(failure.value)

        loaded = load_settings(
            file=None,
            environ={"LORA_ROUTER_PEERING": "redis://:secret-word@127.0.0.1"},
            flags={},
        )
        assert "secret-word" not in f"{config_json(loaded)} {loaded.settings!r}"

    def test_without_peers_nothing_has_to_be_proved(self) -> None:
        assert not Settings().has_peers
