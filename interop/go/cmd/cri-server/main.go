// cri-server is k8s.io/cri-streaming's server over local processes. It speaks SPDY, and WebSocket without v5.
package main

import (
	"flag"
	"net/http"

	"k8s.io/streaming/pkg/httpstream/wsstream"

	"kubestream.test/interop/internal/cri"
	"kubestream.test/interop/internal/peer"
)

var (
	tls         = flag.String("tls", "", "serve over TLS with a certificate for 127.0.0.1, and write the authority's certificate to this file")
	noWebSocket = flag.Bool("no-websocket", false, "answer every WebSocket request with 403, as a gateway or OpenShift does")
)

func main() {
	peer.Start()
	handler := cri.Server()
	if *noWebSocket {
		handler = refuseWebSocket(handler)
	}
	if *tls != "" {
		peer.ServeTLS(handler, *tls)
	}
	peer.Serve(handler)
}

func refuseWebSocket(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wsstream.IsWebSocketRequest(r) {
			http.Error(w, "WebSocket is not allowed here", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
