"""The E2B template of a sandbox that people can ssh into: Ubuntu, an sshd that takes keys only, and the bridge.

Names, sizes and ports are in settings.json, which `template.ts` reads as well.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from e2b import Template, wait_for_port
from e2b.template.main import TemplateFinal

HERE = Path(__file__).resolve().parent
SETTINGS: dict[str, Any] = json.loads((HERE / "settings.json").read_text())


def ssh_template(public_keys: Sequence[str], bridge: str, release: str = SETTINGS["release"]) -> TemplateFinal:
    """Return the template, for `Template.build` or `Template.to_json`.

    ``public_keys`` may log in; each is as in a .pub file. ``bridge`` is the relative path of a wheel or of the single
    file (.pyz) in this folder, or a requirement for pip to install from PyPI (``wstunnel-py==1.0``). ``release`` is
    Ubuntu's, 24.04 or later, because the bridge needs Python 3.11.
    """
    folder, user, packages = SETTINGS["folder"], SETTINGS["user"], SETTINGS["packages"]
    single_file = bridge.endswith(".pyz")
    if single_file:  # which only needs Python
        packages = ["python3" if each == "python3-venv" else each for each in packages]
    template = (
        Template(file_context_path=HERE)
        .from_ubuntu_image(release)
        .apt_install(packages, no_install_recommends=True)
        .copy("sshd-keys-only.conf", "/etc/ssh/sshd_config.d/00-keys-only.conf", user="root", mode=0o644)
        .copy("start.sh", f"{folder}/start.sh", user="root", mode=0o755)
    )
    if bridge.endswith(".whl"):
        template = template.copy(bridge, f"{folder}/", user="root", mode=0o644)
        bridge = f"{folder}/{Path(bridge).name}"
    if single_file:
        template = template.copy(bridge, f"{folder}/wstunnel-py", user="root", mode=0o755)
    else:
        template = template.run_cmd(
            [
                # In a virtual environment, because apt manages the system's Python (PEP 668).
                f"python3 -m venv {folder}/venv",
                f"ln -s venv/bin/wstunnel-py {folder}/wstunnel-py",
                f"{folder}/venv/bin/pip install --no-cache-dir --disable-pip-version-check {shlex.quote(bridge)}",
            ],
            user="root",
        )
    return template.run_cmd(
        [
            "install -d -m 0755 /etc/ssh/authorized_keys.d /run/sshd",
            f"printf '%s\\n' {shlex.join(public_keys)} > /etc/ssh/authorized_keys.d/{user}",
            "sed -i '1i Include /etc/ssh/sshd_config.d/00-keys-only.conf' /etc/ssh/sshd_config",
            "ssh-keygen -A",
            # The build fails here unless a key is the only way to log in.
            f"/usr/sbin/sshd -T -C user={user},host=localhost,addr=127.0.0.1 | "
            "grep -qx 'authenticationmethods publickey'",
        ],
        user="root",
    ).set_start_cmd(
        f"{folder}/start.sh {SETTINGS['bridge_port']} {SETTINGS['sshd_port']}",
        wait_for_port(SETTINGS["bridge_port"]),
    )
