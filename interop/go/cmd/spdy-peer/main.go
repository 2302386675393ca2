// spdy-peer is moby/spdystream on a raw TCP connection, without HTTP, as client or server. A stream's header `scenario`
// says what the accepting side does; the suite's README has the table. The other end may be this program or any that
// follows the same convention.
package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/moby/spdystream"

	"kubestream.test/interop/internal/peer"
)

const (
	chunk = 32 << 10
	// patience limits one step. It is long, so that a slow machine does not reach it.
	patience = 30 * time.Second
)

var (
	listen   = flag.Bool("listen", false, "accept connections on 127.0.0.1, one after another")
	dial     = flag.String("dial", "", "connect to this address and run the scenario")
	scenario = flag.String("scenario", "", "dialling: scenarios, separated by commas, or all; listening: the scenario of streams without the header")
	size     = flag.Int64("bytes", 300_000, "bytes of each transfer; listening: for streams without the header `bytes`")
	goAway   = flag.Int("goaway-after", 0, "listening: GOAWAY after this many completed streams, then close once none is open")
	logging  = flag.Bool("log", false, "listening: print a line of JSON for each completed stream and each connection")
)

func main() {
	peer.Start()
	switch {
	case *listen && *dial == "":
		serve()
	case *dial != "" && !*listen:
		runScenarios()
	default:
		peer.Usage("one of -listen and -dial")
	}
}

func request(scenario string, bytes int64) http.Header {
	h := http.Header{}
	h.Set("scenario", scenario)
	h.Set("bytes", strconv.FormatInt(bytes, 10))
	return h
}

// pattern is the content of every transfer: byte i is i mod 251, so that a lost or moved block shows.
type pattern struct{ at, end int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.end {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.end-p.at))
	for i := range n {
		b[i] = byte((p.at + int64(i)) % 251)
	}
	p.at += int64(n)
	return n, nil
}

// sendPattern writes the pattern in pieces of 32 KiB. spdystream makes one DATA frame of each.
func sendPattern(stream *spdystream.Stream, bytes int64) error {
	from := &pattern{end: bytes}
	buffer := make([]byte, chunk)
	for {
		n, err := from.Read(buffer)
		if err == io.EOF {
			return nil
		}
		if _, err := stream.Write(buffer[:n]); err != nil {
			return err
		}
	}
}

// readPattern reads to the end and reports where the content first differs from the pattern.
func readPattern(from io.Reader, bytes int64) error {
	buffer := make([]byte, chunk)
	var got int64
	for {
		n, err := from.Read(buffer)
		for i, b := range buffer[:n] {
			if at := got + int64(i); at >= bytes || b != byte(at%251) {
				return fmt.Errorf("byte %d of %d is %#02x", at, bytes, b)
			}
		}
		got += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", got, err)
		}
	}
	if got != bytes {
		return fmt.Errorf("the end came after %d of %d bytes", got, bytes)
	}
	return nil
}

// digest is the answer of the scenario `sink`: a decimal count, a space, and the SHA-256 in hex.
func digest(from io.Reader) (string, int64, error) {
	sum := sha256.New()
	n, err := io.Copy(sum, from)
	return fmt.Sprintf("%d %x", n, sum.Sum(nil)), n, err
}
