// Exec over WebSocket by Kubernetes' client for JavaScript, through its own Exec class only:
//   node exec.mjs --server URL --pod NAME [options] -- COMMAND ARGUMENTS...
// Options: --namespace NAME (default), --container NAME (main), --stdin (this process's stdin, to its end), --tty,
// --resize 80x24,132x50 (300 ms apart), --protocol NAME (offer only this one, by a socket that the library is given), --result FILE, --watchdog SECONDS (120).
// The outputs pass through, and the exit status is the command's exit code. The result is one line of JSON:
// {"exitCode", "status", "protocol", "error"}. Without an exit code, exitCode is -1 and the exit status is 1.

import { writeFileSync } from 'node:fs'
import { Writable } from 'node:stream'
import { parseArgs } from 'node:util'
import { Exec, KubeConfig } from '@kubernetes/client-node'
import WebSocket from 'isomorphic-ws'

const { values, positionals: command } = parseArgs({
  allowPositionals: true,
  options: {
    server: { type: 'string' },
    namespace: { type: 'string', default: 'default' },
    pod: { type: 'string', default: '' },
    container: { type: 'string', default: 'main' },
    stdin: { type: 'boolean', default: false },
    tty: { type: 'boolean', default: false },
    resize: { type: 'string' },
    protocol: { type: 'string' },
    result: { type: 'string' },
    watchdog: { type: 'string', default: '120' }
  }
})
if (!values.server || !values.pod || command.length === 0) {
  process.stderr.write('node exec.mjs --server URL --pod NAME [options] -- COMMAND ARGUMENTS...\n')
  process.exit(2)
}

const result = { exitCode: -1, status: null, protocol: null, error: null }
setTimeout(() => finish(`watchdog: still running after ${values.watchdog} s`, 124), Number(values.watchdog) * 1000).unref()
// What the library throws while it handles a message lands here, and nowhere else.
process.on('uncaughtException', (error) => finish(error.stack))

const config = new KubeConfig()
config.loadFromOptions({
  clusters: [{ name: 'peer', server: values.server, skipTLSVerify: true }], // else it refuses plain HTTP
  users: [{ name: 'nobody' }],
  contexts: [{ name: 'peer', cluster: 'peer', user: 'nobody' }],
  currentContext: 'peer'
})
const sizes = values.resize?.split(',').map((size) => size.split('x').map(Number))
const stdout = sizes ? terminal(sizes) : process.stdout
const stderr = values.tty ? null : process.stderr
const stdin = values.stdin ? process.stdin : null
const exec = new Exec(config)
if (values.protocol) exec.handler.socketFactory = (uri, _, options) => new WebSocket(uri, [values.protocol], options)
const onStatus = (status) => { result.status = status; result.exitCode = exitCode(status) }
try {
  const socket = await exec.exec(values.namespace, values.pod, values.container, command, stdout, stderr, stdin, values.tty, onStatus)
  result.protocol = socket.protocol
  // Not the status: that the connection ends too is part of what the other side has to do.
  if (socket.readyState === socket.CLOSED) finish()
  else socket.addEventListener('close', () => finish())
} catch (event) {
  finish(event.message || String(event))
}

// The library takes sizes from a stdout with rows and columns that emits resize, as a terminal does.
function terminal ([first, ...rest]) {
  const stream = new Writable({ write: (data, _, done) => process.stdout.write(data, done) })
  const set = ([columns, rows]) => Object.assign(stream, { columns, rows })
  set(first)
  const next = () => {
    if (rest.length === 0) return
    set(rest.shift()).emit('resize')
    setTimeout(next, 300)
  }
  setTimeout(next, 300)
  return stream
}

function exitCode (status) {
  if (status.status === 'Success') return 0
  if (status.reason !== 'NonZeroExitCode') return -1
  const cause = status.details?.causes?.find((cause) => cause.reason === 'ExitCode')
  return cause ? Number(cause.message) : -1
}

function finish (error = null, status = result.exitCode < 0 ? 1 : result.exitCode) {
  result.error = error
  if (error) process.stderr.write(error + '\n')
  if (values.result) writeFileSync(values.result, JSON.stringify(result) + '\n')
  process.stdout.write('', () => process.exit(status))
}
