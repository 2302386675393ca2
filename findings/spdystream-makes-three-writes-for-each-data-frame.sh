#!/bin/sh
# moby/spdystream 0.5.1, the SPDY library of Kubernetes: how it hands frames to its connection.
#
# Expected: a framer gives its connection each frame with one Write, or collects several in a buffer, as Go's HTTP/2 framer does.
# Observed: a DATA frame is three Writes: the stream id, the flags with the length, and the payload. A SYN_STREAM with one
#   header is eight: one for each of its fields, and one for its headers. Nothing is buffered in between.
#   Go sets TCP_NODELAY on every TCP connection, so each Write is a system call, and a TCP segment of its own while the peer keeps up.
#   Over TLS each is a record of its own, with 22 bytes and more around 4.
# So a benchmark of a reader against this writer measures mostly the writer's system calls, a wrapper that buffers until a frame is
# whole makes it faster, and a reader may see a frame in pieces of 4 bytes.
#
# Needs Go. Exits 0 while spdystream behaves like this.
set -eu
d=$(mktemp -d); trap 'rm -rf "$d"' EXIT
cat >"$d/go.mod" <<'MOD'
module finding

go 1.24

require github.com/moby/spdystream v0.5.1
MOD
cat >"$d/main.go" <<'GO'
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"

	"github.com/moby/spdystream"
)

// A connection that notes the size of each Write.
type noting struct {
	net.Conn
	lock  sync.Mutex
	sizes []int
}

func (n *noting) Write(bytes []byte) (int, error) {
	n.lock.Lock()
	n.sizes = append(n.sizes, len(bytes))
	n.lock.Unlock()
	return n.Conn.Write(bytes)
}

func (n *noting) taken() []int {
	n.lock.Lock()
	defer n.lock.Unlock()
	sizes := n.sizes
	n.sizes = nil
	return sizes
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	near, far := net.Pipe()
	go io.Copy(io.Discard, far)
	conn := &noting{Conn: near}
	connection, err := spdystream.NewConnection(conn, false)
	check(err)
	headers := http.Header{}
	headers.Set("streamtype", "stdin")
	stream, err := connection.CreateStream(headers, nil, false)
	check(err)
	syn := conn.taken()
	_, err = stream.Write(make([]byte, 64))
	check(err)
	small := conn.taken()
	_, err = stream.Write(make([]byte, 32<<10))
	check(err)
	large := conn.taken()
	fmt.Println("spdystream 0.5.1, sizes of the Writes of each frame")
	fmt.Println("SYN_STREAM with one header:", syn)
	fmt.Println("DATA, 64 bytes:", small)
	fmt.Println("DATA, 32 KiB:", large)
	if len(syn) < 4 || !slices.Equal(small, []int{4, 4, 64}) || !slices.Equal(large, []int{4, 4, 32 << 10}) {
		os.Exit(1)
	}
}
GO
cd "$d"
GOFLAGS=-mod=mod go mod tidy >/dev/null 2>&1
GOFLAGS=-mod=mod go run .
