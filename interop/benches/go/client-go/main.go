// client-go is client-go's WebSocket executor as a peer of the benchmarks. The query of the URL says what the server
// does, as in benches/support/websocket.rs. Each transfer runs twice: the first warms up, and the second is measured.
//
//	cd interop/benches/go && go build -o bin/ ./...
//
// It prints one line: the seconds of a transfer, or p50 and p99 in µs and the round trips per second of an echo.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
)

var (
	target = flag.String("url", "", "the exec URL with its query")
	do     = flag.String("do", "to-server", "to-server, to-client or echo")
	total  = flag.Int("bytes", 256<<20, "bytes of the measured transfer")
	warmUp = flag.Int("warm-up", 32<<20, "bytes of the transfer that warms up")
)

const (
	warmUps = 500
	echoes  = 4_000
)

// work is the command's stdin and stdout, as the executor sees them. The executor reads stdin and writes stdout.
type work interface {
	io.Reader
	io.Writer
	report()
}

func main() {
	flag.Parse()
	server, err := url.Parse(*target)
	check(err)
	executor, err := remotecommand.NewWebSocketExecutor(&rest.Config{Host: server.Host}, "GET", *target)
	check(err)
	var it work
	came := make(chan int, 1)
	switch *do {
	case "to-server":
		it = &sending{parts: []int{*warmUp, *total}, came: came}
	case "to-client":
		it = &receiving{parts: []int{*warmUp, *total}, came: came}
	case "echo":
		it = &echoing{came: came}
	}
	check(executor.StreamWithContext(context.Background(), remotecommand.StreamOptions{Stdin: it, Stdout: it, Stderr: io.Discard}))
	it.report()
}

// sending gives as many bytes as the executor asks for, which is 32 KiB, and waits for a byte after each part.
type sending struct {
	parts   []int
	left    int
	waits   bool
	came    chan int
	began   time.Time
	seconds float64
}

func (s *sending) Read(into []byte) (int, error) {
	if s.left == 0 {
		if s.waits {
			<-s.came
			s.seconds = time.Since(s.began).Seconds()
		}
		if len(s.parts) == 0 {
			return 0, io.EOF
		}
		s.left, s.parts, s.waits = s.parts[0], s.parts[1:], true
		s.began = time.Now()
	}
	given := min(len(into), s.left)
	s.left -= given
	return given, nil
}

func (s *sending) Write(from []byte) (int, error) {
	s.came <- len(from)
	return len(from), nil
}

func (s *sending) report() { fmt.Println(s.seconds) }

// receiving asks for each part with a byte, after the previous part has come.
type receiving struct {
	parts   []int
	next    int
	left    int
	came    chan int
	began   time.Time
	seconds float64
}

func (r *receiving) Read(into []byte) (int, error) {
	if r.next > 0 {
		<-r.came
		r.seconds = time.Since(r.began).Seconds()
	}
	if r.next == len(r.parts) {
		return 0, io.EOF
	}
	r.left = r.parts[r.next]
	r.next++
	r.began = time.Now()
	into[0] = 1
	return 1, nil
}

// Write runs concurrently with Read, but only after Read has asked for a part and while it waits.
func (r *receiving) Write(from []byte) (int, error) {
	r.left -= len(from)
	if r.left == 0 {
		r.came <- 0
	}
	return len(from), nil
}

func (r *receiving) report() { fmt.Println(r.seconds) }

type echoing struct {
	trips int
	came  chan int
	began time.Time
	taken []time.Duration
	sum   time.Duration
}

func (e *echoing) Read(into []byte) (int, error) {
	if e.trips > 0 {
		<-e.came
		if took := time.Since(e.began); e.trips > warmUps {
			e.taken = append(e.taken, took)
			e.sum += took
		}
	}
	if e.trips == warmUps+echoes {
		return 0, io.EOF
	}
	e.trips++
	into[0] = 7
	e.began = time.Now()
	return 1, nil
}

func (e *echoing) Write(from []byte) (int, error) {
	e.came <- len(from)
	return len(from), nil
}

func (e *echoing) report() {
	slices.Sort(e.taken)
	micros := func(share int) float64 { return e.taken[len(e.taken)*share/100].Seconds() * 1e6 }
	fmt.Println(micros(50), micros(99), echoes/e.sum.Seconds())
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
