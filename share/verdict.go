package share

// A Verdict is the pool's ruling on a share. The zero value rejects: a ruling nobody made must not pay.
//
// Verdicts are errors, so that a rejected share can travel where an error does; wrapping one keeps [errors.Is].
type Verdict uint8

// The rulings. Status and Code give the numbers that records and miners see.
const (
	Rejected           Verdict = iota // no check reached a ruling
	Accepted                          // meets the difficulty of its job
	AcceptedStale                     // accepted though its job is stale, within a grace period
	Solved                            // accepted, and the header also meets the network target
	SolvedStale                       // solved, on a job that is stale
	JobNotFoundOrStale                // one number for both, in records of old servers
	Duplicate                         // the same work was submitted before
	LowDifficulty                     // the hash misses the target of its job
	Unauthorized                      // submitted before authorize
	NotSubscribed                     // authorize before subscribe, where that matters
	IllegalMethod                     // a method the server does not know
	IllegalParams                     // fields missing, of wrong length, or not hexadecimal
	Banned                            // the address or worker is banned
	InvalidUsername                   // the user is unknown
	InternalError                     // the pool could not record the share
	TimeTooOld                        // ntime below the template's mintime
	TimeTooNew                        // ntime too far ahead
	IllegalVersionBits                // version bits outside the mask
	InvalidSolution                   // other chains only
	WrongNoncePrefix                  // other chains only
	JobNotFound                       // the job was never sent on this connection, or is forgotten
	Stale                             // the job is for a block that has been found already
	numVerdicts
)

// ruling describes a verdict; one switch keeps numbers and texts together.
type ruling struct {
	status int32  // in records
	code   int    // in mining.submit replies; 0 with accepted ones
	text   string // in both
}

func (v Verdict) ruling() ruling {
	switch v {
	case Rejected:
		return ruling{0, 20, "Share rejected"}
	case Accepted:
		return ruling{1798084231, 0, "Share accepted"}
	case AcceptedStale:
		return ruling{950395421, 0, "Share accepted (stale)"}
	case Solved:
		return ruling{1422486894, 0, "Share accepted and solved"}
	case SolvedStale:
		return ruling{1713984938, 0, "Share accepted and solved (stale)"}
	case JobNotFoundOrStale:
		return ruling{21, 21, "Job not found (=stale)"}
	case Duplicate:
		return ruling{22, 22, "Duplicate share"}
	case LowDifficulty:
		return ruling{23, 23, "Low difficulty"}
	case Unauthorized:
		return ruling{24, 24, "Unauthorized worker"}
	case NotSubscribed:
		return ruling{25, 25, "Not subscribed"}
	case IllegalMethod:
		return ruling{26, 26, "Illegal method"}
	case IllegalParams:
		return ruling{27, 27, "Illegal params"}
	case Banned:
		return ruling{28, 28, "Ip banned"}
	case InvalidUsername:
		return ruling{29, 29, "Invalid username"}
	case InternalError:
		return ruling{30, 30, "Internal error"}
	case TimeTooOld:
		return ruling{31, 31, "Time too old"}
	case TimeTooNew:
		return ruling{32, 32, "Time too new"}
	case IllegalVersionBits:
		return ruling{33, 33, "Invalid version mask"}
	case InvalidSolution:
		return ruling{34, 34, "Invalid Solution"}
	case WrongNoncePrefix:
		return ruling{35, 35, "Wrong Nonce Prefix"}
	case JobNotFound:
		return ruling{36, 21, "Job not found"}
	case Stale:
		return ruling{37, 21, "Stale share"}
	}
	return ruling{0, 20, "Unknown"}
}

// VerdictOf returns the verdict with the given status number in records, and false when there is none.
func VerdictOf(status int32) (Verdict, bool) {
	for v := range numVerdicts {
		if v.ruling().status == status {
			return v, true
		}
	}
	return Rejected, false
}

// Status returns the number that share records carry.
func (v Verdict) Status() int32 { return v.ruling().status }

// Code returns the error code of the reply to the miner, 0 for an accepted share. Stale and JobNotFound share code 21,
// which is all that miners know.
func (v Verdict) Code() int { return v.ruling().code }

// String returns the text of the reply to the miner.
func (v Verdict) String() string { return v.ruling().text }

// Error is String, so that a Verdict is an error.
func (v Verdict) Error() string { return v.ruling().text }

// Accepted reports whether the share counts as work done, stale ones included.
func (v Verdict) Accepted() bool {
	switch v {
	case Accepted, AcceptedStale, Solved, SolvedStale:
		return true
	}
	return false
}

// AcceptedStale reports whether the share was accepted on a stale job.
func (v Verdict) AcceptedStale() bool { return v == AcceptedStale || v == SolvedStale }

// RejectedStale reports whether the share was refused because its job is stale. A job that was never sent counts as
// rejected, not as stale.
func (v Verdict) RejectedStale() bool { return v == Stale || v == JobNotFoundOrStale }

// Solved reports whether the share is recorded as a block.
func (v Verdict) Solved() bool { return v == Solved || v == SolvedStale }
