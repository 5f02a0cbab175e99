"""``wstunnel-py doctor``: what is wrong on the way to a host."""

from __future__ import annotations

import dataclasses
import json

import click

from tunnel.cli.direct import DirectCommand, parameter
from tunnel.client.options import DOCTOR_OPTIONS, parse_command_line
from tunnel.protocol.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.ssh.doctor import Finding


def _doctor(words: list[str]) -> int:
    given, operands = parse_command_line(words, DOCTOR_OPTIONS, "doctor")
    if len(operands) != 1:
        raise UsageError("which host? usage: wstunnel-py doctor [OPTIONS] HOST")
    from tunnel.client.settings import resolve
    from tunnel.ssh.doctor import examine

    as_json = given.pop("doctor-json", False) is True
    findings: list[Finding] = []
    for finding in examine(lambda: resolve(operands[0], given)):
        findings.append(finding)
        if not as_json:
            _show(finding)
    code = findings[-1].exit_code
    if as_json:
        report = {"ok": code == 0, "hops": [dataclasses.asdict(finding) for finding in findings]}
        click.echo(json.dumps(report, indent=1, ensure_ascii=False))
    return code


def _show(finding: Finding) -> None:
    mark = click.style("✓", fg="green") if finding.ok else click.style("✗", fg="red")
    click.echo(f"{mark} {finding.hop:11}{finding.seconds * 1000:8.1f} ms    {finding.text}")
    if finding.advice:
        click.echo(f"{'':25}{finding.advice}")


doctor = DirectCommand(
    "doctor",
    _doctor,
    params=[*map(parameter, DOCTOR_OPTIONS), click.Argument(["host"])],
    short_help="Find out what is wrong on the way to a host.",
    help=(
        "Go the way of a tunnel to HOST hop by hop: name, TCP, proxy, TLS, upgrade, resume, SSH. Each is timed; the "
        "first that fails is named, with what to do about it, and its exit code is this command's.\n\n"
        "HOST is as for connect."
    ),
)
