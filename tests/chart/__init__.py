"""The Helm chart, by the real Helm engine."""
