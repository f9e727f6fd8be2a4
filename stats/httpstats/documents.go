package httpstats

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/poolkit/poolkit/difficulty"
	"github.com/poolkit/poolkit/stats"
)

// whole is a number that documents show without its fraction and never with an exponent: 1e21 hashes are no rarity.
type whole float64

// MarshalJSON writes 0 for what JSON cannot say.
func (n whole) MarshalJSON() ([]byte, error) { return appendNumber(math.Floor(float64(n))), nil }

// exact is a number in full precision and without an exponent.
type exact float64

// MarshalJSON writes 0 for what JSON cannot say.
func (n exact) MarshalJSON() ([]byte, error) { return appendNumber(float64(n)), nil }

func appendNumber(f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		f = 0
	}
	return strconv.AppendFloat(nil, f, 'f', -1, 64)
}

type statsDoc struct {
	CandidatesTotal int       `json:"candidatesTotal"`
	Hashrate        whole     `json:"hashrate"`
	ImmatureTotal   int       `json:"immatureTotal"`
	MaturedTotal    int       `json:"maturedTotal"`
	MinersTotal     int       `json:"minersTotal"`
	Nodes           []nodeDoc `json:"nodes"`
	Now             int64     `json:"now"`
	Stats           poolDoc   `json:"stats"`
	UpdatedAt       int64     `json:"updatedAt"`
	WorkersTotal    int       `json:"workersTotal"`
}

type poolDoc struct {
	LastBlockFound int64 `json:"lastBlockFound,omitempty"`
	RoundShares    exact `json:"roundShares,omitempty"`
}

type nodeDoc struct {
	BlocksBehind int    `json:"blocksBehind"`
	Chain        string `json:"chain"`
	Difficulty   string `json:"difficulty"`
	Height       string `json:"height"`
	LastBeat     string `json:"lastBeat"`
	Name         string `json:"name"`
}

type minersDoc struct {
	Hashrate    whole               `json:"hashrate"`
	Miners      map[string]minerDoc `json:"miners"`
	MinersTotal int                 `json:"minersTotal"`
	Now         int64               `json:"now"`
	UpdatedAt   int64               `json:"updatedAt"`
}

type minerDoc struct {
	LastBeat int64 `json:"lastBeat"`
	Hr       whole `json:"hr"`
	Offline  bool  `json:"offline"`
}

type blocksDoc struct {
	Candidates      []blockDoc         `json:"candidates"`
	CandidatesTotal int                `json:"candidatesTotal"`
	Immature        []blockDoc         `json:"immature"`
	ImmatureTotal   int                `json:"immatureTotal"`
	Luck            map[string]luckDoc `json:"luck"`
	Matured         []blockDoc         `json:"matured"`
	MaturedTotal    int                `json:"maturedTotal"`
	UpdatedAt       int64              `json:"updatedAt"`
}

type blockDoc struct {
	Height        int32  `json:"height"`
	Timestamp     int64  `json:"timestamp"`
	Difficulty    exact  `json:"difficulty"`
	Shares        exact  `json:"shares"`
	Uncle         *bool  `json:"uncle,omitempty"`
	UncleHeight   *int   `json:"uncleHeight,omitempty"`
	Orphan        bool   `json:"orphan"`
	Hash          string `json:"hash"`
	Reward        string `json:"reward"`
	Fees          string `json:"fees"`
	Subsidy       string `json:"subsidy"`
	Confirmations int    `json:"confirmations"`
	Finder        string `json:"finder"`
}

type luckDoc struct {
	Luck       exact  `json:"luck"`
	OrphanRate exact  `json:"orphanRate"`
	UncleRate  *exact `json:"uncleRate,omitempty"`
}

type paymentsDoc struct {
	Payments      []struct{} `json:"payments"`
	PaymentsTotal int        `json:"paymentsTotal"`
	UpdatedAt     int64      `json:"updatedAt"`
}

type accountDoc struct {
	CurrentHashrate whole                `json:"currentHashrate"`
	Hashrate        whole                `json:"hashrate"`
	PageSize        int                  `json:"pageSize"`
	Payments        []struct{}           `json:"payments"`
	PaymentsTotal   int                  `json:"paymentsTotal"`
	RoundShares     exact                `json:"roundShares"`
	Stats           accountStats         `json:"stats"`
	UpdatedAt       int64                `json:"updatedAt"`
	Workers         map[string]workerDoc `json:"workers"`
	WorkersOffline  int                  `json:"workersOffline"`
	WorkersOnline   int                  `json:"workersOnline"`
	WorkersTotal    int                  `json:"workersTotal"`
}

type accountStats struct {
	Balance     int64  `json:"balance"`
	BlocksFound uint64 `json:"blocksFound"`
	Immature    int64  `json:"immature"`
	LastShare   int64  `json:"lastShare,omitempty"`
	Paid        int64  `json:"paid"`
	Pending     int64  `json:"pending"`
}

type workerDoc struct {
	LastBeat int64 `json:"lastBeat"`
	Hr       whole `json:"hr"`
	Offline  bool  `json:"offline"`
	Hr2      whole `json:"hr2"`
}

// offline reports whether the last share is older than half the small window.
func offline(last, now time.Time, small time.Duration) bool { return last.Before(now.Add(-small / 2)) }

