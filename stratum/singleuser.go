package stratum

import "github.com/poolkit/poolkit/share"

// SingleUser credits everything to one account, as BTCPool's single_user_mode does: a pool that mines through another
// one, or an owner with many hands. Users are let in as ever, each becomes a worker of the account, and its own number
// travels along as the external user id of shares and events. The zero value changes nothing.
type SingleUser struct {
	Name   string // account; "" turns the mode off
	UserID int32  // number of the account, above 0
}

// Credit returns who is credited for the work of w, whose user an [Authorizer] knows as number userID: the account's
// name with the machine "user.machine", the account's number, and userID as the external user id. The machine's name is
// not cut to share.MaxWorkerName again, or machines of a user with a long name would become one. With the mode off it
// returns w, userID and 0.
func (s SingleUser) Credit(w share.Worker, userID int32) (credited share.Worker, creditedID, extUserID int32) {
	if s.Name == "" {
		return w, userID, 0
	}
	return share.Worker{User: s.Name, Name: w.String()}, s.UserID, userID
}
