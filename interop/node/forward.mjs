// Port-forward over WebSocket channels by Kubernetes' client for JavaScript, through its own PortForward class only:
//   node forward.mjs --server URL --pod NAME --ports PORT [options]
// Options: --namespace NAME (default), --result FILE, --watchdog SECONDS (120).
// Sends all of stdin to the port, and reads what comes back until the server ends the connection. The result is one line of JSON: {"error", "ports": {PORT: {"bytes", "sha256", "error"}}}.

import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { PassThrough, Writable } from 'node:stream'
import { parseArgs } from 'node:util'
import { KubeConfig, PortForward } from '@kubernetes/client-node'

const { values } = parseArgs({
  options: {
    server: { type: 'string' },
    namespace: { type: 'string', default: 'default' },
    pod: { type: 'string', default: '' },
    ports: { type: 'string', default: '' },
    result: { type: 'string' },
    watchdog: { type: 'string', default: '120' }
  }
})
const port = Number(values.ports)
if (!values.server || !values.pod || !Number.isInteger(port)) {
  process.stderr.write('node forward.mjs --server URL --pod NAME --ports PORT [options]\n')
  process.exit(2)
}

const sum = createHash('sha256')
const said = { bytes: 0, sha256: null, error: null }
const result = { error: null, ports: { [port]: said } }
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
const output = sink((data) => { said.bytes += data.length; sum.update(data) })
// The library passes on what is left of the greeting, which is nothing.
const errors = sink((data) => { if (data.length > 0) said.error = (said.error ?? '') + data })
// The library closes the whole when its input ends: this one does not, so that the answer can come.
const input = process.stdin.pipe(new PassThrough(), { end: false })
try {
  const socket = await new PortForward(config).portForward(values.namespace, values.pod, [port], output, errors, input)
  if (socket.readyState === socket.CLOSED) finish()
  else socket.addEventListener('close', () => finish())
} catch (event) {
  finish(event.message || String(event))
}

function sink (take) {
  return new Writable({ write (data, _, done) { take(data); done() } })
}

function finish (error = null, status = error ? 1 : 0) {
  result.error = error
  said.sha256 = sum.digest('hex')
  if (error) process.stderr.write(error + '\n')
  if (values.result) writeFileSync(values.result, JSON.stringify(result) + '\n')
  process.exit(status)
}
