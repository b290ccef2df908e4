"""Envoy's external processing (ext_proc) protocol: sessions, messages, and transports."""
