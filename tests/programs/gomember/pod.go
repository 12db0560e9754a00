package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	"github.com/creack/pty"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// What the pod's container runs: it says when it starts, repeats what it hears, and starts anew after "bye".
const program = `echo started; while read -r line; do echo "heard $line"; test "$line" = bye && exit 0; done`

// pod runs commands as processes of this machine, in a directory of its own. It is the runtime under the streaming server.
type pod struct {
	directory string
	mutex     sync.Mutex
	groups    map[int]struct{} // process groups to end when the member ends
	process   *mainProcess
}

// mainProcess is one run of the container's program.
type mainProcess struct {
	stdin  io.Writer
	output *transcript
}

func startPod(ctx context.Context) (*pod, error) {
	directory, err := os.MkdirTemp("", "gomember-")
	if err != nil {
		return nil, err
	}
	p := &pod{directory: directory, groups: map[int]struct{}{}}
	command, err := p.startMain()
	if err != nil {
		return nil, err
	}
	go func() {
		for err == nil {
			_ = command.Wait()
			p.ended(command)
			if ctx.Err() != nil {
				return
			}
			past := p.current()
			command, err = p.startMain()
			past.output.Close() // only now, so that whoever sees the end of one run finds the next
		}
	}()
	return p, nil
}

func (p *pod) startMain() (*exec.Cmd, error) {
	command := p.command([]string{"sh", "-c", program})
	command.SysProcAttr.Setpgid = true
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output := newTranscript()
	command.Stdout, command.Stderr = output, output
	if err := p.start(command, command.Start); err != nil {
		return nil, err
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.process = &mainProcess{stdin: stdin, output: output}
	return command, nil
}

func (p *pod) current() *mainProcess {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.process
}

// stop ends every process that the pod started and removes its directory.
func (p *pod) stop() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for group := range p.groups {
		_ = syscall.Kill(-group, syscall.SIGKILL)
	}
	_ = os.RemoveAll(p.directory)
}

func (p *pod) command(words []string) *exec.Cmd {
	command := exec.Command(words[0], words[1:]...)
	command.Dir = p.directory
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.directory, "TERM=xterm"}
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return command
}

func (p *pod) start(command *exec.Cmd, how func() error) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err := how(); err != nil {
		return utilexec.CodeExitError{Err: err, Code: 127}
	}
	p.groups[command.Process.Pid] = struct{}{}
	return nil
}

func (p *pod) ended(command *exec.Cmd) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	delete(p.groups, command.Process.Pid)
}

// Exec runs a command, with a terminal of its own when tty.
func (p *pod) Exec(
	_ context.Context, _ string, words []string, in io.Reader, out, errOut io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize,
) error {
	if len(words) == 0 {
		return errors.New("you must specify at least one command for the container")
	}
	command := p.command(words)
	if tty {
		return p.execTerminal(command, in, out, resize)
	}
	command.SysProcAttr.Setpgid = true
	if out != nil {
		command.Stdout = out
	}
	if errOut != nil {
		command.Stderr = errOut
	}
	// Not command.Stdin: Wait would then stay until the client closes its end, even when the command is long done.
	stdin, err := command.StdinPipe()
	if err != nil {
		return err
	}
	if err := p.start(command, command.Start); err != nil {
		return err
	}
	defer p.ended(command)
	go func() {
		defer stdin.Close()
		if in != nil {
			_, _ = io.Copy(stdin, in)
		}
	}()
	return status(command.Wait())
}

func (p *pod) execTerminal(command *exec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	var terminal *os.File
	err := p.start(command, func() (err error) {
		terminal, err = pty.Start(command)
		return err
	})
	if err != nil {
		return err
	}
	defer p.ended(command)
	defer terminal.Close()
	go func() {
		for size := range resize {
			_ = pty.Setsize(terminal, &pty.Winsize{Cols: size.Width, Rows: size.Height})
		}
	}()
	if in != nil {
		go func() { _, _ = io.Copy(terminal, in) }()
	}
	_, _ = io.Copy(out, terminal) // ends with EIO when the last process on the terminal has gone
	return status(command.Wait())
}

// Attach joins the container's program until it ends or the client goes.
func (p *pod) Attach(
	ctx context.Context, _ string, in io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize,
) error {
	process := p.current()
	if in != nil {
		go func() { _, _ = io.Copy(process.stdin, in) }() // a client's end of input is not the program's
	}
	if out == nil {
		return nil
	}
	return process.output.follow(ctx, process.output.size(), true, func(chunk []byte) error {
		_, err := out.Write(chunk)
		return err
	})
}

// PortForward joins one connection with a port on this machine's loopback.
func (p *pod) PortForward(ctx context.Context, _ string, port int32, stream io.ReadWriteCloser) error {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return fmt.Errorf("dialing the container: %w", err)
	}
	defer connection.Close()
	go func() {
		_, _ = io.Copy(connection, stream)
		_ = connection.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, connection)
	return err
}

// status turns an exit code other than 0 into the error that the streaming server writes as a Status.
func status(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	code := exit.ExitCode()
	if signal := exit.Sys().(syscall.WaitStatus); signal.Signaled() {
		code = 128 + int(signal.Signal())
	}
	return utilexec.CodeExitError{Err: err, Code: code}
}
