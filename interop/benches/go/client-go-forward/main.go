// client-go-forward is client-go's port-forward as a peer of the benchmarks. benches/support/local.rs holds the server,
// and the clients of its local ports.
//
//	cd interop/benches/go && go build -o bin/ ./...
//
// It prints one line with its local ports, and forwards until stdin closes.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

var (
	target = flag.String("url", "", "the port-forward URL")
	tunnel = flag.Bool("tunnel", false, "use the WebSocket tunnel instead of SPDY")
	ports  = flag.String("ports", "0:1", "LOCAL:REMOTE pairs, separated by commas")
)

func main() {
	flag.Parse()
	server, err := url.Parse(*target)
	check(err)
	dialer, err := dialer(server)
	check(err)
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, strings.Split(*ports, ","), stop, ready, nil, os.Stderr)
	check(err)
	go func() {
		<-ready
		forwarded, err := forwarder.GetPorts()
		check(err)
		for _, port := range forwarded {
			fmt.Print(port.Local, " ")
		}
		fmt.Println()
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	check(forwarder.ForwardPorts())
}

func dialer(server *url.URL) (httpstream.Dialer, error) {
	config := &rest.Config{Host: server.Host}
	if *tunnel {
		return portforward.NewSPDYOverWebsocketDialer(server, config)
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", server), nil
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
