package sv1

// A Method is a method of Stratum V1 that this package knows by name. The zero value is any other.
type Method uint8

// The methods, first those a miner calls and then those a pool calls.
const (
	MethodUnknown Method = iota

	MethodConfigure            // mining.configure, BIP 310
	MethodSubscribe            // mining.subscribe
	MethodAuthorize            // mining.authorize
	MethodSubmit               // mining.submit
	MethodSuggestDifficulty    // mining.suggest_difficulty
	MethodSuggestTarget        // mining.suggest_target
	MethodExtranonceSubscribe  // mining.extranonce.subscribe
	MethodGetTransactions      // mining.get_transactions
	MethodMultiVersion         // mining.multi_version
	MethodCapabilities         // mining.capabilities
	MethodAgentGetCapabilities // agent.get_capabilities, of BTCAgent

	MethodSetDifficulty  // mining.set_difficulty
	MethodNotify         // mining.notify
	MethodSetVersionMask // mining.set_version_mask, BIP 310
	MethodSetExtranonce  // mining.set_extranonce
	MethodSetGoal        // mining.set_goal
	MethodPing           // mining.ping
	MethodReconnect      // client.reconnect
	MethodShowMessage    // client.show_message
	MethodGetVersion     // client.get_version

	methodCount
)

// String returns the name of the method on the wire, and "unknown" for MethodUnknown.
func (m Method) String() string {
	switch m {
	case MethodConfigure:
		return "mining.configure"
	case MethodSubscribe:
		return "mining.subscribe"
	case MethodAuthorize:
		return "mining.authorize"
	case MethodSubmit:
		return "mining.submit"
	case MethodSuggestDifficulty:
		return "mining.suggest_difficulty"
	case MethodSuggestTarget:
		return "mining.suggest_target"
	case MethodExtranonceSubscribe:
		return "mining.extranonce.subscribe"
	case MethodGetTransactions:
		return "mining.get_transactions"
	case MethodMultiVersion:
		return "mining.multi_version"
	case MethodCapabilities:
		return "mining.capabilities"
	case MethodAgentGetCapabilities:
		return "agent.get_capabilities"
	case MethodSetDifficulty:
		return "mining.set_difficulty"
	case MethodNotify:
		return "mining.notify"
	case MethodSetVersionMask:
		return "mining.set_version_mask"
	case MethodSetExtranonce:
		return "mining.set_extranonce"
	case MethodSetGoal:
		return "mining.set_goal"
	case MethodPing:
		return "mining.ping"
	case MethodReconnect:
		return "client.reconnect"
	case MethodShowMessage:
		return "client.show_message"
	case MethodGetVersion:
		return "client.get_version"
	}
	return "unknown"
}

func methodOf(name []byte) Method {
	switch string(name) {
	case "mining.submit":
		return MethodSubmit
	case "mining.configure":
		return MethodConfigure
	case "mining.subscribe":
		return MethodSubscribe
	case "mining.authorize":
		return MethodAuthorize
	case "mining.suggest_difficulty":
		return MethodSuggestDifficulty
	case "mining.suggest_target":
		return MethodSuggestTarget
	case "mining.extranonce.subscribe":
		return MethodExtranonceSubscribe
	case "mining.get_transactions":
		return MethodGetTransactions
	case "mining.multi_version":
		return MethodMultiVersion
	case "mining.capabilities":
		return MethodCapabilities
	case "agent.get_capabilities":
		return MethodAgentGetCapabilities
	case "mining.set_difficulty":
		return MethodSetDifficulty
	case "mining.notify":
		return MethodNotify
	case "mining.set_version_mask":
		return MethodSetVersionMask
	case "mining.set_extranonce":
		return MethodSetExtranonce
	case "mining.set_goal":
		return MethodSetGoal
	case "mining.ping":
		return MethodPing
	case "client.reconnect":
		return MethodReconnect
	case "client.show_message":
		return MethodShowMessage
	case "client.get_version":
		return MethodGetVersion
	}
	return MethodUnknown
}
