"""The overlays as `kubectl kustomize` renders them, and helpers that look things up in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.bed.processes import Bed
from tests.bed.tunnels import PROGRAMS

KUBERNETES = Path(__file__).parents[3] / "templates" / "kubernetes"
OVERLAYS = tuple(sorted(folder.name for folder in (KUBERNETES / "overlays").iterdir()))
KUBECTL = str(PROGRAMS / "kubectl")
Manifest = dict[str, Any]


class Overlay:
    """What would be applied: manifests, found by kind and name."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.manifests = manifests

    def of(self, kind: str) -> list[Manifest]:
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    def get(self, kind: str, name: str) -> Manifest:
        (found,) = (manifest for manifest in self.of(kind) if manifest["metadata"]["name"] == name)
        return found

    def config(self, name: str) -> dict[str, str]:
        """The files of a ConfigMap, whose name ends in a hash of them."""
        (found,) = (each for each in self.of("ConfigMap") if each["metadata"]["name"].rpartition("-")[0] == name)
        data: dict[str, str] = found["data"]
        return data

    @property
    def workloads(self) -> list[Manifest]:
        return [*self.of("StatefulSet"), *self.of("Deployment")]

    @property
    def sandbox(self) -> Manifest:
        """The specification of the sandboxes' pods."""
        pod: Manifest = self.get("StatefulSet", "sandbox")["spec"]["template"]["spec"]
        return pod

    @property
    def gateway(self) -> Manifest:
        pod: Manifest = self.get("Deployment", "gateway")["spec"]["template"]["spec"]
        return pod


def container(pod: Manifest, name: str) -> Manifest:
    (found,) = (each for each in pod["containers"] if each["name"] == name)
    manifest: Manifest = found
    return manifest


_rendered: dict[str, Overlay] = {}


def render(bed: Bed, name: str) -> Overlay:
    if name not in _rendered:
        text = bed.check(KUBECTL, "kustomize", str(KUBERNETES / "overlays" / name)).text
        _rendered[name] = Overlay(list(yaml.safe_load_all(text)))
    return _rendered[name]
