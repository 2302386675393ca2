package peer

import (
	"net"
	"net/http"
)

// Listen opens a port on loopback and returns its URL.
func Listen() (net.Listener, string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		Fail("%v", err)
	}
	return listener, "http://" + listener.Addr().String()
}

// Serve prints its URL as the first line, and serves until the process ends.
func Serve(handler http.Handler) {
	listener, url := Listen()
	Print(map[string]string{"listening": url})
	Fail("%v", http.Serve(listener, handler))
}
