package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"

	"github.com/moby/spdystream"

	"kubestream.test/interop/internal/peer"
)

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		peer.Fail("%v", err)
	}
	peer.Print(map[string]string{"listening": listener.Addr().String()})
	for {
		socket, err := listener.Accept()
		if err != nil {
			peer.Fail("%v", err)
		}
		serveConnection(socket)
	}
}

func serveConnection(socket net.Conn) {
	// spdystream leaves the socket open when its read loop ends, so it is closed here.
	defer socket.Close()
	conn, err := spdystream.NewConnection(socket, true)
	if err != nil {
		peer.Fail("%v", err)
	}
	// spdystream never forgets a refused stream. Without a limit, Close would wait for it for ever.
	conn.SetCloseTimeout(patience)

	var lock sync.Mutex
	completed, running := 0, sync.WaitGroup{}
	done := func(stream *spdystream.Stream, name string, bytes int64, err error) {
		lock.Lock()
		completed++
		last := completed == *goAway
		lock.Unlock()
		if *logging {
			peer.Print(map[string]any{"stream": stream.Identifier(), "scenario": name, "bytes": bytes, "error": text(err)})
		}
		if last {
			goAwayGracefully(conn)
		}
	}
	// The handler runs in a frame worker. It may reply, but reading there would block the frames to read.
	conn.Serve(func(stream *spdystream.Stream) {
		name := stream.Headers().Get("scenario")
		if name == "" {
			name = *scenario
		}
		if name == "refuse" {
			done(stream, name, 0, stream.Refuse())
			return
		}
		act := scenarios[name]
		if act == nil {
			done(stream, name, 0, fmt.Errorf("unknown scenario, reset: %v", stream.Reset()))
			return
		}
		if err := stream.SendReply(http.Header{}, false); err != nil {
			done(stream, name, 0, err)
			return
		}
		running.Add(1)
		go func() {
			defer running.Done()
			bytes, err := act(conn, stream)
			done(stream, name, bytes, err)
		}()
	})
	running.Wait()
	if *logging {
		peer.Print(map[string]any{"closed": socket.RemoteAddr().String(), "streams": completed})
	}
}

// goAwayGracefully sends GOAWAY. spdystream then closes the socket when no stream is open.
func goAwayGracefully(conn *spdystream.Connection) {
	go func() { _ = conn.CloseWait() }()
}

// scenarios says what a server does with a stream after its reply. Each function returns how many bytes it moved.
var scenarios = map[string]func(*spdystream.Connection, *spdystream.Stream) (int64, error){
	"echo": func(_ *spdystream.Connection, s *spdystream.Stream) (int64, error) {
		n, err := io.CopyBuffer(onlyWriter{s}, s, make([]byte, chunk))
		return n, first(err, s.Close())
	},
	"half-close": func(_ *spdystream.Connection, s *spdystream.Stream) (int64, error) {
		all, err := io.ReadAll(s)
		if err != nil {
			return 0, err
		}
		for rest := all; len(rest) > 0; {
			n := min(len(rest), chunk)
			if _, err := s.Write(rest[:n]); err != nil {
				return 0, err
			}
			rest = rest[n:]
		}
		return int64(len(all)), s.Close()
	},
	"reset": func(_ *spdystream.Connection, s *spdystream.Stream) (int64, error) {
		n, err := s.Read(make([]byte, chunk))
		return int64(n), first(err, s.Reset())
	},
	"source": func(_ *spdystream.Connection, s *spdystream.Stream) (int64, error) { return source(s) },
	"sink": func(_ *spdystream.Connection, s *spdystream.Stream) (int64, error) {
		answer, n, err := digest(s)
		if err != nil {
			return n, err
		}
		_, err = s.Write([]byte(answer))
		return n, first(err, s.Close())
	},
	"ping": func(conn *spdystream.Connection, s *spdystream.Stream) (int64, error) {
		for n := range 10 {
			if _, err := conn.Ping(); err != nil {
				return int64(n), err
			}
		}
		_, err := s.Write([]byte("10 pings"))
		return 10, first(err, s.Close())
	},
	"goaway": func(conn *spdystream.Connection, s *spdystream.Stream) (int64, error) {
		n, err := source(s)
		goAwayGracefully(conn)
		return n, err
	},
}

func source(s *spdystream.Stream) (int64, error) {
	n := *size
	if given := s.Headers().Get("bytes"); given != "" {
		var err error
		if n, err = strconv.ParseInt(given, 10, 64); err != nil {
			return 0, first(err, s.Reset())
		}
	}
	if err := sendPattern(s, n); err != nil {
		return 0, err
	}
	if err := s.Close(); err != nil {
		return n, err
	}
	// Whatever the other side still sends is not needed, but would block other streams if it stayed unread.
	_, err := io.Copy(io.Discard, s)
	return n, err
}

// onlyWriter hides ReadFrom and WriteTo from io.Copy, so that each write has the size of the buffer.
type onlyWriter struct{ io.Writer }

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
