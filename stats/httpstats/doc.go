// Package httpstats serves the statistics of a pool: JSON documents for programs and front ends, and a page for people.
//
//	handler, err := httpstats.NewHandler(agg, blocks, nil)
//	server := &http.Server{Addr: "127.0.0.1:8080", Handler: handler, ReadTimeout: 5 * time.Second}
//
// The documents are those of open-ethereum-pool, so that its front ends can be used, in Bitcoin's units:
//
//	/api/stats             the pool: hashrate, running round, numbers of miners and blocks, nodes
//	/api/miners            hashrate of every account; ?limit=100&offset=0 takes the strongest first
//	/api/blocks            found blocks by state, and luck
//	/api/payments          payments, of which there are none yet
//	/api/accounts/{login}  one account with its workers; 404 when it is not known
//	/                      the page, which reads the documents above
//
// Hashrates are whole hashes per second, amounts of shares are difficulties and rewards are decimal strings of
// satoshis. Times are Unix seconds, but now and updatedAt milliseconds. A login is the user name, escaped for a path: a
// "/" in it may stay or be %2F.
package httpstats
