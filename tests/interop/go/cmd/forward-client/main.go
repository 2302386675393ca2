// forward-client is client-go's port-forward, as kubectl and crictl have it: it listens on a local port and says where.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"kubestream.test/interop/internal/peer"
)

var (
	target    = flag.String("url", "", "the whole URL")
	transport = flag.String("transport", "spdy", "spdy, or websocket: SPDY in a tunnel")
	port      = flag.Int("port", 0, "the port of the pod")
)

func main() {
	peer.Start()
	u, err := url.Parse(*target)
	if err != nil || u.Host == "" {
		peer.Usage("-url needs a whole URL, not %q", *target)
	}
	dialer, err := dial(u)
	if err != nil {
		peer.Fail("%v", err)
	}
	ready, stop := make(chan struct{}), make(chan struct{})
	addresses, ports := []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", *port)}
	forwarder, err := portforward.NewOnAddresses(dialer, addresses, ports, stop, ready, os.Stderr, os.Stderr)
	if err != nil {
		peer.Fail("%v", err)
	}
	go func() {
		<-ready
		forwarded, err := forwarder.GetPorts()
		if err != nil {
			peer.Fail("%v", err)
		}
		peer.Print(map[string]string{"listening": fmt.Sprintf("127.0.0.1:%d", forwarded[0].Local)})
	}()
	if err := forwarder.ForwardPorts(); err != nil {
		peer.Fail("%v", err)
	}
}

func dial(u *url.URL) (httpstream.Dialer, error) {
	config := &rest.Config{Host: u.Host}
	switch *transport {
	case "spdy":
		transport, upgrader, err := spdy.RoundTripperFor(config)
		if err != nil {
			return nil, err
		}
		return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u), nil
	case "websocket":
		return portforward.NewSPDYOverWebsocketDialer(u, config)
	}
	peer.Usage("-transport is spdy or websocket, not %q", *transport)
	return nil, nil
}
