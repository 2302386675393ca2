package cri

import (
	"net/url"
	"strconv"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Exec is an exec or attach request, read from its URL.
type Exec struct {
	runtimeapi.ExecRequest
	namespace, pod, operation string
}

// ParseExec accepts /exec/{ns}/{pod}[/{uid}]/{container} and /api/v1/namespaces/{ns}/pods/{pod}/exec, and the same
// paths with attach.
func ParseExec(u *url.URL) (*Exec, bool) {
	query := u.Query()
	exec := &Exec{ExecRequest: runtimeapi.ExecRequest{
		Cmd:    query["command"],
		Stdin:  on(query, "stdin", "input"),
		Stdout: on(query, "stdout", "output"),
		Stderr: on(query, "stderr", "error"),
		Tty:    on(query, "tty"),
	}}
	part := strings.Split(strings.Trim(u.Path, "/"), "/")
	switch {
	case (part[0] == "exec" || part[0] == "attach") && (len(part) == 4 || len(part) == 5):
		exec.operation = part[0]
		exec.namespace, exec.pod, exec.ContainerId = part[1], part[2], part[len(part)-1]
	case len(part) == 7 && strings.Join(part[:3], "/") == "api/v1/namespaces" && part[4] == "pods" && (part[6] == "exec" || part[6] == "attach"):
		exec.operation = part[6]
		exec.namespace, exec.pod, exec.ContainerId = part[3], part[5], query.Get("container")
		if exec.ContainerId == "" {
			exec.ContainerId = "main" // a pod has a first container; the runtime here does not care which
		}
	default:
		return nil, false
	}
	return exec, true
}

// IsPortForward accepts /portForward/{ns}/{pod} and /api/v1/namespaces/{ns}/pods/{pod}/portforward.
func IsPortForward(u *url.URL) bool {
	part := strings.Split(strings.Trim(u.Path, "/"), "/")
	return part[0] == "portForward" && len(part) == 3 ||
		len(part) == 7 && strings.Join(part[:3], "/") == "api/v1/namespaces" && part[4] == "pods" && part[6] == "portforward"
}

// KubeletURL is the URL to which an apiserver sends the request: the kubelet's path, with the kubelet's names in the
// query.
func (e *Exec) KubeletURL(kubelet *url.URL) *url.URL {
	query := url.Values{"command": e.Cmd}
	for name, on := range map[string]bool{"input": e.Stdin, "output": e.Stdout, "error": e.Stderr, "tty": e.Tty} {
		if on {
			query.Set(name, "1")
		}
	}
	location := kubelet.JoinPath(e.operation, e.namespace, e.pod, e.ContainerId)
	location.RawQuery = query.Encode()
	return location
}

// IsAttach is true for attach and false for exec.
func (e *Exec) IsAttach() bool { return e.operation == "attach" }

func on(query url.Values, names ...string) bool {
	for _, name := range names {
		if value, _ := strconv.ParseBool(query.Get(name)); value {
			return true
		}
	}
	return false
}
