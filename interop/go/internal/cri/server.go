// Package cri is k8s.io/cri-streaming's own server, the one in containerd and CRI-O, over a runtime that runs local
// processes, and the hops in front of it. An exec request on an apiserver's or a kubelet's path gets a token from the
// server. It is then handed to the server in this process, under the token's path and without its query.
package cri

import (
	"flag"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"kubestream.test/interop/internal/peer"
)

var (
	protocols = flag.String("protocols", "v4.channel.k8s.io,v3.channel.k8s.io,v2.channel.k8s.io,channel.k8s.io", "SupportedRemoteCommandProtocols, for SPDY only; WebSocket's are fixed")
	creation  = flag.Duration("creation-timeout", 30*time.Second, "StreamCreationTimeout")
	idle      = flag.Duration("idle-timeout", 4*time.Hour, "StreamIdleTimeout")
)

// Server builds the handler from the flags.
func Server() http.Handler {
	config := streaming.DefaultConfig
	config.Addr = "127.0.0.1:0"
	config.SupportedRemoteCommandProtocols = strings.Split(*protocols, ",")
	config.StreamCreationTimeout = *creation
	config.StreamIdleTimeout = *idle
	server, err := streaming.NewServer(config, processes{})
	if err != nil {
		peer.Fail("%v", err)
	}
	return front{server}
}

type front struct{ server streaming.Server }

// Pods is a kubelet's answer at /pods about the only pod here, with the fields that kubectl needs.
func Pods(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"demo","namespace":"default"},`+
		`"spec":{"containers":[{"name":"main","image":"none"}]},"status":{"phase":"Running"}}]}`)
}

func (f front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/pods" {
		Pods(w)
		return
	}
	if IsPortForward(r.URL) {
		// As in a kubelet: for legacy port-forward the runtime gets the ports from the kubelet and not from the client.
		options, err := portforward.NewV4Options(r)
		if err != nil && !wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		request := &runtimeapi.PortForwardRequest{PodSandboxId: "sandbox"}
		if options != nil {
			request.Port = options.Ports
		}
		response, err := f.server.GetPortForward(request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f.hand(w, r, response.Url, r.URL.RawQuery)
		return
	}
	exec, ok := ParseExec(r.URL)
	if !ok {
		http.NotFound(w, r)
		return
	}
	if exec.Tty {
		exec.Stderr = false // as the kubelet does before it asks the runtime, which would refuse both
	}
	at, err := f.location(exec)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.hand(w, r, at, "")
}

func (f front) location(exec *Exec) (string, error) {
	if exec.IsAttach() {
		response, err := f.server.GetAttach(&runtimeapi.AttachRequest{
			ContainerId: exec.ContainerId, Stdin: exec.Stdin, Stdout: exec.Stdout, Stderr: exec.Stderr, Tty: exec.Tty,
		})
		return response.GetUrl(), err
	}
	response, err := f.server.GetExec(&exec.ExecRequest)
	return response.GetUrl(), err
}

// hand passes the request to the streaming server, under the URL that the server has given out.
func (f front) hand(w http.ResponseWriter, r *http.Request, at, query string) {
	token, err := url.Parse(at)
	if err != nil {
		peer.Fail("%v", err)
	}
	inner := r.Clone(r.Context())
	inner.URL = &url.URL{Path: "/" + strings.TrimPrefix(token.Path, "/"), RawQuery: query}
	inner.RequestURI = inner.URL.RequestURI()
	f.server.ServeHTTP(w, inner)
}
