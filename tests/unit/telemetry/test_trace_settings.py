"""Whether requests are traced, by OpenTelemetry's variables."""

import pytest

from lora_router.telemetry.trace_settings import (
    TraceSettings,
    TraceSettingsError,
    trace_settings,
)

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "router"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_TRACES_EXPORTER": "none"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "True"},
    ],
)
def test_requests_are_not_traced(environ: dict[str, str]) -> None:
    assert trace_settings(environ) is None


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        (ENDPOINT, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, "http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "http/protobuf"),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, "http/protobuf"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc"),
        (
            {
                **ENDPOINT,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            "http/protobuf",
        ),
    ],
)
def test_requests_are_traced(environ: dict[str, str], protocol: str) -> None:
    settings = trace_settings(environ)

    assert settings is not None
    assert (settings.protocol, settings.max_queued) == (protocol, 2048)


def test_the_queue_has_the_size_of_the_variable() -> None:
    settings = trace_settings({**ENDPOINT, "OTEL_BSP_MAX_QUEUE_SIZE": "512"})

    assert settings == TraceSettings(max_queued=512)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "thrift"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "9" * 10_000),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0000000001000001"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:port"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1"),
    ],
)
def test_an_error_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(TraceSettingsError, match=f"^{name}='{value[:5]}.*must be"):
        trace_settings({**ENDPOINT, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "abc"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "-1"),
    ],
)
def test_what_grpc_refuses_is_named_too(name: str, value: str) -> None:
    environ = {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", name: value}

    with pytest.raises(TraceSettingsError, match=f"^{name}='{value}': must be"):
        trace_settings(environ)


def test_grpc_takes_a_host_and_a_port() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }

    assert trace_settings(environ) == TraceSettings("grpc")


@pytest.mark.parametrize(
    ("environ", "queued", "batch"),
    [
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, 100, 100),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "10000"}, 10_000, 512),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2048"}, 2048, 2048),
    ],
)
def test_a_batch_is_no_larger_than_the_queue(
    environ: dict[str, str], queued: int, batch: int
) -> None:
    settings = trace_settings({**ENDPOINT, **environ})

    assert settings == TraceSettings(max_queued=queued, max_batch=batch)
