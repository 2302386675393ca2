// kubectl is the stock kubectl, for machines without one: k8s.io/kubectl's own command, at the version of the other
// peers. It has a module of its own, so that the other peers stay small.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		// Prints the error as kubectl does and exits with its code. For exec that is the remote command's code.
		util.CheckErr(err)
		os.Exit(1)
	}
}
