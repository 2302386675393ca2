// Package critest is what critest is made of: crictl is a tool of this module, but a package of tests can be neither that nor
// imported, and go.sum has to have all that it needs. The two have a module of their own, so that the other peers stay light.
package critest

import (
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
