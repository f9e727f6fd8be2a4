package block

import (
	"slices"
	"sync"

	"github.com/btcsuite/btcd/chainhash/v2"
	"github.com/poolkit/poolkit/job"
	"github.com/poolkit/poolkit/share"
)

// A recall remembers which transactions belong to which job: a number of templates, of which the oldest is forgotten
// first, and of jobs, of which the one with the lowest id is.
type recall struct {
	maxTemplates, maxJobs int

	mu        sync.Mutex
	templates map[chainhash.Hash]*recalled
	order     []chainhash.Hash // templates, the oldest first
	jobs      map[job.ID]chainhash.Hash
	ids       []job.ID      // in ascending order
	news      chan struct{} // closed and replaced whenever something is added
}

// A recalled template, and its merkle branch once somebody has asked for it.
type recalled struct {
	t      *job.Template
	once   sync.Once
	branch []chainhash.Hash
}

func (r *recalled) merkleBranch() []chainhash.Hash {
	r.once.Do(func() { r.branch = job.MerkleBranch(txids(r.t.Transactions)) })
	return r.branch
}

func newRecall(maxTemplates, maxJobs int) *recall {
	return &recall{
		maxTemplates: maxTemplates, maxJobs: maxJobs,
		templates: make(map[chainhash.Hash]*recalled), jobs: make(map[job.ID]chainhash.Hash),
		news: make(chan struct{}),
	}
}

// changed returns a channel that is closed when something is added from now on.
func (r *recall) changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.news
}

func (r *recall) announce() {
	close(r.news)
	r.news = make(chan struct{})
}

func (r *recall) addTemplate(t *job.Template) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keepTemplate(t) {
		r.announce()
	}
}

func (r *recall) keepTemplate(t *job.Template) bool {
	if _, ok := r.templates[t.ID]; ok {
		return false
	}
	for len(r.order) >= r.maxTemplates {
		delete(r.templates, r.order[0])
		r.order = slices.Delete(r.order, 0, 1)
	}
	r.templates[t.ID] = &recalled{t: t}
	r.order = append(r.order, t.ID)
	return true
}

func (r *recall) addJob(j *job.Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := j.Template != nil && r.keepTemplate(j.Template)
	if i, known := slices.BinarySearch(r.ids, j.ID); !known {
		r.ids = slices.Insert(r.ids, i, j.ID)
		r.jobs[j.ID] = j.TemplateID
		if len(r.ids) > r.maxJobs {
			delete(r.jobs, r.ids[0])
			r.ids = slices.Delete(r.ids, 0, 1)
		}
		news = true
	}
	if news {
		r.announce()
	}
}

// transactions returns the transactions that come after the coinbase of s, and false when they are not known.
//
// The header says which they are: its merkle root is that of one list only. So the ids are no more than a hint where to
// look first, and a solution whose job is forgotten is still made a block when any template at hand fits. When the
// template that the ids lead to does not fit, and none other does, it is returned nonetheless.
func (r *recall) transactions(s *share.Solution) ([]job.Transaction, bool) {
	root, prev := headerRoot(&s.Header), headerPrev(&s.Header)
	coinbase, _ := parseCoinbase(s.Coinbase)
	id := coinbaseID(coinbase, s.Coinbase)

	var hint *job.Template
	r.mu.Lock()
	if s.Job != nil && s.Job.Template != nil {
		hint = s.Job.Template
	} else {
		templateID, ok := r.jobs[s.JobID]
		if s.Job != nil {
			templateID, ok = s.Job.TemplateID, true
		}
		if known := r.templates[templateID]; ok && known != nil {
			hint = known.t
		}
	}
	var others []*recalled
	for i := len(r.order) - 1; i >= 0; i-- {
		if o := r.templates[r.order[i]]; o.t != hint && o.t.PrevHash == prev {
			others = append(others, o)
		}
	}
	r.mu.Unlock()

	if hint != nil && branchRoot(id, job.MerkleBranch(txids(hint.Transactions))) == root {
		return hint.Transactions, true
	}
	if id == root {
		return nil, true // the coinbase is the whole tree
	}
	for _, o := range others {
		if branchRoot(id, o.merkleBranch()) == root {
			return o.t.Transactions, true
		}
	}
	if hint != nil {
		return hint.Transactions, true
	}
	return nil, false
}
