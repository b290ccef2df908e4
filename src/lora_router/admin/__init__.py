"""The admin port: health and metrics over HTTP, for probes, Prometheus and people."""
