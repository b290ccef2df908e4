"""Tests of the Helm chart with the real Helm engine."""

from pathlib import Path

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "lora-router"
