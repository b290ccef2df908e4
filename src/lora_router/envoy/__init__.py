"""The Envoy configuration that fits a router: bootstrap and TLS."""
