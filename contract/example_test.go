package contract_test

import (
	"fmt"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Size is a text with a closed set of values.
type Size string

// ContractEnum lists them for the schema.
func (Size) ContractEnum() []string { return []string{"small", "large"} }

// ServerResizedV1 is the payload of the examples.
type ServerResizedV1 struct {
	Size   Size   `json:"size"`
	Reason string `json:"reason,omitempty"`
}

// ServerResized is declared once, in the package that producer and consumer share.
var ServerResized = envelope.MustEvent[ServerResizedV1](envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "resized", Version: 1,
})

// Catalogue stands beside the messages.
var Catalogue = contract.MustNew(subject.Maskin, contract.Produces(ServerResized))

func ExampleMustNew() {
	for _, c := range Catalogue.List().Contracts {
		schema, err := c.SchemaDocument()
		if err != nil {
			panic(err)
		}
		fmt.Println(c, c.Direction, c.Subject)
		fmt.Print(string(schema))
	}
	// Output:
	// maskin.server.resized v1 produces dv.maskin.evt.server.resized
	// {
	//   "$schema": "http://json-schema.org/draft-07/schema#",
	//   "$id": "urn:dataverket:schema:maskin.server.resized:v1",
	//   "type": "object",
	//   "properties": {
	//     "reason": {
	//       "type": "string"
	//     },
	//     "size": {
	//       "type": "string",
	//       "enum": [
	//         "large",
	//         "small"
	//       ]
	//     }
	//   },
	//   "required": [
	//     "size"
	//   ]
	// }
}

// What a service's test does in one line, by hand: compare with the lock.
func ExampleAccept() {
	lock, _, err := contract.Accept(contract.NewLock("maskin"), Catalogue.List())
	if err != nil {
		panic(err)
	}
	type resized struct { // somebody renamed the field of version 1
		NewSize Size `json:"new_size,omitempty"`
	}
	changed := contract.MustNew(subject.Maskin, contract.Produces(envelope.MustEvent[resized](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "resized", Version: 1,
	})))
	for _, c := range contract.Compare(lock, changed.List()) {
		fmt.Println(c.Verdict, c.Path, c.Rule)
	}
	_, _, err = contract.Accept(lock, changed.List())
	fmt.Println(err != nil)
	// Output:
	// warning reason optional-property-removed
	// breaking size required-property-removed
	// compatible new_size optional-property-added
	// true
}
