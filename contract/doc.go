// Package contract is the catalogue of a service's messages: which ones it sends
// and handles, the JSON Schema of every version of their data, an AsyncAPI
// document, and a lock file by which a test notices that a version's meaning
// changed.
//
// # Usage
//
// Messages are declared once, as package envelope says. The catalogue stands beside
// them:
//
//	var Catalogue = contract.MustNew(subject.Maskin,
//		contract.Produces(ServerProvisioned, ServerResized),
//		contract.Handles(Provision, Resize),
//	)
//
// One line of a test compares it with the lock, a file that is committed:
//
//	func TestContractsAreLocked(t *testing.T) {
//		contract.Check(t, maskinevents.Catalogue, "contracts.lock.json")
//	}
//
// The first time, and after every change that is meant, write the lock with
// DVMSG_UPDATE_LOCK=1. Operators and other languages read it with
// "dvmsg contracts". docs/CONTRACTS.md tells how a version is rolled out.
//
// # Schemas
//
// A schema says what encoding/json makes of a Go type:
//   - a field without omitempty or omitzero is required, and a struct or an array
//     even with omitempty, which does nothing for them; a pointer, a slice or a map
//     that may be nil there is also null;
//   - embedded structs are flattened, names and conflicts are those of encoding/json;
//   - time.Time is a date-time, json.RawMessage and any are any value, []byte is
//     base64, a type named UUID over [16]byte is a uuid, what marshals itself to text
//     is a string, the sized integers have bounds;
//   - a map has string keys; a type that holds itself becomes a definition.
//
// A text type says its closed set of values by a method, a type that marshals itself
// what it is; a field of a type that is not yours by a tag:
//
//	func (Size) ContractEnum() []string { return []string{"small", "large"} }
//	func (Amount) ContractSchema() string { return `{"type":"string","pattern":"^[0-9]+ [A-Z]{3}$"}` }
//	Price decimal.Decimal `json:"price" contract:"type=string"`
//	Size  string          `json:"size" contract:"enum=small|large"`
//	Host  string          `json:"host" contract:"format=hostname"`
//
// Schemas describe; nothing is validated against them on the way of a message.
// Values that an enum lacks reach the handler.
//
// # Guarantees
//
//   - A type that is no schema is an error of [New] that names the field.
//   - The same declarations give the same bytes, whatever their order.
//   - Renaming a Go type or moving it changes nothing that is compared.
//   - A version that was locked is compared for ever: what is no longer listed is
//     kept as retired, and compared as long as a declaration carries it forward.
//   - [Parse] and [ParseSchema] accept nothing that [Compare] does not understand.
//
// # Concurrency
//
// A [Catalogue] is immutable. Lists and schemas are plain data: safe to read from
// several goroutines as long as none changes them. [Check] writes a file only with
// [UpdateLock] set.
//
// # Errors
//
// All faults are reported at once, joined, each with the message and the field. A
// breaking change is a [*BreakingError].
package contract
