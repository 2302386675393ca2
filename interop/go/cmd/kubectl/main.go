// kubectl is the stock kubectl, for machines that have none: k8s.io/kubectl's own command, at the version of the
// other peers. It has a module of its own, so that the others stay light.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		// It prints the error as kubectl does and exits with its code: the remote command's, for exec.
		util.CheckErr(err)
		os.Exit(1)
	}
}
