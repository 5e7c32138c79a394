package envelope

import "github.com/google/uuid"

// IdempotencyKey returns what to give another system along with a request, so that
// it recognises a repeat (requirement I10): a UUID that follows from the message
// and the name of the effect alone. It is the same in every attempt, process,
// replay and version of this library.
//
// Inside the handler's transaction an effect happens once; what it asks of another
// system, such as an HTTP call or a mail, happens again when the handler is tried
// again, and is not taken back when the transaction is. The other system has to
// keep the key for as long as the message can come again: in an inbox's horizon
// (see [DefaultHorizon]) and until the last replay of its dead letter. One that
// keeps no keys is asked first whether the thing is there, by a name that follows
// from the key.
//
// effect names what is asked for, such as "plattform.dns-record": it keeps two
// requests of one handler apart, and two handlers of one message. It is all that
// does, so that the durables of two sites which share a handler have one key;
// changing it is a new effect. A replay with edited data has the key of the
// original, under which the other system may hold the old request.
func IdempotencyKey(source, id, effect string) string {
	return uuid.NewSHA1(effects, []byte(effect+"\x00"+source+"\x00"+id)).String()
}

// IdempotencyKey is [IdempotencyKey] of the message.
func (d *Delivery) IdempotencyKey(effect string) string {
	return IdempotencyKey(d.Envelope.Source.String(), d.Envelope.ID, effect)
}

// effects is the namespace of the keys. Another one would be other keys.
var effects = uuid.MustParse("57fd18bc-6c5c-4ac9-8383-0620f553dd83")
