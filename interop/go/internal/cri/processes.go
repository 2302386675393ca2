package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"syscall"

	"github.com/creack/pty"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// processes is a runtime whose containers are this machine: each command is a local process on pipes or a pty.
type processes struct{}

func (processes) Exec(ctx context.Context, _ string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	if len(cmd) == 0 {
		return errors.New("no command given")
	}
	command := exec.CommandContext(ctx, cmd[0], cmd[1:]...)
	// A driver may kill this server with SIGKILL, and the commands must not outlive it.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	run := piped
	if tty {
		run = terminal
	}
	err := run(command, in, out, errOut, resize)
	// Like containerd, this runtime ends its outputs before it reports the status.
	for _, stream := range []io.Closer{out, errOut} {
		if stream != nil {
			_ = stream.Close()
		}
	}
	return status(err)
}

// Attach starts a main process for each client. It repeats every line on stdout and on stderr.
func (p processes) Attach(ctx context.Context, id string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	const script = `while IFS= read -r line; do echo "out:$line"; echo "err:$line" >&2; done`
	return p.Exec(ctx, id, []string{"sh", "-c", script}, in, out, errOut, tty, resize)
}

// PortForward dials this machine's loopback, as containerd dials the pod's.
func (processes) PortForward(ctx context.Context, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	socket, err := (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return fmt.Errorf("failed to connect to localhost:%d inside namespace: %w", port, err)
	}
	defer socket.Close()
	go func() {
		_, _ = io.Copy(socket, stream)
		_ = socket.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, socket)
	return err
}

func piped(command *exec.Cmd, in io.Reader, out, errOut io.WriteCloser, _ <-chan remotecommand.TerminalSize) error {
	// A plain nil makes os/exec use the null device; a nil inside an interface would not.
	if out != nil {
		command.Stdout = out
	}
	if errOut != nil {
		command.Stderr = errOut
	}
	if in != nil {
		// With command.Stdin, Wait would wait for the end of the client's stdin, which may never come.
		stdin, err := command.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(stdin, in)
			_ = stdin.Close()
			_, _ = io.Copy(io.Discard, in) // an unread stream would block the others of its spdystream worker
		}()
	}
	return command.Run()
}

func terminal(command *exec.Cmd, in io.Reader, out, _ io.WriteCloser, resize <-chan remotecommand.TerminalSize) error {
	master, err := pty.Start(command)
	if err != nil {
		return err
	}
	defer master.Close()
	if resize != nil {
		go func() {
			for size := range resize {
				_ = pty.Setsize(master, &pty.Winsize{Rows: size.Height, Cols: size.Width})
			}
		}()
	}
	if in != nil {
		go func() {
			_, _ = io.Copy(master, in) // the end of stdin does not hang up a terminal
			_, _ = io.Copy(io.Discard, in)
		}()
	}
	if out == nil {
		out = discard{}
	}
	_, _ = io.Copy(out, master) // ends with EIO once no process has the terminal any more
	return command.Wait()
}

// status converts the end of the process for cri-streaming: a CodeExitError carries an exit code, and any other error
// becomes an InternalError.
func status(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	code := exit.ExitCode()
	if wait, ok := exit.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		code = 128 + int(wait.Signal())
	}
	return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
