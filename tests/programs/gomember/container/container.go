// Package container runs containers as processes of this machine and serves their streams with Kubernetes' own library.
package container

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// Program is what a container runs that names no command: it says when it starts, repeats what it hears, and starts anew
// after "bye".
const Program = `echo started; while read -r line; do echo "heard $line"; test "$line" = bye && exit 0; done`

// A program that ends sooner starts anew only this long after its last start.
const backoff = 500 * time.Millisecond

// Container runs commands as processes of this machine, in a directory of its own.
type Container struct {
	directory string
	words     []string
	cancel    context.CancelFunc
	mutex     sync.Mutex
	groups    map[int]struct{} // process groups to end when the member ends
	process   *mainProcess
}

// mainProcess is one run of the container's program.
type mainProcess struct {
	stdin  io.Writer
	output *transcript
}

// Start runs the command, or Program without one, again and again until the context ends or Stop.
func Start(ctx context.Context, words []string) (*Container, error) {
	if len(words) == 0 {
		words = []string{"sh", "-c", Program}
	}
	directory, err := os.MkdirTemp("", "container-")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &Container{directory: directory, words: words, cancel: cancel, groups: map[int]struct{}{}}
	command, err := c.startMain()
	if err != nil {
		c.Stop()
		return nil, err
	}
	go func() {
		for err == nil {
			earliest := time.After(backoff)
			_ = command.Wait()
			c.ended(command)
			select {
			case <-ctx.Done():
			case <-earliest:
			}
			past := c.current()
			if ctx.Err() != nil {
				past.output.Close()
				return
			}
			command, err = c.startMain()
			past.output.Close() // only now, so that whoever sees the end of one run finds the next
		}
	}()
	return c, nil
}

func (c *Container) startMain() (*exec.Cmd, error) {
	command := c.command(c.words)
	command.SysProcAttr.Setpgid = true
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output := newTranscript()
	command.Stdout, command.Stderr = output, output
	if err := c.start(command, command.Start); err != nil {
		return nil, err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.process = &mainProcess{stdin: stdin, output: output}
	return command, nil
}

func (c *Container) current() *mainProcess {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.process
}

// Stop ends every process that the container started and removes its directory.
func (c *Container) Stop() {
	c.cancel()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for group := range c.groups {
		_ = syscall.Kill(-group, syscall.SIGKILL)
	}
	_ = os.RemoveAll(c.directory)
}

func (c *Container) command(words []string) *exec.Cmd {
	command := exec.Command(words[0], words[1:]...)
	command.Dir = c.directory
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.directory, "TERM=xterm"}
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return command
}

func (c *Container) start(command *exec.Cmd, how func() error) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if err := how(); err != nil {
		return utilexec.CodeExitError{Err: err, Code: 127}
	}
	c.groups[command.Process.Pid] = struct{}{}
	return nil
}

func (c *Container) ended(command *exec.Cmd) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	delete(c.groups, command.Process.Pid)
}

// Exec runs a command, with a terminal of its own when tty.
func (c *Container) Exec(
	words []string, in io.Reader, out, errOut io.WriteCloser, tty bool,
	resize <-chan remotecommand.TerminalSize,
) error {
	if len(words) == 0 {
		return errors.New("you must specify at least one command for the container")
	}
	command := c.command(words)
	if tty {
		return c.execTerminal(command, in, out, resize)
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
	if err := c.start(command, command.Start); err != nil {
		return err
	}
	defer c.ended(command)
	go func() {
		defer stdin.Close()
		if in != nil {
			_, _ = io.Copy(stdin, in)
		}
	}()
	return status(command.Wait())
}

func (c *Container) execTerminal(command *exec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	var terminal *os.File
	err := c.start(command, func() (err error) {
		terminal, err = pty.Start(command)
		return err
	})
	if err != nil {
		return err
	}
	defer c.ended(command)
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

// Logs hands on what the running program wrote, with follow also what it goes on to write, until it ends or the context does.
func (c *Container) Logs(ctx context.Context, follow bool, write func([]byte) error) error {
	return c.current().output.follow(ctx, 0, follow, write)
}

// Attach joins the container's program until it ends or the client goes.
func (c *Container) Attach(
	ctx context.Context, in io.Reader, out io.Writer,
) error {
	process := c.current()
	before := process.output.size() // what the program says to the input below is for this client
	if in != nil {
		go func() { _, _ = io.Copy(process.stdin, in) }() // a client's end of input is not the program's
	}
	if out == nil {
		return nil
	}
	return process.output.follow(ctx, before, true, func(chunk []byte) error {
		_, err := out.Write(chunk)
		return err
	})
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
