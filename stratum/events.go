package stratum

import "time"

// events tells the EventSink of everybody on a session. mu is held.
func (s *Session) events(desc EventDesc, connected bool) {
	action := MinerDead
	if connected {
		action = MinerConnect
	}
	s.event(&s.miner, action, desc)
	if s.agents != nil {
		for _, w := range s.agents.workers {
			s.event(&w.miner, action, ToldByAgent)
		}
	}
}

// event tells the EventSink of one machine. mu is held.
func (s *Session) event(m *miner, action EventAction, desc EventDesc) {
	sink := s.srv.opts.Events
	if sink == nil {
		return
	}
	sink.PutEvent(Event{
		Created:    time.Now(),
		Action:     action,
		Desc:       desc,
		UserID:     m.userID,
		UserName:   m.worker.User,
		WorkerID:   m.workerID,
		WorkerName: m.worker.Name,
		Agent:      m.agent,
		IP:         s.remote.Addr(),
		SessionID:  s.prefix,
		ExtUserID:  m.extUserID,
	})
}

// allDead tells of the end of the session.
func (s *Session) allDead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events(ClosedConnection, false)
}
