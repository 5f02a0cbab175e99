// One connection of the npm package ssh2, made as VSCodium's extension open-remote-ssh makes it: the ProxyCommand's
// standard input and output are its socket. Takes its settings as JSON in argv[2], prints what it saw as JSON.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { Duplex } from 'node:stream'
import { promisify } from 'node:util'
import ssh2 from 'ssh2'

const given = JSON.parse(process.argv[2])
const seen = {}

const child = spawn(given.command[0], given.command.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] })
const childExit = once(child, 'exit')
const client = new ssh2.Client()
client.connect({
  sock: Duplex.from({ readable: child.stdout, writable: child.stdin }),
  username: given.user,
  privateKey: readFileSync(given.key),
  hostVerifier: (key) => key.toString('base64') === given.hostKey,
  readyTimeout: 20_000,
  strictVendor: false,
})
await once(client, 'ready')

// Runs a command, or a shell, to its end; `talk` is given the stream and a way to wait for output. All listeners are
// there when the callback returns: the next packets may be in the same chunk as what has called it.
function session (open, talk = () => {}) {
  return new Promise((resolve, reject) => {
    open((error, stream) => {
      if (error) return reject(error)
      const output = { stdout: '', stderr: '' }
      stream.on('data', (data) => { output.stdout += data })
      stream.stderr.on('data', (data) => { output.stderr += data })
      stream.on('exit', (code, signal) => Object.assign(output, { code, signal: signal ?? null }))
      stream.on('close', () => resolve(output))
      const until = async (text) => { while (!output.stdout.includes(text)) await once(stream, 'data') }
      Promise.resolve(talk(stream, until)).catch(reject)
    })
  })
}

const exec = (command) => (callback) => client.exec(command, callback)
const shell = (window) => (callback) => client.shell(window, callback)
const digest = (data) => createHash('sha256').update(data).digest('hex')

async function echoed (stream) {
  const chunks = []
  stream.on('data', (chunk) => chunks.push(chunk))
  stream.end(Buffer.alloc(given.echoed, 'x'))
  await once(stream, 'end')
  return digest(Buffer.concat(chunks))
}

// Several at once, as the extension does when it installs its server
;[seen.failed, seen.killed, seen.script] = await Promise.all([
  session(exec('echo out; echo err >&2; exit 7')),
  session(exec('echo before; kill -TERM $$')),
  session(exec('bash'), (stream) => stream.end('echo "script: $((6 * 7))"\n')),
])

seen.shell = await session(shell({ term: 'xterm', cols: 91, rows: 31, width: 910, height: 620 }), async (stream, until) => {
  stream.write('unset HISTFILE; stty -echo; PS1=; echo here: $TERM $(stty size)\n')
  await until('here: xterm 31 91\r\n')
  stream.setWindow(41, 101, 820, 1010)
  stream.write('echo now: $(stty size)\n')
  await until('now: 41 101\r\n')
  stream.write('exit 5\n')
})

const sftp = await promisify(client.sftp.bind(client))()
const call = (name, ...words) => promisify(sftp[name].bind(sftp))(...words)
for (const [near, far, again] of given.files) {
  await call('fastPut', near, far, { mode: 0o640 })
  await call('fastGet', far, again)
}
seen.size = (await call('stat', given.files.at(-1)[1])).size
seen.mode = (await call('stat', given.files.at(-1)[1])).mode & 0o7777
seen.names = (await call('readdir', given.folder)).map((entry) => entry.filename).sort()
seen.missing = await call('stat', `${given.folder}/missing`).catch((error) => error.message)
sftp.end()

seen.tcp = await echoed(await promisify(client.forwardOut.bind(client))('127.0.0.1', 1, '127.0.0.1', given.port))
seen.refused = await promisify(client.forwardOut.bind(client))('127.0.0.1', 1, '127.0.0.1', given.closedPort)
  .catch((error) => error.message)

const server = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)).listen(given.socket)
await once(server, 'listening')
seen.unix = await echoed(await promisify(client.openssh_forwardOutStreamLocal.bind(client))(given.socket))
server.close()

client.on('tcp connection', (details, accept) => { const stream = accept(); stream.pipe(stream) })
const port = await promisify(client.forwardIn.bind(client))('127.0.0.1', 0)
seen.back = await echoed(connect({ port, host: '127.0.0.1', allowHalfOpen: true }))
await promisify(client.unforwardIn.bind(client))('127.0.0.1', port)

client.end()
await once(client, 'close')
seen.exit = (await childExit)[0]
console.log(JSON.stringify(seen))
