'use strict'

// A SPDY/3.1 peer with flow control, by windows for streams and for the session: npm's spdy-transport over raw TCP.
//   node peer.js listen              echo server
//   node peer.js dial ADDR BYTES     sends BYTES of the pattern, expects them back
// Options: --window N (INITIAL_WINDOW_SIZE, 1 MiB by default as in spdy-transport; 65536 is the smallest
// window that it announces correctly), --watchdog SECONDS (120), --stdin-guard (end when stdin closes).
// Every result is one line of JSON on stdout.

const { createHash } = require('crypto')
const net = require('net')
const { parseArgs } = require('util')
const transport = require('spdy-transport')

const SESSION_WINDOW = 64 * 1024

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    window: { type: 'string', default: String(1 << 20) },
    watchdog: { type: 'string', default: '120' },
    'stdin-guard': { type: 'boolean', default: false }
  }
})
const windowSize = Number(values.window)
if (!(windowSize >= SESSION_WINDOW)) {
  usage('--window: below 65536 spdy-transport sends a WINDOW_UPDATE with a negative delta')
}
setTimeout(() => fail(`watchdog: still running after ${values.watchdog} s`, 124), Number(values.watchdog) * 1000).unref()
if (values['stdin-guard']) {
  process.stdin.on('end', () => process.exit(0)).resume()
}
process.on('uncaughtException', (error) => fail(error.stack))

const [mode, address, bytes] = positionals
if (mode === 'listen') listen()
else if (mode === 'dial' && address && Number(bytes) >= 0) dial(address, Number(bytes))
else usage('node peer.js listen | dial ADDR BYTES')

function listen () {
  const server = net.createServer({ noDelay: true }, (socket) => {
    const connection = connect(socket, true)
    const seen = count(connection)
    // An error ends its connection, which spdy-transport would leave open and unread. The next connection is served
    // normally.
    let error = ''
    connection.on('error', (e) => { error = error || e.message; socket.destroy() })
    connection.on('stream', (stream) => {
      onError(stream, (e) => { error = error || e.message })
      stream.respond(200, { 'x-peer': 'spdy-transport' })
      stream.pipe(stream)
    })
    socket.on('close', () => print({ closed: seen, error }))
  })
  server.listen(0, '127.0.0.1', () => {
    print({ listening: `127.0.0.1:${server.address().port}`, announces: announces() })
  })
}

function dial (address, bytes) {
  const [host, port] = address.split(':')
  const socket = net.connect({ host, port: Number(port), noDelay: true }, () => {
    const connection = connect(socket, false)
    const seen = count(connection)
    connection.on('error', (e) => fail(`connection: ${e.message}`))
    let ended = false
    socket.on('close', () => { if (!ended) fail('the connection closed before the end of the stream') })

    const sent = createHash('sha256')
    const got = createHash('sha256')
    let status = 0
    let received = 0
    // POST, because spdy-transport puts FIN on the SYN_STREAM of a GET.
    const stream = connection.request({ method: 'POST', path: '/echo', host: address, headers: { scenario: 'echo' } })
    onError(stream, (e) => fail(`stream: ${e.message}`))
    stream.on('response', (code) => { status = code })
    stream.on('data', (data) => { received += data.length; got.update(data) })
    stream.on('end', () => {
      ended = true
      const sha256 = got.digest('hex')
      const ok = received === bytes && sha256 === sent.digest('hex') && status === 200
      print({ ok, status, bytes, received, sha256, announces: announces(), seen })
      if (!ok) fail(`status ${status}, ${received} of ${bytes} bytes came back, or not the same`)
      connection.end(() => process.exit(0))
    })
    send(stream, bytes, sent)
  })
  socket.on('error', (e) => fail(`socket: ${e.message}`))
}

// Byte i of the pattern is i mod 251.
function send (stream, bytes, hash) {
  let at = 0
  const more = () => {
    while (at < bytes) {
      const chunk = Buffer.alloc(Math.min(32768, bytes - at))
      for (let i = 0; i < chunk.length; i++) chunk[i] = (at + i) % 251
      at += chunk.length
      hash.update(chunk)
      if (!stream.write(chunk)) return stream.once('drain', more)
    }
    stream.end()
  }
  more()
}

function connect (socket, isServer) {
  const connection = transport.connection.create(socket, { protocol: 'spdy', isServer, windowSize })
  // Without this, a server would take the 3 on the wire for SPDY/3, which has no session window.
  connection.start(3.1)
  return connection
}

function announces () {
  return { initial_window_size: windowSize, session_window_update: windowSize - SESSION_WINDOW }
}

// spdy-transport answers a WINDOW_UPDATE on a closed stream with RST_STREAM. Such a reset may cross the end of the
// stream. After both halves have ended it says nothing about the data.
function onError (stream, report) {
  stream.on('error', (error) => {
    if (!(stream._readableState.ended && stream._writableState.finished)) report(error)
  })
}

// Counts what the other side sends, by type; the session's window updates and settings are counted separately.
function count (connection) {
  const seen = {}
  connection.on('frame', (frame) => {
    const type = frame.type === 'WINDOW_UPDATE' && frame.id === 0 ? 'SESSION_WINDOW_UPDATE' : frame.type
    seen[type] = (seen[type] || 0) + 1
    if (frame.type === 'SETTINGS') seen.settings = frame.settings
  })
  return seen
}

function print (value) {
  process.stdout.write(JSON.stringify(value) + '\n')
}

function fail (message, status = 1) {
  process.stderr.write(message + '\n')
  process.exit(status)
}

function usage (message) {
  fail(message, 2)
}
