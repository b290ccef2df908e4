"""The Envoy configuration that matches the settings of a router."""
