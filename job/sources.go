package job

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Sources merges several sources, such as one for each node, into one that puts what any of them puts. A source that
// gives up does not stop the others: Watch returns an error only when all of them have given up. Until then a [Maker]
// reports each that does.
//
// Templates are passed on as they come. Which of them is the best, and which is a duplicate, is for the receiver to say.
func Sources(list ...TemplateSource) TemplateSource {
	return sources(append([]TemplateSource(nil), list...))
}

type sources []TemplateSource

// Watch implements [TemplateSource].
func (s sources) Watch(ctx context.Context, put func(*Template)) error {
	return s.watch(ctx, put, func(error) {})
}

// watch calls failed for each source that gives up. Calls to failed do not overlap.
func (s sources) watch(ctx context.Context, put func(*Template), failed func(error)) error {
	if len(s) == 0 {
		return errors.New("job: no template source to watch")
	}
	for i, source := range s {
		if source == nil {
			return fmt.Errorf("job: template source %d of %d is nil", i+1, len(s))
		}
	}
	var mu sync.Mutex // serialises calls to put and failed
	var wg sync.WaitGroup
	errs := make([]error, len(s))
	for i, source := range s {
		wg.Go(func() {
			err := source.Watch(ctx, func(t *Template) {
				mu.Lock()
				defer mu.Unlock()
				if ctx.Err() == nil {
					put(t)
				}
			})
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				err = errors.New("it ended by itself")
			}
			errs[i] = fmt.Errorf("job: template source %d of %d: %w", i+1, len(s), err)
			mu.Lock()
			defer mu.Unlock()
			failed(errs[i])
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(errs...)
}
