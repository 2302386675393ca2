// Package critest pins what critest needs. crictl can be a tool of this module. critest is a package of tests, which
// can be neither a tool nor imported, and go.sum must list everything that it needs. Both have a module of their own,
// so that the other peers stay small.
package critest

import (
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
