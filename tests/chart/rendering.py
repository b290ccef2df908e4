"""Renders the chart with the real Helm engine."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
import yaml

from tests.chart import CHART

Document = dict[str, Any]

helm = pytest.importorskip("helm_python", reason="the Helm engine has no package for this machine")


def render(
    values: Mapping[str, object] | None = None, *, release: str = "test", namespace: str = "models"
) -> list[Document]:
    """Return all objects, including hooks, in the order of the chart's files.

    Raises:
        helm.HelmError: Helm refuses the values.
    """
    with helm.Chart.load(CHART) as chart:
        files = chart.render(deepcopy(dict(values or {})), name=release, namespace=namespace)
    documents = []
    for name, text in sorted(files.items()):
        if not name.endswith("NOTES.txt"):
            documents += [
                document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document
            ]
    return documents


def one(documents: list[Document], kind: str, suffix: str = "lora-router") -> Document:
    """Return the only object of a kind, or of several the one whose name ends with ``suffix``."""
    found = [document for document in documents if document["kind"] == kind]
    if len(found) > 1:
        found = [each for each in found if each["metadata"]["name"].endswith(suffix)]
    [chosen] = found
    return chosen


def secrets(documents: list[Document]) -> list[str]:
    """Return the names of the Secrets, without the name of the release."""
    names = [each["metadata"]["name"] for each in documents if each["kind"] == "Secret"]
    return sorted(name.rpartition("-")[2] for name in names)


def kinds(documents: list[Document]) -> list[str]:
    """Return the kinds of the objects, sorted."""
    return sorted(document["kind"] for document in documents)


def router_settings(documents: list[Document]) -> Document:
    """Return the router's settings file."""
    maps = [document.get("data") or {} for document in documents if document["kind"] == "ConfigMap"]
    [text] = [data["config.yaml"] for data in maps if "config.yaml" in data]
    settings: Document = yaml.safe_load(text)
    return settings
