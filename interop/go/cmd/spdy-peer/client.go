package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/spdystream"

	"kubestream.test/interop/internal/peer"
)

var order = []string{"echo", "half-close", "reset", "refuse", "source", "sink", "ping", "server-ping", "thousand", "goaway"}

var clientScenarios = map[string]func(*spdystream.Connection) error{
	"echo":        func(conn *spdystream.Connection) error { return echo(conn, *size) },
	"half-close":  halfClose,
	"reset":       reset,
	"refuse":      refuse,
	"source":      func(conn *spdystream.Connection) error { return drain(conn, "source") },
	"sink":        sink,
	"ping":        ping,
	"server-ping": serverPing,
	"thousand":    thousand,
	"goaway":      goAwayAfterData,
}

// runScenarios runs each scenario on a connection of its own and prints its result. One failure fails the process.
func runScenarios() {
	names := strings.Split(*scenario, ",")
	if *scenario == "all" {
		names = order
	}
	failed := false
	for _, name := range names {
		run := clientScenarios[name]
		if run == nil {
			peer.Usage("-scenario: unknown %q; known are %s", name, strings.Join(order, ", "))
		}
		start := time.Now()
		err := runOne(run)
		peer.Print(map[string]any{"scenario": name, "ok": err == nil, "error": text(err), "millis": time.Since(start).Milliseconds()})
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

func runOne(run func(*spdystream.Connection) error) error {
	socket, err := net.Dial("tcp", *dial)
	if err != nil {
		return err
	}
	defer socket.Close()
	conn, err := spdystream.NewConnection(socket, false)
	if err != nil {
		return err
	}
	// In this convention a server opens no streams.
	go conn.Serve(func(stream *spdystream.Stream) { _ = stream.Refuse() })
	outcome := make(chan error, 1)
	go func() { outcome <- run(conn) }()
	select {
	case err := <-outcome:
		if err != nil {
			return err
		}
	case <-time.After(patience):
		return fmt.Errorf("nothing has come of it in %s", patience)
	}
	conn.SetCloseTimeout(patience)
	start := time.Now()
	// The error only says that the server closed first, which is allowed.
	_ = conn.CloseWait()
	if time.Since(start) >= patience {
		return errors.New("close: a stream was still open")
	}
	return nil
}

func open(conn *spdystream.Connection, name string, bytes int64) (*spdystream.Stream, error) {
	stream, err := conn.CreateStream(request(name, bytes), nil, false)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if err := stream.WaitTimeout(patience); err != nil {
		return nil, fmt.Errorf("reply: %w", err)
	}
	return stream, nil
}

func echo(conn *spdystream.Connection, bytes int64) error {
	stream, err := open(conn, "echo", bytes)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- first(sendPattern(stream, bytes), stream.Close()) }()
	read := readPattern(stream, bytes)
	return first(read, <-sent)
}

// halfClose expects all bytes after its own FIN, and none before it.
func halfClose(conn *spdystream.Connection) error {
	stream, err := open(conn, "half-close", *size)
	if err != nil {
		return err
	}
	var finished atomic.Bool
	sent := make(chan error, 1)
	go func() {
		err := sendPattern(stream, *size)
		finished.Store(true)
		sent <- first(err, stream.Close())
	}()
	first32 := make([]byte, chunk)
	n, err := stream.Read(first32)
	if err != nil {
		return fmt.Errorf("first read: %w", err)
	}
	if !finished.Load() {
		return errors.New("the server answered before the end of the request")
	}
	read := readPattern(io.MultiReader(bytes.NewReader(first32[:n]), stream), *size)
	return first(read, <-sent)
}

// reset tells RST_STREAM from FIN by its effect on the sending half, because spdystream reads both as the end. The
// connection must survive.
func reset(conn *spdystream.Connection) error {
	stream, err := open(conn, "reset", 0)
	if err != nil {
		return err
	}
	if _, err := stream.Write([]byte("to be reset")); err != nil {
		return err
	}
	if n, err := stream.Read(make([]byte, chunk)); n != 0 || err != io.EOF {
		return fmt.Errorf("read %d bytes and %v, not the end", n, err)
	}
	for start := time.Now(); !stream.IsFinished(); time.Sleep(time.Millisecond) {
		if time.Since(start) > patience {
			return errors.New("the stream ended, but was not reset")
		}
	}
	return echo(conn, *size)
}

func refuse(conn *spdystream.Connection) error {
	stream, err := conn.CreateStream(request("refuse", 0), nil, false)
	if err != nil {
		return err
	}
	if err := stream.WaitTimeout(patience); !errors.Is(err, spdystream.ErrReset) {
		return fmt.Errorf("the reply was %v, not a reset", err)
	}
	return echo(conn, *size)
}

// drain ends its own half at once and reads the pattern to its end.
func drain(conn *spdystream.Connection, name string) error {
	stream, err := open(conn, name, *size)
	if err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	return readPattern(stream, *size)
}

func sink(conn *spdystream.Connection) error {
	stream, err := open(conn, "sink", *size)
	if err != nil {
		return err
	}
	if err := first(sendPattern(stream, *size), stream.Close()); err != nil {
		return err
	}
	got, err := io.ReadAll(stream)
	if err != nil {
		return err
	}
	if want, _, _ := digest(&pattern{end: *size}); string(got) != want {
		return fmt.Errorf("the answer is %q, not %q", got, want)
	}
	return nil
}

func ping(conn *spdystream.Connection) error {
	for n := range 10 {
		if _, err := conn.Ping(); err != nil {
			return fmt.Errorf("ping %d: %w", n, err)
		}
	}
	return nil
}

// serverPing makes the server send ten PINGs, which spdystream answers, before the stream ends.
func serverPing(conn *spdystream.Connection) error {
	stream, err := open(conn, "ping", 0)
	if err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	if got, err := io.ReadAll(stream); err != nil || string(got) != "10 pings" {
		return fmt.Errorf("the answer is %q and %v", got, err)
	}
	return nil
}

func thousand(conn *spdystream.Connection) error {
	slots := make(chan struct{}, 100)
	results := make(chan error, 1000)
	var all sync.WaitGroup
	for n := range 1000 {
		slots <- struct{}{}
		all.Add(1)
		go func() {
			defer func() { <-slots; all.Done() }()
			if err := echo(conn, int64(1+n*7)); err != nil {
				results <- fmt.Errorf("stream number %d: %w", n, err)
			}
		}()
	}
	all.Wait()
	close(results)
	return <-results
}

// goAwayAfterData reads everything that was sent before the GOAWAY. It sends its own FIN first, because spdystream
// writes nothing after a GOAWAY has come.
func goAwayAfterData(conn *spdystream.Connection) error {
	goneAway := make(chan *spdystream.Stream, 1)
	conn.NotifyClose(goneAway, patience)
	if err := drain(conn, "goaway"); err != nil {
		return err
	}
	// spdystream's channel for the end of reading cannot tell a GOAWAY from a plain end. This one can.
	select {
	case <-goneAway:
		return nil
	case <-time.After(patience / 2):
		return errors.New("no GOAWAY came")
	}
}
