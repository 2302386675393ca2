// translator is the apiserver's hop. For exec, its StreamTranslatorHandler turns WebSocket v5 into SPDY v4 to a
// kubelet. For port-forward, its TunnelingHandler turns a tunnel into the SPDY inside. Its upgrade-aware proxy passes
// all other requests to the kubelet unchanged. The kubelet is a cri-server in this process, unless -backend names
// another.
package main

import (
	"flag"
	"net/http"
	"net/url"

	"k8s.io/apimachinery/pkg/util/proxy"
	translator "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"kubestream.test/interop/internal/cri"
	"kubestream.test/interop/internal/peer"
)

var backend = flag.String("backend", "", "the URL of an exec server, http://127.0.0.1:PORT (default: a server in this process)")

func main() {
	peer.Start()
	at := *backend
	if at == "" {
		listener, url := peer.Listen()
		go func() { peer.Fail("%v", http.Serve(listener, cri.Server())) }()
		at = url
	}
	kubelet, err := url.Parse(at)
	if err != nil || kubelet.Host == "" {
		peer.Usage("-backend needs a URL, not %q", at)
	}
	peer.Serve(apiserver{kubelet})
}

type apiserver struct{ kubelet *url.URL }

// ServeHTTP does what ExecREST.Connect of kube-apiserver does after it has found the pod's node.
func (a apiserver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/pods" {
		cri.Pods(w)
		return
	}
	if cri.IsPortForward(r.URL) {
		location := a.kubelet.JoinPath("portForward", "default", "demo")
		location.RawQuery = r.URL.RawQuery
		spdy := proxy.NewUpgradeAwareHandler(location, http.DefaultTransport, false, true, badGateway{})
		tunnel := translator.NewTunnelingHandler(spdy)
		translator.NewTranslatingHandler(spdy, tunnel, wsstream.IsWebSocketRequestWithTunnelingProtocol).ServeHTTP(w, r)
		return
	}
	exec, ok := cri.ParseExec(r.URL)
	if !ok {
		http.NotFound(w, r)
		return
	}
	location := exec.KubeletURL(a.kubelet)
	upgradeAware := proxy.NewUpgradeAwareHandler(location, http.DefaultTransport, false, true, badGateway{})
	options := translator.Options{Stdin: exec.Stdin, Stdout: exec.Stdout, Stderr: exec.Stderr, Tty: exec.Tty}
	translating := translator.NewStreamTranslatorHandler(location, http.DefaultTransport, 0, options)
	translator.NewTranslatingHandler(upgradeAware, translating, wsstream.IsWebSocketRequestWithStreamCloseProtocol).ServeHTTP(w, r)
}

// badGateway answers with a status of its own, so that a test can tell the proxy's failures from the backend's.
type badGateway struct{}

func (badGateway) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusBadGateway)
}
