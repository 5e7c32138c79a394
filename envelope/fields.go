package envelope

import "codeberg.org/dataverket/messaging/internal/strictjson"

// The top-level fields of the wire contract, in the order in which they are
// written: the fifteen of the Dataverket envelope, dataschema and visibility
// (requirement E1).
const (
	fieldSpecVersion = iota
	fieldID
	fieldType
	fieldSource
	fieldSubject
	fieldTime
	fieldContentType
	fieldSchema
	fieldTenant
	fieldProject
	fieldEnvironment
	fieldDatacenter
	fieldActor
	fieldCorrelation
	fieldCausation
	fieldVisibility
	fieldData
	fieldCount
)

// field is what decoding, validation and encoding know of one of them.
type field struct {
	name     string
	required bool
	// text returns where a field that is plain text is kept; nil for the four
	// fields that have a type of their own.
	text func(*Envelope) *string
	// check returns why a text is refused, or "". It is nil for dataschema, which
	// is held against the type.
	check func(string) string
}

// fields is constant. Decoding, validation and encoding all walk this one list,
// so that none of the three can know a field that the others do not.
var fields = [fieldCount]field{
	fieldSpecVersion: {"specversion", true, func(e *Envelope) *string { return &e.SpecVersion }, checkSpecVersion},
	fieldID:          {"id", true, func(e *Envelope) *string { return &e.ID }, checkUUID},
	fieldType:        {"type", true, func(e *Envelope) *string { return &e.Type }, checkType},
	fieldSource:      {name: "source", required: true},
	fieldSubject:     {"subject", true, func(e *Envelope) *string { return &e.Subject }, checkResource},
	fieldTime:        {name: "time", required: true},
	fieldContentType: {"datacontenttype", true, func(e *Envelope) *string { return &e.DataContentType }, checkContentType},
	fieldSchema:      {"dataschema", true, func(e *Envelope) *string { return &e.DataSchema }, nil},
	fieldTenant:      {"tenant_id", false, func(e *Envelope) *string { return &e.TenantID }, checkID},
	fieldProject:     {"project_id", false, func(e *Envelope) *string { return &e.ProjectID }, checkID},
	fieldEnvironment: {"environment_id", false, func(e *Envelope) *string { return &e.EnvironmentID }, checkID},
	fieldDatacenter:  {"datacenter_id", false, func(e *Envelope) *string { return &e.DatacenterID }, checkID},
	fieldActor:       {"actor", false, func(e *Envelope) *string { return (*string)(&e.Actor) }, checkActor},
	fieldCorrelation: {"correlation_id", true, func(e *Envelope) *string { return &e.CorrelationID }, checkID},
	fieldCausation:   {"causation_id", false, func(e *Envelope) *string { return &e.CausationID }, checkID},
	fieldVisibility:  {name: "visibility"},
	fieldData:        {name: "data", required: true},
}

// fieldNames is constant: the names of fields, by the same indices.
var fieldNames = strictjson.NewNames(namesOf(fields[:])...)

func namesOf(list []field) []string {
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].name
	}
	return names
}
