// Package sv1 is the wire format of Stratum V1, the JSON lines that miners and pools exchange: for both sides, without
// sockets and without policy.
//
// A server splits lines off its read buffer with [NextLine], reads the envelope with [Request.Decode] and then the
// parameters with the struct named like the method:
//
//	var req sv1.Request
//	if err := req.Decode(line); err != nil { … }
//	switch req.Method {
//	case sv1.MethodSubmit:
//		var s sv1.Submit
//		switch err := s.Decode(req.Params, 8); {
//		case errors.Is(err, sv1.ErrJobID): // answer CodeJobNotFound
//		case err != nil: // answer CodeIllegalParams
//		}
//	}
//
// It answers and notifies with the Append functions, each of which appends one whole line, "\n" included, to a buffer
// and returns it. A job that goes to thousands of miners is encoded once with [AppendNotifyBody]; [AppendNotifyFrom]
// adds what differs.
//
// A client reads with a [Reader] and [Message.Decode], and asks with the Append…Request functions.
//
// # Hot path
//
// Reading a mining.submit allocates nothing: the decoded structs borrow from the line, and each says which of its
// fields do. What leaves [Submit.Decode] is binary, so that two spellings of one share cannot be told apart later.
//
// # Strictness
//
// Lines are JSON as RFC 8259 defines it, with at most 64 nested arrays and objects. Keys come in any order; of a key
// that is repeated the last one counts; unknown keys are ignored. Text may hold invalid UTF-8: it is handed on as it
// came, and whoever stores or prints it must filter it.
package sv1
