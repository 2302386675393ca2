#!/bin/sh
# k8s.io/streaming 0.37.2 (wsstream, on golang.org/x/net/websocket), the WebSocket server of exec in the kubelet and the runtimes, with
# Python's websockets 15.0.1 as client: what becomes of a message in fragments.
#
# Expected: a message may be cut into frames anywhere (RFC 6455 section 5.4), so stdin is "hello world" however it is cut.
# Observed: the server takes each frame for a message. The first byte of the second fragment is a channel number to it, and is lost:
#   "hello " and "world" arrive as "hello ", because "w" is no channel; "hello " and "\0world" arrive as "hello world".
#   The client sees no error, and the connection stays open.
# So a client of Kubernetes must send each message in one frame. websockets does so for a bytes object, and not for an iterable.
#
# Needs Go and Python 3. Exits 0 while wsstream behaves like this.
set -eu
d=$(mktemp -d); trap 'rm -rf "$d"' EXIT
cat >"$d/go.mod" <<'MOD'
module finding

go 1.26

require k8s.io/streaming v0.37.2
MOD
cat >"$d/main.go" <<'GO'
// A server that prints what a client sends on channel 0, a line for each connection.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"

	"k8s.io/streaming/pkg/httpstream/wsstream"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		channels := []wsstream.ChannelType{wsstream.ReadChannel}
		conn := wsstream.NewConn(wsstream.NewDefaultChannelProtocols(channels))
		_, streams, err := conn.Open(w, request)
		if err != nil {
			panic(err)
		}
		stdin, _ := io.ReadAll(streams[0])
		fmt.Printf("%q\n", stdin)
	}))
}
GO
cat >"$d/client.py" <<'PY'
import subprocess, sys
from websockets.sync.client import connect

server = subprocess.Popen([sys.argv[1]], stdout=subprocess.PIPE, text=True)
address = server.stdout.readline().strip()
got = []
for message in [b"\0hello world"], [[b"\0hello ", b"world"]], [[b"\0hello ", b"\0world"]]:
    with connect(f"ws://{address}/", subprotocols=["channel.k8s.io"]) as client:
        client.send(message[0])
    got.append(server.stdout.readline().strip())
    print(f"{message[0]!r:32} arrives as {got[-1]}")
server.kill()
sys.exit(got != ['"hello world"', '"hello "', '"hello world"'])
PY
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install --quiet --disable-pip-version-check websockets==15.0.1
cd "$d"
GOFLAGS=-mod=mod go mod tidy >/dev/null 2>&1
GOFLAGS=-mod=mod go build -o server .
echo "k8s.io/streaming 0.37.2, websockets 15.0.1: what is sent on channel 0"
"$d/venv/bin/python" client.py "$d/server" 2>/dev/null
