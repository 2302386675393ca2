// forward-client runs client-go's port-forward against a server: the client half of kubectl. It prints its local ports
// when they listen, and forwards until stdin closes. If it ends for another reason, it prints that as a line of JSON.
package main

import (
	"errors"
	"flag"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	streaming "k8s.io/streaming/pkg/httpstream"

	"kubestream.test/interop/internal/peer"
)

var (
	target    = flag.String("url", "", "the port-forward URL")
	transport = flag.String("transport", "fallback", "spdy, tunnel, or fallback: the tunnel first, as kubectl does")
	ports     = flag.String("ports", "", "LOCAL:REMOTE pairs, separated by commas; LOCAL 0 or empty is a free port")
)

func main() {
	peer.Start()
	if peer.Guarded() {
		peer.Usage("stdin guards this peer as it is")
	}
	u, err := url.Parse(*target)
	if err != nil || u.Host == "" {
		peer.Usage("-url needs a whole URL, not %q", *target)
	}
	if err := run(u); err != nil {
		peer.Print(map[string]any{"error": err.Error(), "lost": errors.Is(err, portforward.ErrLostConnectionToPod)})
		peer.Fail("%v", err)
	}
}

func run(u *url.URL) error {
	dialer, err := dialer(u)
	if err != nil {
		return err
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, strings.Split(*ports, ","), stop, ready, nil, os.Stderr)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return err
	}
	forwarded, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	locals := make([]uint16, 0, len(forwarded))
	for _, port := range forwarded {
		locals = append(locals, port.Local)
	}
	peer.Print(map[string]any{"listening": locals})
	return <-ended
}

func dialer(u *url.URL) (httpstream.Dialer, error) {
	config := &rest.Config{Host: u.Host}
	switch *transport {
	case "spdy":
		return overSPDY(u, config)
	case "tunnel":
		return portforward.NewSPDYOverWebsocketDialer(u, config)
	case "fallback":
	default:
		peer.Usage("-transport is spdy, tunnel or fallback, not %q", *transport)
	}
	first, err := portforward.NewSPDYOverWebsocketDialer(u, config)
	if err != nil {
		return nil, err
	}
	second, err := overSPDY(u, config)
	if err != nil {
		return nil, err
	}
	// kubectl uses this condition for the second request. apimachinery's function of the same name does not know the
	// tunnel's error.
	return portforward.NewFallbackDialer(first, second, func(err error) bool {
		return streaming.IsUpgradeFailure(err) || streaming.IsHTTPSProxyError(err)
	}), nil
}

func overSPDY(u *url.URL, config *rest.Config) (httpstream.Dialer, error) {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", u), nil
}
