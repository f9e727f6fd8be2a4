package sv1_test

import (
	"errors"
	"fmt"

	"github.com/poolkit/poolkit/stratum/sv1"
)

// A server reads what came in, line by line, and appends its answers to one buffer.
func Example() {
	in := []byte(`{"id":2,"method":"mining.subscribe","params":["cgminer/4.12.1"]}` + "\n" +
		`{"id":7,"method":"mining.submit","params":["alice.rig01","5","00000000000004d2","66669991","12f444d0"]}` + "\n" +
		`{"id":8,"method":"mining.submit","params":["alice.rig01","job","00000000000004d2","66669991","12f444d0"]}` + "\n" +
		`{"id":9,"method":"mining.su`)

	var out []byte
	for {
		line, n := sv1.NextLine(in)
		if n == 0 {
			break // wait for more
		}
		in = in[n:]
		var req sv1.Request
		if err := req.Decode(line); err != nil {
			fmt.Println(err)
			continue
		}
		switch req.Method {
		case sv1.MethodSubscribe:
			out = sv1.AppendSubscribeResult(out, req.ID, []byte{0x1a, 0x00, 0x00, 0x2b}, 8)
		case sv1.MethodSubmit:
			var s sv1.Submit
			switch err := s.Decode(req.Params, 8); {
			case errors.Is(err, sv1.ErrJobID):
				out = sv1.AppendError(out, req.ID, sv1.CodeJobNotFound, sv1.CodeText(sv1.CodeJobNotFound))
			case err != nil:
				out = sv1.AppendError(out, req.ID, sv1.CodeIllegalParams, sv1.CodeText(sv1.CodeIllegalParams))
			default:
				fmt.Printf("%s: job %d, extranonce2 %x, ntime %08x, nonce %08x\n", s.Worker, s.JobID, s.Extranonce2, s.NTime, s.Nonce)
				out = sv1.AppendTrue(out, req.ID)
			}
		}
	}
	fmt.Printf("%s", out)
	fmt.Println(len(in), "bytes left")
	// Output:
	// alice.rig01: job 5, extranonce2 00000000000004d2, ntime 66669991, nonce 12f444d0
	// {"id":2,"result":[[["mining.set_difficulty","1a00002b"],["mining.notify","1a00002b"]],"1a00002b",8],"error":null}
	// {"id":7,"result":true,"error":null}
	// {"id":8,"result":null,"error":[21,"Job not found (=stale)",null]}
	// 27 bytes left
}

// One job goes to many miners: what they share is encoded once.
func ExampleAppendNotifyFrom() {
	body := sv1.AppendNotifyBody(nil, &sv1.Notify{Version: 0x20000000, Bits: 0x207fffff, NTime: 0x6b0103cf})
	for id := range uint64(2) {
		fmt.Printf("%s", sv1.AppendNotifyFrom(nil, id, body, id == 0))
	}
	// Output:
	// {"id":null,"method":"mining.notify","params":["0","0000000000000000000000000000000000000000000000000000000000000000","","",[],"20000000","207fffff","6b0103cf",true]}
	// {"id":null,"method":"mining.notify","params":["1","0000000000000000000000000000000000000000000000000000000000000000","","",[],"20000000","207fffff","6b0103cf",false]}
}

func ExampleMessage() {
	var m sv1.Message
	if err := m.Decode([]byte(`{"id":4,"result":null,"error":[23,"Low difficulty",null]}`)); err != nil {
		fmt.Println(err)
	}
	id, _ := m.IDNumber()
	fmt.Println(id, m.Accepted(), m.Err.Code, m.Err.Message)
	// Output: 4 false 23 Low difficulty
}