// A miner is an account with a share in the small window.
type miner struct {
	login string
	doc   minerDoc
}

// miners returns the accounts with an accepted share in the small window, the strongest first.
func miners(s *stats.Snapshot, small time.Duration) []miner {
	var list []miner
	for i := range s.Users {
		u := &s.Users[i]
		if u.Small.Sum > 0 {
			list = append(list, miner{u.Name, minerDoc{
				LastBeat: u.LastAccepted.Unix(), Hr: whole(u.Small.Hashrate), Offline: offline(u.LastAccepted, s.Time, small),
			}})
		}
	}
	slices.SortFunc(list, func(a, b miner) int {
		return cmp.Or(cmp.Compare(b.doc.Hr, a.doc.Hr), cmp.Compare(a.login, b.login))
	})
	return list
}

// account makes the document of a user.
func (h *Handler) account(u *stats.UserStats, workers []stats.WorkerStats, now time.Time) accountDoc {
	small, _ := h.agg.Windows()
	d := accountDoc{
		PageSize: h.opts.Payments, Payments: []struct{}{}, RoundShares: exact(u.RoundShares), UpdatedAt: now.UnixMilli(),
		Stats:   accountStats{BlocksFound: u.BlocksFound},
		Workers: make(map[string]workerDoc),
	}
	if !u.LastAccepted.IsZero() {
		d.Stats.LastShare = u.LastAccepted.Unix()
	}
	var current, smooth difficulty.Hashrate
	for i := range workers {
		w := &workers[i]
		if w.Large.Sum == 0 {
			continue
		}
		off := offline(w.LastAccepted, now, small)
		d.Workers[w.Name] = workerDoc{
			LastBeat: w.LastAccepted.Unix(), Hr: whole(w.Small.Hashrate), Hr2: whole(w.Large.Hashrate), Offline: off,
		}
		d.WorkersTotal++
		if off {
			d.WorkersOffline++
		} else {
			d.WorkersOnline++
		}
		current += w.Small.Hashrate
		smooth += w.Large.Hashrate
	}
	d.CurrentHashrate, d.Hashrate = whole(current), whole(smooth)
	return d
}

// blocks makes the document of blocks.
func (h *Handler) blocks(list []Block, now time.Time) *blocksDoc {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b Block) int { return cmp.Compare(b.Height, a.Height) })
	d := &blocksDoc{
		Candidates: []blockDoc{}, Immature: []blockDoc{}, Matured: []blockDoc{}, UpdatedAt: now.UnixMilli(),
	}
	var immature, matured []Block
	for i := range list {
		b := &list[i]
		if b.Shares == 0 {
			if r, ok := h.agg.ClosedRound(b.JobID, b.Height, b.Nonce); ok {
				b.Shares = r.Shares
			}
		}
		doc := h.block(b)
		switch b.State {
		case Candidate:
			d.Candidates = append(d.Candidates, doc)
			d.CandidatesTotal++
		case Immature:
			d.Immature = append(d.Immature, doc)
			d.ImmatureTotal++
			immature = append(immature, *b)
		default:
			if d.MaturedTotal++; len(d.Matured) < h.opts.Blocks {
				d.Matured = append(d.Matured, doc)
			}
			matured = append(matured, *b)
		}
	}
	if len(h.opts.LuckWindows) > 0 {
		d.Luck = luck(append(immature, matured...), h.opts.LuckWindows, h.opts.EthereumFields)
	}
	return d
}

func (h *Handler) block(b *Block) blockDoc {
	d := blockDoc{
		Height: b.Height, Timestamp: b.Time.Unix(), Difficulty: exact(b.Difficulty), Shares: exact(b.Shares),
		Orphan: b.Orphan, Hash: b.Hash.String(), Confirmations: b.Confirmations, Finder: b.Finder,
		Fees: strconv.FormatInt(b.FeesSats, 10), Subsidy: strconv.FormatInt(b.SubsidySats, 10),
		Reward: strconv.FormatInt(b.RewardSats, 10),
	}
	switch {
	case b.Orphan:
		d.Reward = "0"
	case b.State == Candidate:
		d.Reward = ""
	}
	if h.opts.EthereumFields {
		d.Uncle, d.UncleHeight = new(bool), new(int)
	}
	return d
}

// luck takes, for each window, the mean of shares by difficulty over the first so many blocks: 1 is to be expected and
// less is lucky. Blocks whose difficulty or shares are not known are left out. Rows are named for the blocks they use.
func luck(blocks []Block, windows []int, uncles bool) map[string]luckDoc {
	blocks = slices.DeleteFunc(slices.Clone(blocks), func(b Block) bool { return !b.Difficulty.Valid() || !b.Shares.Valid() })
	rows := make(map[string]luckDoc)
	for _, n := range windows {
		used := blocks[:min(n, len(blocks))]
		var row luckDoc
		for i := range used {
			row.Luck += exact(used[i].Shares / used[i].Difficulty)
			if used[i].Orphan {
				row.OrphanRate++
			}
		}
		if len(used) > 0 {
			row.Luck /= exact(len(used))
			row.OrphanRate /= exact(len(used))
		}
		if uncles {
			row.UncleRate = new(exact)
		}
		rows[strconv.Itoa(len(used))] = row
		if len(used) < n {
			break
		}
	}
	return rows
}
