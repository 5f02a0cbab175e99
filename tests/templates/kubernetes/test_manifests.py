"""The manifests of every overlay: valid by the API's own schemas, restrictive, and consistent with each other."""

from __future__ import annotations

import copy
import re
import shlex

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.bed.processes import Bed
from tests.templates.kubernetes.overlays import KUBECTL, KUBERNETES, OVERLAYS, Manifest, Overlay, container, render
from tunnel.protocol.keepalive import PING_INTERVAL, PING_TIMEOUT

VERSIONS = ("1.30", "1.37")  # of Kubernetes: an older one that is still met, and the newest that the schemas are for
README = (KUBERNETES / "README.md").read_text()
MADE_BY_HAND = {"sandbox-ssh", "bridge-tokens", "sandboxes-tls"}  # the Secrets, which are not in the repository


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, bed: Bed) -> Overlay:
    return render(bed, request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_of_kubernetes_take_every_manifest(overlay: Overlay, version: str) -> None:
    assert len(overlay.manifests) > 10
    for manifest in overlay.manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_would_see_a_misspelt_key(overlay: Overlay) -> None:
    wrong = copy.deepcopy(overlay.get("StatefulSet", "sandbox"))
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 75
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_components_are_all_used() -> None:
    used = {
        line.rpartition("/")[2].strip()
        for overlay in OVERLAYS
        for line in (KUBERNETES / "overlays" / overlay / "kustomization.yaml").read_text().splitlines()
        if "../components/" in line
    }
    assert used == {folder.name for folder in (KUBERNETES / "components").iterdir()}


def test_no_container_may_more_than_the_strictest_standard_allows(overlay: Overlay) -> None:
    level = overlay.get("Namespace", "sandboxes")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert level == "restricted"
    for workload in overlay.workloads:
        pod = workload["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        for each in pod["containers"]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert each["resources"]["limits"]["memory"] and each["resources"]["requests"]["cpu"]
        for volume in pod["volumes"]:
            assert volume.keys() & {"configMap", "emptyDir", "secret"}


def test_no_secret_is_in_the_manifests_and_all_are_mounted_for_the_group_alone(overlay: Overlay) -> None:
    assert overlay.of("Secret") == []
    mounted = {}
    for workload in overlay.workloads:
        pod = workload["spec"]["template"]["spec"]
        for volume in pod["volumes"]:
            if "secret" in volume:
                mounted[volume["secret"]["secretName"]] = volume["secret"]["defaultMode"]
                assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    for ingress in overlay.of("Ingress"):
        mounted[ingress["spec"]["tls"][0]["secretName"]] = 0o440
    assert mounted == dict.fromkeys(MADE_BY_HAND, 0o440)


def test_the_readme_makes_the_secrets_that_the_manifests_want(bed: Bed, overlay: Overlay) -> None:
    commands = re.findall(r"^    kubectl (.*create secret (?:.*\\\n)*.*)$", README, re.MULTILINE)
    files = {"authorized_keys", "ssh_host_ed25519_key", "tokens"}
    made = {}
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "))
        # Any file will do, but for a certificate, which kubectl looks into.
        words = [re.sub(r"(--from-file=\w+)=.*", rf"\1={KUBERNETES}/README.md", word) for word in words]
        if "tls" in words:
            certificate, key = bed.folder / "tls.crt", bed.folder / "tls.key"
            subject = ("-subj", "/CN=sandboxes.example.com", "-days", "1", "-nodes")
            curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
            bed.check("openssl", "req", "-x509", *curve, *subject, "-keyout", str(key), "-out", str(certificate))
            words = [re.sub(r"--cert=.*", f"--cert={certificate}", word) for word in words]
            words = [re.sub(r"--key=.*", f"--key={key}", word) for word in words]
        secret = yaml.safe_load(bed.check(KUBECTL, *words, "--dry-run=client", "--output=yaml").text)
        assert secret["metadata"]["namespace"] == "sandboxes"
        made[secret["metadata"]["name"]] = set(secret["data"])
    assert made.keys() == MADE_BY_HAND
    assert made["sandbox-ssh"] | made["bridge-tokens"] == files
    config = overlay.config("sandbox-sshd")["sshd_config"]
    for name in made["sandbox-ssh"]:
        assert f"/etc/sandbox-keys/{name}\n" in config
    (tokens,) = made["bridge-tokens"]
    assert f"--token-file=/run/secrets/bridge/{tokens}" in container(overlay.sandbox, "bridge")["args"]


def selects(selector: Manifest, workload: Manifest) -> bool:
    labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    wanted: dict[str, str] = selector.get("matchLabels", selector)
    return wanted.items() <= labels.items()


def test_every_selector_selects_and_every_port_is_there(overlay: Overlay) -> None:
    for service in overlay.of("Service"):
        (workload,) = (each for each in overlay.workloads if selects(service["spec"]["selector"], each))
        names = {port["name"] for each in workload["spec"]["template"]["spec"]["containers"] for port in ports(each)}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    for budget in overlay.of("PodDisruptionBudget"):
        (workload,) = (each for each in overlay.workloads if selects(budget["spec"]["selector"], each))
        assert workload["spec"]["replicas"] > budget["spec"]["maxUnavailable"]
    for ingress in overlay.of("Ingress"):
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        names = {port["name"] for port in overlay.get("Service", backend["name"])["spec"]["ports"]}
        assert backend["port"]["name"] in names
        assert ingress["spec"]["rules"][0]["host"] == ingress["spec"]["tls"][0]["hosts"][0]


def ports(each: Manifest) -> list[Manifest]:
    found: list[Manifest] = each.get("ports", [])
    return found


def test_only_the_gateway_reaches_a_bridge(overlay: Overlay) -> None:
    sandbox, gateway = overlay.get("StatefulSet", "sandbox"), overlay.get("Deployment", "gateway")
    policies = overlay.of("NetworkPolicy")
    deny = overlay.get("NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    rules = [
        rule
        for policy in policies
        if selects(policy["spec"]["podSelector"], sandbox)
        for rule in policy["spec"].get("ingress", [])
    ]
    (rule,) = rules
    (peer,) = rule["from"]
    assert peer.keys() == {"podSelector"} and selects(peer["podSelector"], gateway)
    assert not selects(peer["podSelector"], sandbox)
    assert rule["ports"] == [{"protocol": "TCP", "port": "bridge"}]
    (port,) = (port for each in overlay.sandbox["containers"] for port in ports(each) if port["name"] == "bridge")
    assert port["containerPort"] == 8081


def test_something_reaches_the_gateway(overlay: Overlay) -> None:
    gateway = overlay.get("Deployment", "gateway")
    rules = [
        rule
        for policy in overlay.of("NetworkPolicy")
        if policy["spec"]["podSelector"] and selects(policy["spec"]["podSelector"], gateway)
        for rule in policy["spec"].get("ingress", [])
    ]
    served = {port["targetPort"] for port in overlay.get("Service", "gateway")["spec"]["ports"]}
    assert {port["port"] for rule in rules for port in rule["ports"]} == served


def test_a_sandbox_reaches_nothing_inside_but_names(overlay: Overlay) -> None:
    policy = overlay.get("NetworkPolicy", "sandbox")["spec"]
    names, internet = policy["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    (peer,) = internet["to"]
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(peer["ipBlock"]["except"])


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_a_sandbox_has_the_time_that_its_tunnels_have(overlay: Overlay) -> None:
    pod = overlay.sandbox
    bridge = container(pod, "bridge")
    (drain,) = (float(word.partition("=")[2]) for word in bridge["args"] if word.startswith("--drain="))
    assert pod["terminationGracePeriodSeconds"] > drain
    live = bridge["livenessProbe"]
    assert live["periodSeconds"] * live["failureThreshold"] > drain, (
        "or a bridge that drains is ended for not listening"
    )
    for each in pod["containers"]:
        if "lifecycle" in each:
            script = each["lifecycle"]["preStop"]["exec"]["command"][-1]
            (waits,) = re.findall(r"seq (\d+)", script)
            assert drain <= int(waits) < pod["terminationGracePeriodSeconds"]


def test_a_gateway_that_goes_has_the_time_that_it_takes(overlay: Overlay) -> None:
    config = overlay.config("gateway-nginx")["nginx.conf"]
    (shutdown,) = map(seconds, re.findall(r"worker_shutdown_timeout (\w+);", config))
    nginx = container(overlay.gateway, "nginx")
    _, sleep = nginx["lifecycle"]["preStop"]["exec"]["command"]
    assert overlay.gateway["terminationGracePeriodSeconds"] > shutdown + float(sleep)
    strategy = overlay.get("Deployment", "gateway")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxUnavailable": 0, "maxSurge": 1}


def test_no_hop_gives_up_a_tunnel_that_is_alive(overlay: Overlay) -> None:
    limits = [
        seconds(text)
        for text in re.findall(r"proxy_(?:read|send)_timeout (\w+);", overlay.config("gateway-nginx")["nginx.conf"])
    ]
    for ingress in overlay.of("Ingress"):
        notes = ingress["metadata"]["annotations"]
        limits += [float(notes[f"nginx.ingress.kubernetes.io/proxy-{way}-timeout"]) for way in ("read", "send")]
    assert len(limits) in (2, 4)
    assert min(limits) > PING_INTERVAL + PING_TIMEOUT


def test_the_gateway_knows_the_namespace_the_service_and_the_port(overlay: Overlay) -> None:
    config = overlay.config("gateway-nginx")["nginx.conf"]
    sandboxes = overlay.get("StatefulSet", "sandbox")
    namespace, service = sandboxes["metadata"]["namespace"], sandboxes["spec"]["serviceName"]
    (port,) = (each["port"] for each in overlay.get("Service", service)["spec"]["ports"])
    assert f"proxy_pass http://$sandbox.{service}.{namespace}.svc.cluster.local:{port};" in config
    assert f'server_name "~^{port}-' in config
    assert overlay.get("Service", service)["spec"]["clusterIP"] == "None"
