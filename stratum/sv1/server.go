package sv1

import (
	"math"
	"slices"
	"strconv"
)

// The Append functions of replies take the raw id token of the request, [Request.ID]; nil is written as null. A reply
// always has both a result and an error: some firmware takes a missing result for a failure.

func appendReplyHead(dst, id []byte) []byte {
	dst = append(dst, `{"id":`...)
	if len(id) == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, id...)
	}
	return append(dst, `,"result":`...)
}

const (
	replyTail        = `,"error":null}` + "\n"
	notificationTail = "]}\n"
)

// AppendTrue appends the reply to a request that was granted or a share that was accepted.
func AppendTrue(dst, id []byte) []byte {
	dst = appendReplyHead(dst, id)
	return append(dst, "true"+replyTail...)
}

// AppendResult appends a reply with any result, which must be one JSON value without line ends.
func AppendResult(dst, id, result []byte) []byte {
	dst = appendReplyHead(dst, id)
	dst = append(dst, result...)
	return append(dst, replyTail...)
}

// AppendTextResult appends a reply whose result is a string: a miner's answer to client.get_version, or "pong" to
// mining.ping.
func AppendTextResult(dst, id []byte, result string) []byte {
	dst = appendReplyHead(dst, id)
	dst = appendText(dst, result)
	return append(dst, replyTail...)
}

// AppendError appends the reply to a request that was refused: one of the Code constants, and a text that miners may
// show to people, such as that of [CodeText].
func AppendError(dst, id []byte, code int, message string) []byte {
	dst = appendReplyHead(dst, id)
	dst = append(dst, "null"...)
	return appendErrorTail(dst, code, message)
}

