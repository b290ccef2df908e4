"""Envoy's external-processing protocol: the conversation, what it carries, who transports it."""
