package container

import (
	"context"
	"slices"
	"sync"
)

// transcript is what a process wrote, from its start, for any number of readers at their own pace.
type transcript struct {
	mutex  sync.Mutex
	more   *sync.Cond
	bytes  []byte
	closed bool
}

func newTranscript() *transcript {
	t := &transcript{}
	t.more = sync.NewCond(&t.mutex)
	return t
}

func (t *transcript) Write(chunk []byte) (int, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.bytes = append(t.bytes, chunk...)
	t.more.Broadcast()
	return len(chunk), nil
}

// Close says that nothing more will be written.
func (t *transcript) Close() {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.closed = true
	t.more.Broadcast()
}

func (t *transcript) size() int {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return len(t.bytes)
}

// follow hands on what stands from an offset; with onward also what is written later, until the transcript closes, the
// context ends, or write fails.
func (t *transcript) follow(ctx context.Context, from int, onward bool, write func([]byte) error) error {
	defer context.AfterFunc(ctx, func() {
		t.mutex.Lock()
		defer t.mutex.Unlock()
		t.more.Broadcast()
	})()
	for {
		t.mutex.Lock()
		for onward && from == len(t.bytes) && !t.closed && ctx.Err() == nil {
			t.more.Wait()
		}
		chunk := slices.Clone(t.bytes[from:])
		t.mutex.Unlock()
		if len(chunk) == 0 {
			return ctx.Err()
		}
		if err := write(chunk); err != nil {
			return err
		}
		from += len(chunk)
	}
}
