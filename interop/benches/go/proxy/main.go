// proxy is the middle of the chain, as in kube-apiserver: apimachinery's upgrade-aware proxy in front of a backend or,
// with -translate, the apiserver's StreamTranslator, WebSocket v5 in front of SPDY. Its first line is the address on
// which it listens.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"

	"k8s.io/apimachinery/pkg/util/proxy"
	translator "k8s.io/apiserver/pkg/util/proxy"
)

var (
	backend   = flag.String("backend", "", "the URL of the backend, http://127.0.0.1:PORT")
	translate = flag.Bool("translate", false, "translate WebSocket v5 to a SPDY backend")
)

func main() {
	flag.Parse()
	at, err := url.Parse(*backend)
	fail(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fail(err)
	fmt.Println(listener.Addr())
	fail(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		location := at.JoinPath(r.URL.Path)
		location.RawQuery = r.URL.RawQuery
		if *translate {
			options := translator.Options{Stdin: true, Stdout: true, Stderr: true}
			translator.NewStreamTranslatorHandler(location, http.DefaultTransport, 0, options).ServeHTTP(w, r)
			return
		}
		proxy.NewUpgradeAwareHandler(location, http.DefaultTransport, false, true, responder{}).ServeHTTP(w, r)
	})))
}

type responder struct{}

func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusBadGateway)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
