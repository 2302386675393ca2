// delivered says what the libraries of Kubernetes' servers deliver to a server of a client's bytes: moby/spdystream, and
// wsstream on golang.org/x/net/websocket. It serves no session.
//
// stdin is a list of inputs: a byte that chooses the reader, the length in four bytes, and what the client sends after
// the handshake. One line answers each: {"streams": [{"id": …, "headers": …, "data": …}]}, with data in hexadecimal.
// Reader 0 is spdystream, and N is wsstream with the Nth of the protocols below.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/moby/spdystream"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"kubestream.test/interop/internal/peer"
)

var protocols = []string{
	"channel.k8s.io", "base64.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "v5.channel.k8s.io",
}

type stream struct {
	ID      uint32      `json:"id"`
	Headers http.Header `json:"headers"`
	Data    string      `json:"data"`
}

func main() {
	peer.Start()
	stdin := bufio.NewReaderSize(os.Stdin, 1<<20)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		peer.Fail("%v", err)
	}
	for {
		var head struct {
			Reader byte
			Length uint32
		}
		if err := binary.Read(stdin, binary.BigEndian, &head); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			peer.Fail("the head of an input: %v", err)
		}
		input := make([]byte, head.Length)
		if _, err := io.ReadFull(stdin, input); err != nil {
			peer.Fail("an input of %d bytes: %v", head.Length, err)
		}
		var streams []stream
		if head.Reader == 0 {
			streams = bySpdystream(listener, input)
		} else {
			streams = byWsstream(listener, protocols[head.Reader-1], input)
		}
		peer.Print(map[string]any{"streams": streams})
	}
}

// connected returns both ends of a connection. Whatever the server sends is dropped.
func connected(listener net.Listener) (*net.TCPConn, net.Conn) {
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		peer.Fail("%v", err)
	}
	server, err := listener.Accept()
	if err != nil {
		peer.Fail("%v", err)
	}
	return client.(*net.TCPConn), server
}

// send writes what a client sends, and then its end. A server may have gone before.
func send(client *net.TCPConn, bytes []byte) {
	_, _ = client.Write(bytes)
	_ = client.CloseWrite()
	_, _ = io.Copy(io.Discard, client)
	_ = client.Close()
}

// collector keeps what the streams of a connection deliver.
type collector struct {
	lock    sync.Mutex
	readers sync.WaitGroup
	streams []stream
}

func (c *collector) read(id uint32, headers http.Header, from io.Reader) {
	c.readers.Add(1)
	go func() {
		defer c.readers.Done()
		data, _ := io.ReadAll(from)
		c.lock.Lock()
		defer c.lock.Unlock()
		c.streams = append(c.streams, stream{id, headers, hex.EncodeToString(data)})
	}()
}

func bySpdystream(listener net.Listener, input []byte) []stream {
	client, server := connected(listener)
	connection, err := spdystream.NewConnection(server, true)
	if err != nil {
		peer.Fail("%v", err)
	}
	var collected collector
	go send(client, input)
	connection.Serve(func(stream *spdystream.Stream) {
		// DATA that comes before the reply is dropped. A stream that nobody reads would stop the others.
		_ = stream.SendReply(http.Header{}, false)
		collected.read(stream.Identifier(), stream.Headers(), stream)
	})
	_ = server.Close()
	collected.readers.Wait()
	return collected.streams
}

func byWsstream(listener net.Listener, protocol string, input []byte) []stream {
	var collected collector
	client, server := connected(listener)
	handshake := fmt.Sprintf("GET /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: %s\r\n\r\n", protocol)
	go send(client, append([]byte(handshake), input...))
	served := make(chan struct{})
	handler := func(w http.ResponseWriter, request *http.Request) {
		defer close(served)
		channels := []wsstream.ChannelType{
			wsstream.ReadChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.ReadChannel,
		}
		binary := map[string]bool{"channel.k8s.io": true, "v4.channel.k8s.io": true, "v5.channel.k8s.io": true}
		config := wsstream.ChannelProtocolConfig{Binary: binary[protocol], Channels: channels}
		connection := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{protocol: config})
		_, streams, err := connection.Open(w, request)
		if err != nil {
			peer.Fail("wsstream: %v", err)
		}
		for _, id := range []uint32{0, 4} {
			collected.read(id, nil, streams[id])
		}
		collected.readers.Wait()
		_ = connection.Close()
	}
	once := &single{connection: server, done: served}
	_ = http.Serve(once, http.HandlerFunc(handler))
	<-served
	return collected.streams
}

// single is a listener with one connection, which closes when that is served.
type single struct {
	connection net.Conn
	taken      bool
	done       chan struct{}
}

func (s *single) Accept() (net.Conn, error) {
	if !s.taken {
		s.taken = true
		return s.connection, nil
	}
	<-s.done
	return nil, io.EOF
}

func (s *single) Close() error { return nil }

func (s *single) Addr() net.Addr { return s.connection.LocalAddr() }