func appendErrorTail(dst []byte, code int, message string) []byte {
	dst = append(dst, `,"error":[`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(dst, ',')
	dst = appendText(dst, message)
	return append(dst, ",null]}\n"...)
}

// AppendNoTransactions appends the reply to mining.get_transactions of a pool that does not show them: an empty list
// and an error, of which miners read one or the other.
func AppendNoTransactions(dst, id []byte) []byte {
	dst = appendReplyHead(dst, id)
	dst = append(dst, "[]"...)
	return appendErrorTail(dst, CodeOther, "Not supported")
}

// AppendSubscribeResult appends the reply to mining.subscribe. The subscription ids in it, of which miners send one
// back to resume, are the extranonce1.
func AppendSubscribeResult(dst, id, extranonce1 []byte, extranonce2Size int) []byte {
	dst = appendReplyHead(dst, id)
	dst = append(dst, `[[["mining.set_difficulty","`...)
	dst = appendHex(dst, extranonce1)
	dst = append(dst, `"],["mining.notify","`...)
	dst = appendHex(dst, extranonce1)
	dst = append(dst, `"]],"`...)
	dst = appendHex(dst, extranonce1)
	dst = append(dst, `",`...)
	dst = strconv.AppendInt(dst, int64(extranonce2Size), 10)
	return append(dst, "]"+replyTail...)
}

// A ConfigureResult says which extensions of BIP 310 the server grants.
type ConfigureResult struct {
	MinimumDifficulty   bool
	VersionRolling      bool
	VersionMask         uint32 // the bits that both sides allow; only with VersionRolling
	SubscribeExtranonce bool
	Info                bool
}

// AppendConfigureResult appends the reply to mining.configure. It answers the extensions asked for,
// [Configure.Extensions], and no other: those of BIP 310 first, as r says, then unknown ones with false.
func AppendConfigureResult(dst, id []byte, asked []string, r ConfigureResult) []byte {
	dst = appendReplyHead(dst, id)
	dst = append(dst, '{')
	for _, known := range [...]struct {
		name    string
		granted bool
	}{
		{ExtensionMinimumDifficulty, r.MinimumDifficulty},
		{ExtensionVersionRolling, r.VersionRolling},
		{ExtensionSubscribeExtranonce, r.SubscribeExtranonce},
		{ExtensionInfo, r.Info},
	} {
		if !slices.Contains(asked, known.name) {
			continue
		}
		dst = appendText(dst, known.name)
		if !known.granted {
			dst = append(dst, ":false,"...)
			continue
		}
		dst = append(dst, ":true,"...)
		if known.name == ExtensionVersionRolling {
			dst = append(dst, `"version-rolling.mask":"`...)
			dst = appendHex32(dst, r.VersionMask)
			dst = append(dst, `",`...)
		}
	}
	for _, name := range asked {
		if !knownExtension(name) {
			dst = appendText(dst, name)
			dst = append(dst, ":false,"...)
		}
	}
	if dst[len(dst)-1] == ',' {
		dst = dst[:len(dst)-1]
	}
	return append(dst, "}"+replyTail...)
}

func knownExtension(name string) bool {
	switch name {
	case ExtensionMinimumDifficulty, ExtensionVersionRolling, ExtensionSubscribeExtranonce, ExtensionInfo:
		return true
	}
	return false
}

// AppendSetDifficulty appends a mining.set_difficulty notification: an integer when d is whole, however large, and
// else the shortest decimal fraction that reads back as d, never with an exponent. Some firmware reads integers only.
// A d that is not positive and finite, which no caller should have, is written as 1.
func AppendSetDifficulty(dst []byte, d float64) []byte {
	dst = append(dst, `{"id":null,"method":"mining.set_difficulty","params":[`...)
	dst = appendDifficulty(dst, d)
	return append(dst, notificationTail...)
}

func appendDifficulty(dst []byte, d float64) []byte {
	switch {
	case !(d > 0) || math.IsInf(d, 1):
		return append(dst, '1')
	case d < 1<<63 && d == math.Trunc(d):
		return strconv.AppendUint(dst, uint64(d), 10)
	case d >= 1<<63:
		return strconv.AppendFloat(dst, d, 'f', 0, 64)
	}
	return strconv.AppendFloat(dst, d, 'f', -1, 64)
}

// AppendSetVersionMask appends a mining.set_version_mask notification, BIP 310.
func AppendSetVersionMask(dst []byte, mask uint32) []byte {
	dst = append(dst, `{"id":null,"method":"mining.set_version_mask","params":["`...)
	dst = appendHex32(dst, mask)
	return append(dst, `"`+notificationTail...)
}

// AppendSetExtranonce appends a mining.set_extranonce notification, only for miners that subscribed to it.
func AppendSetExtranonce(dst, extranonce1 []byte, extranonce2Size int) []byte {
	dst = append(dst, `{"id":null,"method":"mining.set_extranonce","params":["`...)
	dst = appendHex(dst, extranonce1)
	dst = append(dst, `",`...)
	dst = strconv.AppendInt(dst, int64(extranonce2Size), 10)
	return append(dst, notificationTail...)
}

// AppendReconnect appends a client.reconnect notification. An empty Host means the same host and port again, and then
// the wait is not sent.
func AppendReconnect(dst []byte, r Reconnect) []byte {
	dst = append(dst, `{"id":null,"method":"client.reconnect","params":[`...)
	if r.Host != "" {
		dst = appendText(dst, r.Host)
		dst = append(dst, ',')
		dst = strconv.AppendInt(dst, int64(r.Port), 10)
		dst = append(dst, ',')
		dst = strconv.AppendInt(dst, int64(r.WaitSeconds), 10)
	}
	return append(dst, notificationTail...)
}

// AppendShowMessage appends a client.show_message notification.
func AppendShowMessage(dst []byte, text string) []byte {
	dst = append(dst, `{"id":null,"method":"client.show_message","params":[`...)
	dst = appendText(dst, text)
	return append(dst, notificationTail...)
}

// AppendGetVersion appends a client.get_version request, which a miner answers with its software's name.
func AppendGetVersion(dst []byte, id uint64) []byte {
	return append(appendRequestHead(dst, id, MethodGetVersion), notificationTail...)
}

// AppendPing appends a mining.ping request. Some miners answer "pong", others not at all.
func AppendPing(dst []byte, id uint64) []byte {
	return append(appendRequestHead(dst, id, MethodPing), notificationTail...)
}

// appendRequestHead appends a request up to the bracket that opens its params.
func appendRequestHead(dst []byte, id uint64, m Method) []byte {
	dst = append(dst, `{"id":`...)
	dst = strconv.AppendUint(dst, id, 10)
	dst = append(dst, `,"method":"`...)
	dst = append(dst, m.String()...)
	return append(dst, `","params":[`...)
}
