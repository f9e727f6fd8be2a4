// Package httpauth is a stratum.Authorizer that knows users from a list on the web, in the form of BTCPool's
// list_id_api_url:
//
//	GET <url>?last_id=<highest number seen, 0 at first>
//	{"err_no":0,"err_msg":null,"data":{"alice":1,"bob":7}}
//
// Each answer is a page of users with higher numbers than last_id, and an empty page ("data":{} or "data":[]) ends the
// list. A list in one piece that ignores last_id, such as a file, does as well.
//
//	users, err := httpauth.New("https://pool.example/list", &httpauth.Options{CacheFile: "users.json"})
//	if err != nil {
//		return err
//	}
//	if err := users.Load(ctx); err != nil { // before the first miner connects
//		return err
//	}
//	go users.Run(ctx) // asks for new users every ten seconds
//	server, err := stratum.New(feed, users, shares, solutions, nil)
//
// # Rules
//
// User names are put under the same [stratum.NameRules] as the server's. A number is above 0 and fits 32 bits; a user
// listed with any other is unknown, and stops being known when it was. One that is merely not listed any more stays
// known until the next start, and one that is listed with another number gets that from its next login on. Where two
// spellings in the list are one user, as "Alice" and "alice" are when case is folded, the lower number counts: nobody
// takes over a name by signing up with another spelling of it.
//
// A page that fails in any way, by its status, form, size or err_no, changes nothing. The list is only read: passwords
// are not checked.
package httpauth
