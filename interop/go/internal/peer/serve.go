package peer

import (
	"net"
	"net/http"
)

// Listen opens a port on loopback and says its URL.
func Listen() (net.Listener, string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		Fail("%v", err)
	}
	return listener, "http://" + listener.Addr().String()
}

// Serve prints where it listens as the first line and serves for the rest of the process's life.
func Serve(handler http.Handler) {
	listener, url := Listen()
	Print(map[string]string{"listening": url})
	Fail("%v", http.Serve(listener, handler))
}
