package httpauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/poolkit/poolkit/share"
	"github.com/poolkit/poolkit/stratum"
	"github.com/poolkit/poolkit/stratum/httpauth"
)

// Who is in the list may mine.
func Example() {
	list := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("last_id") == "0" {
			fmt.Fprint(w, `{"err_no":0,"err_msg":null,"data":{"alice":1,"bob":7}}`)
		} else {
			fmt.Fprint(w, `{"err_no":0,"err_msg":null,"data":{}}`)
		}
	}))
	defer list.Close()

	users, err := httpauth.New(list.URL, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if err := users.Load(ctx); err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"bob", "mallory"} {
		id, err := users.Authorize(ctx, share.Worker{User: name, Name: "rig01"}, "x")
		fmt.Println(id, errors.Is(err, stratum.ErrUnknownUser))
	}
	// Output:
	// 7 false
	// 0 true
}
