// Builds the template in E2B's cloud, under the account of E2B_API_KEY. The twin of build.py.

import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { AuthenticationError, defaultBuildLogger, Template } from 'e2b'
import { HERE, SETTINGS, sshTemplate } from './template.ts'

const HELP = `usage: build.ts [--name ${SETTINGS.name}] [--public-key FILE] [--release ${SETTINGS.release}] [--bridge SOURCE] [--json]

${'--public-key FILE'.padEnd(18)} who may log in: one or more keys, one per line (default: ~/.ssh/id_ed25519.pub)
${'--release N'.padEnd(18)} release of Ubuntu, 24.04 or later
${'--bridge SOURCE'.padEnd(18)} a wheel, the single file wstunnel-py.pyz (needs no pip), or wstunnel-py==VERSION
${''.padEnd(18)} from PyPI (default: a wheel of this repository)
${'--json'.padEnd(18)} print what would be sent to E2B, and send nothing`

class Problem extends Error {}

function readKeys(path: string): string[] {
  let text: string
  try {
    text = readFileSync(expand(path), 'utf8')
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'No such file or directory' : String(error)
    throw new Problem(`${path}: ${reason}; ssh-keygen -t ed25519 makes a key`)
  }
  if (text.includes('PRIVATE KEY')) {
    throw new Problem(`${path} is a private key, which must stay out of images; give the file that ends in .pub`)
  }
  const lines = text.split('\n').map((line) => line.trim()).filter((line) => line && !line.startsWith('#'))
  const keys = lines.map(publicKey)
  if (!keys.length) throw new Problem(`${path}: not a public key file`)
  return keys.map((key) => {
    if (!key) throw new Problem(`${path}: not a public key file`)
    return key
  })
}

function publicKey(line: string): string | undefined {
  const match = /^((?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})(?: .*)?$/.exec(line)
  if (!match) return undefined
  const [, kind, text] = match as unknown as [string, string, string]
  // RFC 4253 section 6.6: the blob begins with the kind again, as a string with its length.
  const blob = Buffer.from(text, 'base64')
  const repeated = blob.length > 4 && blob.readUInt32BE(0) === kind.length
  return repeated && blob.toString('latin1', 4, 4 + kind.length) === kind ? `${kind} ${text}` : undefined
}

function checkRelease(text: string): string {
  const match = /^(\d\d)\.(04|10)$/.exec(text)
  if (!match) throw new Problem(`--release ${text}: not an Ubuntu release such as 24.04 or 26.04`)
  if (Number(match[1]) < 24) throw new Problem(`--release ${text}: the bridge needs Python 3.11, so use 24.04 or later`)
  return text
}

function findBridge(wanted: string | undefined): string {
  if (wanted && !/\.(whl|pyz)$/.test(wanted)) {
    if (!/^wstunnel-py(\[[a-z,]+\])?([=<>!~]=?[0-9a-z.,=<>!~*]+)?$/.test(wanted)) {
      throw new Problem(`--bridge ${wanted}: not a wheel, a .pyz file or a requirement such as wstunnel-py==1.0`)
    }
    return wanted
  }
  const folder = mkdtempSync(join(tmpdir(), 'wheel-'))
  try {
    const file = wanted ? resolve(expand(wanted)) : buildWheel(folder)
    if (!existsSync(file)) throw new Problem(`--bridge ${wanted}: there is no such file`)
    const target = join(HERE, 'dist', basename(file))
    if (file !== target) {
      mkdirSync(join(HERE, 'dist'), { recursive: true })
      copyFileSync(file, target)
    }
    return `dist/${basename(file)}`
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function buildWheel(folder: string): string {
  const repository = resolve(HERE, '..', '..')
  if (!existsSync(join(repository, 'tunnel'))) {
    throw new Problem('this folder is not in its repository: name the bridge with --bridge')
  }
  const pip = ['-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', folder, repository]
  const done = spawnSync('python3', pip, { stdio: ['ignore', 'ignore', 'pipe'], encoding: 'utf8' })
  const wheel = readdirSync(folder).find((name) => name.endsWith('.whl'))
  if (done.status !== 0 || !wheel) {
    const said = done.error?.message ?? done.stderr.trim().split('\n').at(-1)
    throw new Problem(`the wheel cannot be built: ${said || 'it said nothing'}`)
  }
  return join(folder, wheel)
}

function expand(path: string): string {
  return path.startsWith('~/') ? join(homedir(), path.slice(2)) : path
}

function options() {
  const known = {
    name: { type: 'string', default: SETTINGS.name },
    'public-key': { type: 'string', default: '~/.ssh/id_ed25519.pub' },
    release: { type: 'string', default: SETTINGS.release },
    bridge: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  } as const
  try {
    return parseArgs({ options: known }).values
  } catch (error) {
    throw new Problem((error as Error).message.split('. ')[0])
  }
}

async function main(): Promise<number> {
  const given = options()
  if (given.help) {
    console.log(HELP)
    return 0
  }
  if (!/^[a-z0-9][a-z0-9_-]*(:[A-Za-z0-9._-]+)?$/.test(given.name)) {
    throw new Problem(`--name ${given.name}: use lower-case letters, digits, - and _`)
  }
  if (!given.json && !process.env.E2B_API_KEY) {
    throw new Problem("E2B_API_KEY is not set: create a key in E2B's dashboard, under API keys")
  }
  const release = checkRelease(given.release)
  const keys = readKeys(given['public-key'])
  const template = sshTemplate(keys, findBridge(given.bridge), release)
  if (given.json) {
    console.log(await Template.toJSON(template))
    return 0
  }
  try {
    const built = await Template.build(template, given.name, {
      cpuCount: SETTINGS.cpu_count,
      memoryMB: SETTINGS.memory_mb,
      onBuildLogs: defaultBuildLogger(),
    })
    console.log(`${given.name} is ready (template ${built.templateId}): python connect.py --name ${given.name}`)
    return 0
  } catch (error) {
    const { name, message, cause } = error as Error
    const refused = error instanceof AuthenticationError
    const text = (cause instanceof Error ? `${message}: ${cause.message}` : message).split(/\s+/).join(' ')
    console.error(`build.ts: ${refused ? 'E2B rejects E2B_API_KEY' : name}: ${text}`)
    return refused ? 77 : 69
  }
}

try {
  process.exitCode = await main()
} catch (error) {
  if (!(error instanceof Problem)) throw error
  console.error(`build.ts: ${error.message}`)
  process.exitCode = 2
}
