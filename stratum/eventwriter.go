package stratum

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// EventWriterOptions tune an EventWriter.
type EventWriterOptions struct {
	MaxQueue int          // events waiting to be written; 0 means 65,536, as much as two reconnects of 16,000 miners
	Logger   *slog.Logger // nil discards
}

// An EventWriter is an EventSink that writes one JSON object a line. Its queue has a bound: when the writer below is so
// slow that the queue is full, the oldest event is dropped for each new one, and counted. Events are not money, and the
// newest says best who is connected.
type EventWriter struct {
	w      io.Writer
	logger *slog.Logger
	wake   chan struct{} // holds at most one

	mu    sync.Mutex
	ring  []Event // grows up to max
	first int     // index in ring of the oldest
	count int
	max   int
	stats EventStats
}

// EventStats count what became of events. Put is the sum of the other three.
type EventStats struct {
	Put     uint64 // given to PutEvent
	Written uint64
	Dropped uint64 // pushed out of a full queue, or lost in a write that failed
	Queued  int    // waiting, or among the 128 at most that are being written
}

var _ EventSink = (*EventWriter)(nil)

// NewEventWriter returns an EventWriter that writes to w, whole lines in each call. Nothing is written until Run.
func NewEventWriter(w io.Writer, opts *EventWriterOptions) (*EventWriter, error) {
	if w == nil {
		return nil, errors.New("stratum: new event writer: a writer is needed")
	}
	var o EventWriterOptions
	if opts != nil {
		o = *opts
	}
	if o.MaxQueue < 0 {
		return nil, fmt.Errorf("stratum: new event writer: a queue of %d events", o.MaxQueue)
	}
	if o.MaxQueue == 0 {
		o.MaxQueue = 65536
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &EventWriter{w: w, logger: o.Logger, wake: make(chan struct{}, 1), max: o.MaxQueue}, nil
}

// PutEvent implements [EventSink].
func (w *EventWriter) PutEvent(e Event) {
	w.mu.Lock()
	w.stats.Put++
	if w.count == w.max {
		w.first = (w.first + 1) % w.max
		w.count--
		w.stats.Queued--
		w.stats.Dropped++
	}
	if w.count == len(w.ring) {
		grown := make([]Event, min(max(64, 2*len(w.ring)), w.max))
		n := copy(grown, w.ring[w.first:])
		copy(grown[n:], w.ring[:w.first])
		w.ring, w.first = grown, 0
	}
	w.ring[(w.first+w.count)%len(w.ring)] = e
	w.count++
	w.stats.Queued++
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // Run has yet to look
	}
}

// take moves the oldest events to batch and returns how many.
func (w *EventWriter) take(batch []Event) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(w.count, len(batch))
	for i := range n {
		e := &w.ring[w.first]
		batch[i], *e = *e, Event{} // or its strings would live on
		w.first = (w.first + 1) % len(w.ring)
	}
	w.count -= n
	if w.count == 0 && len(w.ring) > 4096 {
		w.ring, w.first = nil, 0 // a burst is over
	}
	return n
}

// Stats returns the counters.
func (w *EventWriter) Stats() EventStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

// Run writes events until ctx ends, and then those that wait at that time; it returns nil. It waits for the writer below
// as long as that takes. A write that fails loses the events in it: that is logged when it begins and when it is over,
// and the next events are tried again. Call it once.
func (w *EventWriter) Run(ctx context.Context) error {
	var (
		batch   = make([]Event, 128)
		out     []byte
		failing bool
		broken  bool // the last line written has no end
	)
	write := func(events []Event) {
		if out = out[:0]; broken {
			out = append(out, '\n')
		}
		for i := range events {
			out = append(events[i].AppendJSON(out), '\n')
		}
		written, err := w.w.Write(out)
		if err == nil && written < len(out) {
			err = io.ErrShortWrite
		}
		if written > 0 {
			broken = out[min(written, len(out))-1] != '\n'
		}
		w.mu.Lock()
		w.stats.Queued -= len(events)
		if err == nil {
			w.stats.Written += uint64(len(events))
		} else {
			w.stats.Dropped += uint64(len(events))
		}
		w.mu.Unlock()
		if err != nil && !failing {
			w.logger.Error("cannot write miner events, they are lost", "error", err)
		} else if err == nil && failing {
			w.logger.Info("miner events are written again")
		}
		failing = err != nil
		clear(events)
	}
	for {
		select {
		case <-w.wake:
			for ctx.Err() == nil {
				n := w.take(batch)
				if n == 0 {
					break
				}
				write(batch[:n])
			}
		case <-ctx.Done():
			for left := w.waiting(); left > 0; {
				n := w.take(batch[:min(left, len(batch))])
				write(batch[:n])
				left -= n
			}
			return nil
		}
	}
}

func (w *EventWriter) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}
