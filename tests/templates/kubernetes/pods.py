"""Pods of the manifests without a cluster: their commands with their files, users and limits, on a throw-away machine.

What a kubelet does is done by hand: Secrets and ConfigMaps are mounted in its way (a folder that all could write to,
symbolic links in it), the root is read-only, there are no capabilities, and the names of services are in DNS.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.bed.processes import Process
from tests.bed.tunnels import PROGRAMS
from tests.templates.kubernetes.overlays import Manifest, Overlay
from tests.templates.machine import Machine

DOMAIN = "sandboxes.example.com"
LOOPBACK = "127.0.0.1"
REPOSITORY = Path(__file__).parents[3]


def prepare(machine: Machine) -> None:
    """Give the machine what the images have (an account, the bridge), and the names that the cluster has."""
    accessible = {parent for path in (REPOSITORY, Path(sys.base_prefix), PROGRAMS) for parent in (path, *path.parents)}
    names = ("sandbox-0.sandbox.sandboxes.svc.cluster.local", "kube-dns.kube-system.svc.cluster.local", DOMAIN)
    machine.do(
        f"""
        getent passwd 1000 && userdel $(id -nu 1000)
        useradd --uid 1000 --no-create-home --home-dir /home/user --shell /bin/bash user
        chmod o+x {shlex.join(map(str, accessible))}
        ln -s {PROGRAMS}/wstunnel-py /usr/local/bin/wstunnel-py
        echo 'nameserver {LOOPBACK}' > /etc/resolv.conf
        """
    )
    addresses = " ".join(f"--address=/{name}/{LOOPBACK}" for name in names)
    machine.start(
        f"exec dnsmasq --keep-in-foreground --log-facility=- --no-resolv --no-hosts --user=root --bind-interfaces "
        f"--listen-address={LOOPBACK} --local=/cluster.local/ {addresses}",
        "root",
    ).wait_for_line("started")


class Pod:
    """A pod of ``specification``, whose volumes are filled from the overlay's ConfigMaps and from ``secrets``."""

    def __init__(
        self, machine: Machine, overlay: Overlay, specification: Manifest, secrets: Mapping[str, Mapping[str, bytes]]
    ) -> None:
        self._machine = machine
        self._specification = specification
        self._context = specification["securityContext"]
        self._volumes: dict[str, Mapping[str, bytes] | None] = {"home": None}
        for volume in specification["volumes"]:
            if "configMap" in volume:
                name = volume["configMap"]["name"].rpartition("-")[0]
                content: Mapping[str, bytes] | None = {k: v.encode() for k, v in overlay.config(name).items()}
            else:
                content = secrets[volume["secret"]["secretName"]] if "secret" in volume else None
            self._volumes[volume["name"]] = content
        for each in specification["containers"]:
            for mount in each["volumeMounts"]:
                self._mount(mount["mountPath"], self._volumes[mount["name"]])

    def _mount(self, path: str, content: Mapping[str, bytes] | None) -> None:
        group = self._context.get("fsGroup", 0)
        if content is None:
            self._machine.do(f"install -d -m 2777 -g {group} {path}")
            return
        data = f"{path}/..2026_01_01"
        self._machine.do(f"rm -rf {path}; install -d -m 1777 {path}; mkdir {data}; ln -s ..2026_01_01 {path}/..data")
        for name, text in content.items():
            self._machine.write(text, f"{data}/{name}", "root", "0440" if group else "0444")
            self._machine.do(f"chgrp {group} {data}/{name}; ln -sf ..data/{name} {path}/{name}")

    def command(self, container: Manifest, words: list[str]) -> str:
        """Return the shell command that runs ``words`` as in the container."""
        assert container["securityContext"]["readOnlyRootFilesystem"]
        writable = [m["mountPath"] for m in container["volumeMounts"] if self._volumes[m["name"]] is None]
        binds = "".join(f"mount --bind {path} {path}; " for path in writable)
        user, group = self._context["runAsUser"], self._context["runAsGroup"]
        groups = f"--groups={self._context['fsGroup']}" if "fsGroup" in self._context else "--clear-groups"
        become = f"--reuid={user} --regid={group} {groups} --no-new-privs --bounding-set=-all --inh-caps=-all"
        variables = [f"{each['name']}={each['value']}" for each in container.get("env", [])]
        inner = f"set -e; {binds}mount -o remount,bind,ro /; exec env HOME=/ {shlex.join(variables)} setpriv {become} "
        return f"cd / && exec unshare --mount sh -c {shlex.quote(inner + shlex.join(words))}"

    def start(self, container: Manifest) -> Process:
        words = [*container["command"], *container.get("args", [])]
        return self._machine.start(self.command(container, words), "root")

    def start_hook(self, container: Manifest) -> Process:
        """Start what the kubelet does before it stops the container."""
        hook: list[str] = container["lifecycle"]["preStop"]["exec"]["command"]
        return self._machine.start(self.command(container, hook), "root")
