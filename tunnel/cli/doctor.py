"""``wstunnel-py doctor``: finds the hop that fails on the way to a host."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, Self

import click

from tunnel.cli.completion import complete_host
from tunnel.cli.direct import DirectCommand, parameter
from tunnel.cli.hints import advice
from tunnel.client.options import DOCTOR_OPTIONS, parse_command_line
from tunnel.client.words import wrong_operands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.layers import Layers
    from tunnel.client.settings import Settings
    from tunnel.ssh.doctor import Finding

_DOUBTFUL = ("api-failed", "insecure", "plain", "no-resume")  # findings that are warnings, not failures
_COLOURS = {"✓": "green", "!": "yellow", "✗": "red"}
_REPORTED = ("hop", "ok", "seconds", "text", "code", "exit_code")


def _doctor(words: list[str]) -> int:
    given, operands = parse_command_line(words, DOCTOR_OPTIONS, "doctor")
    if len(operands) != 1:
        raise wrong_operands(operands, "doctor [OPTIONS] HOST")
    from tunnel.client.settings import resolve
    from tunnel.ssh.doctor import examine, examine_throughput

    layers: list[Layers] = []  # those of the latest settings

    def make_settings() -> Settings:
        settings = resolve(operands[0], given)
        layers[:] = [settings.layers]
        return settings

    as_json = given.pop("doctor-json", False) is True
    throughput = given.pop("doctor-throughput", False) is True
    findings: list[Finding] = []
    for finding in examine(make_settings):
        findings.append(finding)
        if not as_json:
            _show(finding, _advice(finding, layers))
    if throughput and findings[-1].ok:
        with _Bars() as bars:
            findings.append(examine_throughput(make_settings, bars.show))
        if not as_json:
            _show(findings[-1], _advice(findings[-1], layers))
    code = findings[-1].exit_code
    if as_json:
        hops = [
            {**{name: getattr(finding, name) for name in _REPORTED}, "advice": _advice(finding, layers)}
            for finding in findings
        ]
        report = {"ok": code == 0, "hops": hops}
        click.echo(json.dumps(report, indent=1))  # ASCII, so that it is JSON in every locale
    return code


class _Bars:
    """A progress bar for each direction, shown on a terminal only."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._what = ""
        self._shown = self._rate = 0.0
        self._bar: Any = None  # click's, whose type is generic

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, what: str, part: float, rate: float) -> None:
        if not sys.stderr.isatty():
            return
        if what != self._what:
            self._stack.close()
            self._what, self._shown, self._rate = what, 0.0, rate
            self._bar = self._stack.enter_context(
                click.progressbar(
                    length=1000, label=f"{what:9}", file=sys.stderr, show_eta=False, show_percent=False,
                    item_show_func=lambda _: f"{self._rate / 1e6:8.1f} MB/s",
                )
            )  # fmt: skip
        if part - self._shown >= 0.01:
            self._rate = rate
            self._bar.update(int(part * 1000) - int(self._shown * 1000))
            self._shown = part


def _advice(finding: Finding, layers: list[Layers]) -> str:
    return advice(finding.code, finding.error, next(iter(layers), None))


def _show(finding: Finding, said: str) -> None:
    mark = "✗" if not finding.ok else "!" if finding.code in _DOUBTFUL else "✓"
    click.echo(
        f"{click.style(mark, fg=_COLOURS[mark])} {finding.hop:11}{finding.seconds * 1000:8.1f} ms    {finding.text}"
    )
    if said:
        click.echo(f"{'':25}{said}")


doctor = DirectCommand(
    "doctor",
    _doctor,
    options=DOCTOR_OPTIONS,
    params=[*map(parameter, DOCTOR_OPTIONS), click.Argument(["host"], shell_complete=complete_host)],
    short_help="Find out why a host cannot be reached.",
    help=(
        "Check and time each step of a tunnel to HOST: DNS, TCP, proxy, TLS, WebSocket upgrade, resuming, SSH and, "
        "with --throughput, the speed. The first step that fails is shown with advice. The exit code is the one that "
        "connect has for this failure.\n\n"
        "HOST is as for connect."
    ),
)
