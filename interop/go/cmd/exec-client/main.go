// exec-client runs client-go's executors against a server: the client half of kubectl. It opens the streams that the
// URL's query asks for. The command's output passes through. The result goes to fd 3 or to a file, and so never mixes
// with the output.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"

	"kubestream.test/interop/internal/peer"
)

var (
	target    = flag.String("url", "", "the exec URL with its query")
	transport = flag.String("transport", "spdy", "spdy, websocket, or fallback: websocket first, as kubectl does")
	method    = flag.String("method", "POST", "POST or GET for SPDY; a WebSocket request is a GET")
	protocols = flag.String("protocols", "", "protocols to offer, in order (default: v4 to v1 over SPDY, and client-go's own v5 over WebSocket)")
	stdin     = flag.String("stdin", "none", "a file, or - for this process's stdin, or none")
	tty       = flag.Bool("tty", false, "ask for a terminal: no stderr stream, and a resize stream from v3 on")
	resize    = flag.String("resize", "", "terminal sizes such as 80x24,132x50, sent 300 ms apart")
	result    = flag.String("result", "", "write the result to this file instead of fd 3")
)

// outcome has exitCode -1 if no exit code arrived: after a refusal, a lost connection, or the plain text of v1 to v3.
type outcome struct {
	ExitCode int    `json:"exitCode"`
	Error    string `json:"error"`
}

func main() {
	// This runs first, while fd 3 can only be a descriptor from the driver.
	report := inherited(3)
	peer.Start()
	if *result != "" {
		file, err := os.Create(*result)
		if err != nil {
			peer.Usage("%v", err)
		}
		report = file
	}
	u, err := url.Parse(*target)
	if err != nil || u.Host == "" {
		peer.Usage("-url needs a whole URL, not %q", *target)
	}
	options := streams(u.Query())

	var out outcome
	err = run(u, options)
	var exit exec.CodeExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		out = outcome{exit.Code, err.Error()}
	default:
		out = outcome{-1, err.Error()}
	}
	if report != nil {
		if err := json.NewEncoder(report).Encode(out); err != nil {
			peer.Fail("the result: %v", err)
		}
	}
	if out.ExitCode < 0 {
		peer.Fail("%s", out.Error)
	}
	os.Exit(out.ExitCode)
}

func run(u *url.URL, options remotecommand.StreamOptions) error {
	var executor remotecommand.Executor
	var err error
	switch *transport {
	case "spdy":
		executor, err = overSPDY(u)
	case "websocket":
		executor, err = overWebSocket(u)
	case "fallback":
		executor, err = withFallback(u)
	default:
		peer.Usage("-transport is spdy, websocket or fallback, not %q", *transport)
	}
	if err != nil {
		return err
	}
	return executor.StreamWithContext(context.Background(), options)
}

func overSPDY(u *url.URL) (remotecommand.Executor, error) {
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: u.Host})
	if err != nil {
		return nil, err
	}
	offer := "v4.channel.k8s.io,v3.channel.k8s.io,v2.channel.k8s.io,channel.k8s.io"
	if *protocols != "" {
		offer = *protocols
	}
	return remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, *method, u, strings.Split(offer, ",")...)
}

func overWebSocket(u *url.URL) (remotecommand.Executor, error) {
	config := &rest.Config{Host: u.Host}
	if *protocols == "" {
		return remotecommand.NewWebSocketExecutor(config, "GET", u.String())
	}
	return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", u.String(), strings.Split(*protocols, ",")...)
}

// withFallback sends the second request under the same condition as kubectl.
func withFallback(u *url.URL) (remotecommand.Executor, error) {
	first, err := overWebSocket(u)
	if err != nil {
		return nil, err
	}
	second, err := overSPDY(u)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(first, second, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
}

func streams(query url.Values) remotecommand.StreamOptions {
	options := remotecommand.StreamOptions{Tty: *tty}
	if asked(query, "stdout", "output") {
		options.Stdout = os.Stdout
	}
	if asked(query, "stderr", "error") && !*tty {
		options.Stderr = os.Stderr
	}
	switch *stdin {
	case "none":
	case "-":
		if peer.Guarded() {
			peer.Usage("-stdin - and -stdin-guard both want stdin")
		}
		options.Stdin = os.Stdin
	default:
		file, err := os.Open(*stdin)
		if err != nil {
			peer.Usage("%v", err)
		}
		options.Stdin = file
	}
	if *resize != "" {
		options.TerminalSizeQueue = &sizes{left: strings.Split(*resize, ",")}
	}
	return options
}

func asked(query url.Values, names ...string) bool {
	for _, name := range names {
		if on, _ := strconv.ParseBool(query.Get(name)); on {
			return true
		}
	}
	return false
}

type sizes struct {
	left []string
	sent bool
}

func (s *sizes) Next() *remotecommand.TerminalSize {
	if len(s.left) == 0 {
		return nil
	}
	if s.sent {
		time.Sleep(300 * time.Millisecond)
	}
	s.sent = true
	width, height, _ := strings.Cut(s.left[0], "x")
	s.left = s.left[1:]
	w, errW := strconv.ParseUint(width, 10, 16)
	h, errH := strconv.ParseUint(height, 10, 16)
	if err := errors.Join(errW, errH); err != nil {
		peer.Usage("-resize: %v", err)
	}
	return &remotecommand.TerminalSize{Width: uint16(w), Height: uint16(h)}
}

// inherited returns the descriptor if the driver has opened it for writing. The Go runtime opens descriptors of its own
// (epoll, a cgroup file); those have no file type or are read-only.
func inherited(fd int) io.Writer {
	var stat syscall.Stat_t
	if syscall.Fstat(fd, &stat) != nil || stat.Mode&syscall.S_IFMT == 0 {
		return nil
	}
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
	if errno != 0 || flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		return nil
	}
	return os.NewFile(uintptr(fd), "result")
}
