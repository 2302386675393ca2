// translator is the apiserver's own hop for exec: WebSocket v5 in front becomes SPDY v4 to a kubelet, by the apiserver's
// StreamTranslatorHandler, and a port-forward tunnel the SPDY inside, by its TunnelingHandler. Every other request goes to the kubelet as it is, by the apiserver's upgrade-aware proxy.
// The kubelet is cri-server, in this process unless -backend names another.
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

var backend = flag.String("backend", "", "http://127.0.0.1:PORT of a server of exec; without it, one in this process")

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

// ServeHTTP does what ExecREST.Connect of kube-apiserver does once the pod's node is known.
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

// badGateway has a status of its own, so that a test can tell the proxy's failures from the backend's.
type badGateway struct{}

func (badGateway) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusBadGateway)
}
