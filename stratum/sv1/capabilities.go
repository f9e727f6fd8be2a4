package sv1

import "slices"

// Names of capabilities that BTCAgent, the proxy of mining farms, and a pool agree on before binary frames flow.
const (
	CapabilityVersionRolling = "verrol" // shares may carry version bits
	CapabilitySubmitResponse = "subres" // the agent wants a response to each share
)

// MaxCapabilities is how many names of one list are kept. BTCPool knows two.
const MaxCapabilities = 32

// A Capabilities holds the parameters of agent.get_capabilities. An agent asks two or three times on a connection, at
// first before anything else; whatever it sent, the answer is [AppendCapabilitiesResult] with what the server can do.
type Capabilities struct {
	Names []string // what the agent can do, in its order and each once; they may hold anything
}

// Decode reads params: a list of names in a list, or only one of the two lists, or nothing. BTCPool crashed on params
// without a list in them. What is not a string is passed over, and so are names after [MaxCapabilities]; [ErrParams] is
// for what is no array at all.
func (c *Capabilities) Decode(params []byte) error {
	*c = Capabilities{}
	e := over(params)
	for tok := e.next(); tok != nil; tok = e.next() {
		if tok[0] != '[' {
			c.add(tok)
			continue
		}
		nested := over(tok)
		for tok := nested.next(); tok != nil; tok = nested.next() {
			c.add(tok)
		}
	}
	if e.bad {
		*c = Capabilities{}
		return errNotArray
	}
	return nil
}

func (c *Capabilities) add(tok []byte) {
	if len(c.Names) == MaxCapabilities {
		return
	}
	if name, ok := text(tok); ok && !slices.Contains(c.Names, string(name)) {
		c.Names = append(c.Names, string(name))
	}
}

// Has reports whether a capability was named.
func (c *Capabilities) Has(name string) bool { return slices.Contains(c.Names, name) }

// A CapabilitiesResult holds the result of agent.get_capabilities: what the server can do.
type CapabilitiesResult struct {
	Names []string // in the server's order and each once; they may hold anything
}

// Decode reads the result of a reply to agent.get_capabilities: an object with a list of names. A list that is missing
// or null is empty; [ErrParams] is for anything else.
func (c *CapabilitiesResult) Decode(result []byte) error {
	*c = CapabilitiesResult{}
	var list []byte
	ok := members(result, func(key, value []byte) {
		if name, _ := text(key); string(name) == "capabilities" {
			list = value
		}
	})
	if !ok {
		return errResult
	}
	if isNull(list) {
		return nil
	}
	if list[0] != '[' {
		return errResult
	}
	var names Capabilities
	for e := over(list); !e.done; {
		names.add(e.next())
	}
	c.Names = names.Names
	return nil
}

// Has reports whether a capability was named.
func (c *CapabilitiesResult) Has(name string) bool { return slices.Contains(c.Names, name) }

// AppendCapabilitiesResult appends the reply to agent.get_capabilities: the names of what the server can do.
func AppendCapabilitiesResult(dst, id []byte, names ...string) []byte {
	dst = appendReplyHead(dst, id)
	dst = append(dst, `{"capabilities":`...)
	dst = appendNames(dst, names)
	return append(dst, "}"+replyTail...)
}

// AppendCapabilitiesRequest appends an agent.get_capabilities request: the names of what the agent can do.
func AppendCapabilitiesRequest(dst []byte, id uint64, names ...string) []byte {
	dst = appendRequestHead(dst, id, MethodAgentGetCapabilities)
	dst = appendNames(dst, names)
	return append(dst, notificationTail...)
}

func appendNames(dst []byte, names []string) []byte {
	dst = append(dst, '[')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendText(dst, name)
	}
	return append(dst, ']')
}
