package btcagent_test

import (
	"errors"
	"fmt"

	"github.com/poolkit/poolkit/stratum/btcagent"
	"github.com/poolkit/poolkit/stratum/sv1"
)

// A pool reads what an agent sent, lines and frames in one stream, and answers every submit by its index.
func Example() {
	var in []byte
	in = append(in, `{"id":"caps","method":"agent.get_capabilities","params":[["verrol","subres"]]}`+"\n"...)
	in = btcagent.AppendRegister(in, 0x1122, "cgminer", "s1099")
	in = btcagent.AppendSubmit(in, &btcagent.Submit{JobID: 5, SessionID: 0x1122, Extranonce2: 1234, Nonce: 0x12f444d0})
	in = btcagent.AppendSubmit(in, &btcagent.Submit{JobID: 5, SessionID: 7})

	workers := map[uint16]string{}
	var submits uint16 // wraps as the index does
	var out []byte
	for len(in) > 0 {
		if in[0] != btcagent.Magic {
			line, n := sv1.NextLine(in)
			in = in[n:]
			fmt.Printf("%s\n", line)
			continue
		}
		f, n, err := btcagent.Next(in)
		if err != nil || n == 0 {
			fmt.Println("close the connection, or wait for more")
			return
		}
		in = in[n:]
		switch {
		case f.Command == btcagent.CommandRegister:
			var r btcagent.Register
			if r.Decode(f) == nil {
				workers[r.SessionID] = string(r.Worker)
			}
		case f.Command.IsSubmit():
			status := btcagent.StatusAccept
			var s btcagent.Submit
			if err := s.Decode(f); err != nil && !errors.Is(err, btcagent.ErrSessionID) {
				status = sv1.CodeIllegalParams
			} else if workers[s.SessionID] == "" {
				status = sv1.CodeUnauthorized
			} else {
				en2 := btcagent.Extranonce2(s.SessionID, s.Extranonce2)
				fmt.Printf("%s by %s: job %d, extranonce2 %x, nonce %08x\n", f.Command, workers[s.SessionID], s.JobID, en2, s.Nonce)
			}
			out = btcagent.AppendSubmitResponse(out, submits, status)
			submits++
		}
	}
	fmt.Printf("%x\n", out)
	// Output:
	// {"id":"caps","method":"agent.get_capabilities","params":[["verrol","subres"]]}
	// SUBMIT_SHARE by s1099: job 5, extranonce2 00001122000004d2, nonce 12f444d0
	// 7f100a00000087962c6b7f100a00010018000000
}

// Workers of one new difficulty are told in one frame, before the job it is for.
func ExampleAppendSetDifficulty() {
	exponent, ok := btcagent.Exponent(10_000)
	fmt.Println(1<<exponent, ok)
	fmt.Printf("%x\n", btcagent.AppendSetDifficulty(nil, exponent, 0x1122, 0x3344))
	// Output:
	// 8192 true
	// 7f050b000d020022114433
}
