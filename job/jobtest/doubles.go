package jobtest

import (
	"context"
	"sync"

	"github.com/poolkit/poolkit/job"
)

// A Manual is a template source that puts what a test gives it. The zero value is ready for use. It keeps every promise
// of [job.TemplateSource].
type Manual struct {
	mu       sync.Mutex
	latest   *job.Template
	watchers map[*watcher]bool
}

type watcher struct{ put func(*job.Template) }

var _ job.TemplateSource = (*Manual)(nil)

// Put puts t to everyone who watches, before it returns, and later to those who begin to watch, until another template
// is put.
func (m *Manual) Put(t *job.Template) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.latest = t
	for w := range m.watchers {
		w.put(t)
	}
}

// Watch implements [job.TemplateSource].
func (m *Manual) Watch(ctx context.Context, put func(*job.Template)) error {
	w := &watcher{put}
	m.mu.Lock()
	if m.latest != nil && ctx.Err() == nil {
		put(m.latest)
	}
	if m.watchers == nil {
		m.watchers = make(map[*watcher]bool)
	}
	m.watchers[w] = true
	m.mu.Unlock()

	<-ctx.Done()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.watchers, w)
	return nil
}

// A Flaky is a Broadcaster that fails when a test wants it to and otherwise passes jobs on to the one inside.
type Flaky struct {
	job.Broadcaster

	mu     sync.Mutex
	err    error
	failed int
}

// Fail makes every call of Broadcast return err from now on; nil ends that.
func (f *Flaky) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// Failed returns how many calls were made to fail.
func (f *Flaky) Failed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// Broadcast implements [job.Broadcaster].
func (f *Flaky) Broadcast(ctx context.Context, j *job.Job) error {
	f.mu.Lock()
	err := f.err
	if err != nil {
		f.failed++
	}
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.Broadcaster.Broadcast(ctx, j)
}
