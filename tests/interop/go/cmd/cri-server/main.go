// cri-server is k8s.io/cri-streaming's own server, the one in containerd and CRI-O, over a runtime that runs local
// processes. It also stands in for the hops in front: an exec request on an apiserver's or a kubelet's path gets a
// token from the server and is handed to it in this process, under the token's path and without its query.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"

	"kubestream.test/interop/internal/peer"
)

var (
	protocols = flag.String("protocols", "v4.channel.k8s.io,v3.channel.k8s.io,v2.channel.k8s.io,channel.k8s.io", "SupportedRemoteCommandProtocols")
	creation  = flag.Duration("creation-timeout", 30*time.Second, "StreamCreationTimeout")
	idle      = flag.Duration("idle-timeout", 4*time.Hour, "StreamIdleTimeout")
)

func main() {
	peer.Start()
	config := streaming.DefaultConfig
	config.Addr = "127.0.0.1:0"
	config.SupportedRemoteCommandProtocols = strings.Split(*protocols, ",")
	config.StreamCreationTimeout = *creation
	config.StreamIdleTimeout = *idle
	server, err := streaming.NewServer(config, processes{})
	if err != nil {
		peer.Fail("%v", err)
	}
	listener, err := net.Listen("tcp", config.Addr)
	if err != nil {
		peer.Fail("%v", err)
	}
	peer.Print(map[string]string{"listening": "http://" + listener.Addr().String()})
	peer.Fail("%v", http.Serve(listener, front{server}))
}

type front struct{ server streaming.Server }

func (f front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	container, ok := execPath(r.URL.Path)
	if !ok {
		http.NotFound(w, r)
		return
	}
	query := r.URL.Query()
	request := &runtimeapi.ExecRequest{
		ContainerId: container,
		Cmd:         query["command"],
		Stdin:       on(query, "stdin", "input"),
		Stdout:      on(query, "stdout", "output"),
		Stderr:      on(query, "stderr", "error"),
		Tty:         on(query, "tty"),
	}
	if request.Tty {
		request.Stderr = false // as the kubelet does before it asks the runtime, which would refuse both
	}
	response, err := f.server.GetExec(request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	token, err := url.Parse(response.Url)
	if err != nil {
		peer.Fail("%v", err)
	}
	inner := r.Clone(r.Context())
	inner.URL = &url.URL{Path: "/" + strings.TrimPrefix(token.Path, "/")}
	inner.RequestURI = inner.URL.Path
	f.server.ServeHTTP(w, inner)
}

// execPath takes /exec/{ns}/{pod}[/{uid}]/{container} and /api/v1/namespaces/{ns}/pods/{pod}/exec.
func execPath(path string) (string, bool) {
	part := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case part[0] == "exec" && (len(part) == 4 || len(part) == 5):
		return part[len(part)-1], true
	case len(part) == 7 && strings.Join(part[:3], "/") == "api/v1/namespaces" && part[4] == "pods" && part[6] == "exec":
		return fmt.Sprintf("%s/%s", part[3], part[5]), true
	default:
		return "", false
	}
}

func on(query url.Values, names ...string) bool {
	for _, name := range names {
		if value, _ := strconv.ParseBool(query.Get(name)); value {
			return true
		}
	}
	return false
}
