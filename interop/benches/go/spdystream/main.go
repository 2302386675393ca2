// spdystream is moby/spdystream on a raw TCP connection, as client or server of the benchmarks. A stream's header `do`
// says what the accepting side does with it, as in benches/support/ours.rs.
//
//	cd interop/benches/go && go build -o bin/ ./...
//
// -dial prints one line: the seconds of a write; p50 and p99 in µs and the round trips per second of an echo; streams
// opened per second.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/spdystream"
)

var (
	listen = flag.Bool("listen", false, "accept connections on 127.0.0.1 and print the address")
	dial   = flag.String("dial", "", "connect to this address")
	do     = flag.String("do", "write", "dialling: write, echo or open")
	size   = flag.Int("size", 32<<10, "bytes of each write")
	total  = flag.Int("bytes", 256<<20, "bytes of all writes")
	warmUp = flag.Int("warm-up", 32<<20, "bytes written before the clock starts")
	atOnce = flag.Int("at-once", 1, "how many streams to open concurrently")
)

const (
	warmUps = 500
	echoes  = 4_000
	opens   = 4_000
)

func main() {
	flag.Parse()
	if *listen {
		serve()
		return
	}
	socket, err := net.Dial("tcp", *dial)
	check(err)
	conn, err := spdystream.NewConnection(socket, false)
	check(err)
	go conn.Serve(func(*spdystream.Stream) {})
	switch *do {
	case "write":
		write(conn, *warmUp)
		fmt.Println(write(conn, *total).Seconds())
	case "echo":
		echo(conn)
	case "open":
		openMany(conn, 1, warmUps)
		fmt.Println(opens / openMany(conn, *atOnce, opens).Seconds())
	}
	socket.Close()
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr())
	for {
		socket, err := listener.Accept()
		check(err)
		conn, err := spdystream.NewConnection(socket, true)
		check(err)
		// The handler runs in a frame worker, where reading would block the frames to read.
		go conn.Serve(func(stream *spdystream.Stream) {
			check(stream.SendReply(http.Header{}, false))
			go act(stream)
		})
	}
}

func act(stream *spdystream.Stream) {
	buffer := make([]byte, 32<<10)
	action := stream.Headers().Get("do")
	for {
		n, err := stream.Read(buffer)
		if err != nil {
			break
		}
		if action == "echo" {
			_, err = stream.Write(buffer[:n])
			check(err)
		}
	}
	if action == "read" {
		_, err := stream.Write([]byte{1})
		check(err)
	}
	stream.Close()
}

func open(conn *spdystream.Connection, action string, number int) *spdystream.Stream {
	headers := http.Header{}
	headers.Set("streamtype", "data")
	headers.Set("port", "8080")
	headers.Set("requestid", strconv.Itoa(number))
	headers.Set("do", action)
	stream, err := conn.CreateStream(headers, nil, false)
	check(err)
	check(stream.Wait())
	return stream
}

func write(conn *spdystream.Connection, bytes int) time.Duration {
	stream := open(conn, "read", 0)
	buffer := make([]byte, *size)
	began := time.Now()
	for left := bytes; left > 0; left -= *size {
		_, err := stream.Write(buffer)
		check(err)
	}
	stream.Close()
	_, err := io.ReadFull(stream, buffer[:1])
	check(err)
	return time.Since(began)
}

func echo(conn *spdystream.Connection) {
	stream := open(conn, "echo", 0)
	var taken []time.Duration
	var sum time.Duration
	for trip := range warmUps + echoes {
		one := []byte{7}
		began := time.Now()
		_, err := stream.Write(one)
		check(err)
		_, err = io.ReadFull(stream, one)
		check(err)
		if trip >= warmUps {
			taken = append(taken, time.Since(began))
			sum += time.Since(began)
		}
	}
	slices.Sort(taken)
	micros := func(share int) float64 { return taken[len(taken)*share/100].Seconds() * 1e6 }
	fmt.Println(micros(50), micros(99), echoes/sum.Seconds())
}

func openMany(conn *spdystream.Connection, atOnce, count int) time.Duration {
	began := time.Now()
	var all sync.WaitGroup
	for opener := range atOnce {
		all.Go(func() {
			for n := range count / atOnce {
				stream := open(conn, "open", n*atOnce+opener)
				stream.Close()
				io.Copy(io.Discard, stream)
			}
		})
	}
	all.Wait()
	return time.Since(began)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
