package envelope

import "fmt"

// DecodeFault says what about a message does not fit the type that it is decoded
// as.
type DecodeFault string

// The faults.
const (
	// FaultType: it is another message, or one that a consumer has no handler for.
	FaultType DecodeFault = "type"
	// FaultVersion: the type is known, this version of its schema is not.
	FaultVersion DecodeFault = "version"
	// FaultData: the data does not fit the version's Go type.
	FaultData DecodeFault = "data"
	// FaultUpcast: the data fits, but an [Upcast] refused or panicked.
	FaultUpcast DecodeFault = "upcast"
)

// DecodeError says why a message did not become typed data: what [Type.Decode]
// returns, wrapped in [ErrMalformed], and a consumer that has no handler. No retry
// heals it, a newer program may: the message is a dead letter of class
// [ClassDecode], and is replayed after that.
type DecodeError struct {
	// Fault is what does not fit.
	Fault DecodeFault
	// Type and Version are those of the message.
	Type    string
	Version int
	// Reason says what would fit, and what to do. It holds no data, unless the
	// error of an upcaster does.
	Reason string
	// Err is the cause, nil where Reason says all. Its text may quote the data.
	Err error
}

// Error returns "envelope: decode <type> v<version>: <reason>".
func (e *DecodeError) Error() string {
	return fmt.Sprintf("envelope: decode %s v%d: %s", clip(e.Type), e.Version, e.Reason)
}

// Unwrap returns the cause, except that of an upcaster: whatever that wraps, it
// must not be taken for the verdict of a handler.
func (e *DecodeError) Unwrap() error {
	if e.Fault == FaultUpcast {
		return nil
	}
	return e.Err
}

// versionFault is the DecodeError of another version than the one that is known.
func versionFault(typeName string, version, known int) *DecodeError {
	reason := "version %d is known here: update to the release that declares the newer one, then replay"
	if version < known {
		reason = "version %d is known here, and nothing carries the older one forward: give its declaration an envelope.Upcast, then replay"
	}
	return &DecodeError{Fault: FaultVersion, Type: typeName, Version: version, Reason: fmt.Sprintf(reason, known)}
}
