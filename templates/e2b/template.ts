// The twin of template.py for E2B's JavaScript SDK: the same steps, from the same settings.json.

import { readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Template, waitForPort, type TemplateClass } from 'e2b'

export const HERE = dirname(fileURLToPath(import.meta.url))

export interface Settings {
  name: string
  release: string
  cpu_count: number
  memory_mb: number
  packages: string[]
  user: string
  folder: string
  bridge_port: number
  sshd_port: number
}

export const SETTINGS: Settings = JSON.parse(readFileSync(join(HERE, 'settings.json'), 'utf8'))

/**
 * `publicKeys` may log in; each is as in a .pub file. `bridge` is the relative path of a wheel or of the single file
 * (.pyz) in this folder, or a requirement for pip to install from PyPI (`wstunnel-py==1.0`). `release` is Ubuntu's,
 * 24.04 or later, because the bridge needs Python 3.11.
 */
export function sshTemplate(publicKeys: string[], bridge: string, release = SETTINGS.release): TemplateClass {
  const { folder, user, bridge_port, sshd_port } = SETTINGS
  let packages = SETTINGS.packages
  const singleFile = bridge.endsWith('.pyz')
  if (singleFile) packages = packages.map((each) => (each === 'python3-venv' ? 'python3' : each)) // only Python
  let template = Template({ fileContextPath: HERE })
    .fromUbuntuImage(release)
    .aptInstall(packages, { noInstallRecommends: true })
    .copy('sshd-keys-only.conf', '/etc/ssh/sshd_config.d/00-keys-only.conf', { user: 'root', mode: 0o644 })
    .copy('start.sh', `${folder}/start.sh`, { user: 'root', mode: 0o755 })
  if (bridge.endsWith('.whl')) {
    template = template.copy(bridge, `${folder}/`, { user: 'root', mode: 0o644 })
    bridge = `${folder}/${basename(bridge)}`
  }
  if (singleFile) {
    template = template.copy(bridge, `${folder}/wstunnel-py`, { user: 'root', mode: 0o755 })
  } else {
    template = template.runCmd(
      [
        // In a virtual environment, because apt manages the system's Python (PEP 668).
        `python3 -m venv ${folder}/venv`,
        `ln -s venv/bin/wstunnel-py ${folder}/wstunnel-py`,
        `${folder}/venv/bin/pip install --no-cache-dir --disable-pip-version-check ${quote(bridge)}`,
      ],
      { user: 'root' },
    )
  }
  return template
    .runCmd(
      [
        'install -d -m 0755 /etc/ssh/authorized_keys.d /run/sshd',
        `printf '%s\\n' ${publicKeys.map(quote).join(' ')} > /etc/ssh/authorized_keys.d/${user}`,
        "sed -i '1i Include /etc/ssh/sshd_config.d/00-keys-only.conf' /etc/ssh/sshd_config",
        'ssh-keygen -A',
        // The build fails here unless a key is the only way to log in.
        `/usr/sbin/sshd -T -C user=${user},host=localhost,addr=127.0.0.1 | ` +
          "grep -qx 'authenticationmethods publickey'",
      ],
      { user: 'root' },
    )
    .setStartCmd(`${folder}/start.sh ${bridge_port} ${sshd_port}`, waitForPort(bridge_port))
}

/** As Python's shlex.quote. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`
}
