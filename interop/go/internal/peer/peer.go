// Package peer holds what the interop peers share: flags, a limited life, and output as lines of JSON. It knows no
// protocol.
package peer

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

var (
	watchdog   = flag.Duration("watchdog", 120*time.Second, "end with status 124 after this time")
	stdinGuard = flag.Bool("stdin-guard", false, "end with status 0 when stdin closes, so that the peer never outlives its driver")
	stdout     sync.Mutex
)

// Start parses the flags and starts the guards that end the process.
func Start() {
	flag.Parse()
	if flag.NArg() > 0 {
		Usage("unexpected argument %q", flag.Arg(0))
	}
	time.AfterFunc(*watchdog, func() {
		fmt.Fprintf(os.Stderr, "watchdog: still running after %s\n", *watchdog)
		os.Exit(124)
	})
	if *stdinGuard {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	}
}

// Guarded is true if the guard reads stdin, so that the peer must not.
func Guarded() bool { return *stdinGuard }

// Print writes one line of JSON to stdout in one write, so that nothing stays in a buffer.
func Print(value any) {
	line, err := json.Marshal(value)
	if err != nil {
		Fail("%v", err)
	}
	stdout.Lock()
	defer stdout.Unlock()
	if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
		Fail("stdout: %v", err)
	}
}

// Fail ends the process with status 1: an expectation did not hold.
func Fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// Usage ends the process with status 2: the peer was started with wrong arguments.
func Usage(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(2)
}
