package stratum

import (
	"context"

	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// A Router says which chain a user mines, for servers whose feed carries the jobs of several: [job.Feeds] makes one of
// the feeds of each. Route is asked when a worker is let in, for as long as [Options.AuthorizeTimeout], and again by
// [Server.Reroute]; an error leaves a session on the chain it has, and refuses a worker that has none. Calls may overlap,
// and it returns soon after ctx ends.
type Router interface {
	Route(ctx context.Context, w share.Worker, userID int32) (job.Chain, error)
}

// RouterFunc makes a Router of a function.
type RouterFunc func(ctx context.Context, w share.Worker, userID int32) (job.Chain, error)

// Route calls f.
func (f RouterFunc) Route(ctx context.Context, w share.Worker, userID int32) (job.Chain, error) {
	return f(ctx, w, userID)
}

// Reroute asks the Router again about every session of a user, or about all sessions when user is "". Users go by the
// names that the Authorizer knows them by. Those whose chain
// changes are sent its latest job at once, to be begun at once; they keep their connection, extranonce1 and difficulty,
// and the work they have is credited to the chain it belongs to. The Router is asked about one session after the other.
// It returns how many sessions changed.
func (s *Server) Reroute(ctx context.Context, user string) int {
	if s.opts.Router == nil {
		return 0
	}
	s.reroutes.Add(1)
	changed := 0
	for _, sess := range s.snapshot(nil) {
		if w, id := sess.known(); id != 0 && (user == "" || w.User == user) && s.reroute(ctx, sess) {
			changed++
		}
	}
	return changed
}

// reroute asks the Router about one session and reports whether its chain changes.
func (s *Server) reroute(ctx context.Context, sess *Session) bool {
	w, id := sess.known()
	name, err := s.opts.Router.Route(ctx, w, id)
	if err != nil {
		s.opts.Logger.Warn("cannot route, the session stays on its chain", "worker", w.String(), "error", err)
		return false
	}
	return sess.switchTo(s.chainOf(name))
}

// known returns who mines here as the Authorizer knows it, which [SingleUser] may credit otherwise.
func (s *Session) known() (share.Worker, int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.login == nil {
		return share.Worker{}, 0
	}
	return *s.login, s.userID
}
