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
	// check returns why a text is refused, or "". It is nil for dataschema, which
	// is held against the type, and for the fields that have a type of their own.
	check func(string) string
}

// reason returns why a text is refused, or "".
func (f *field) reason(text string) string {
	switch {
	case text != "":
		return f.check(text)
	case f.required:
		return reasonRequired
	}
	return ""
}

// fields is constant. Decoding, validation and encoding all walk this one list,
// so that none of the three can know a field that the others do not.
var fields = [fieldCount]field{
	fieldSpecVersion: {"specversion", true, checkSpecVersion},
	fieldID:          {"id", true, checkUUID},
	fieldType:        {"type", true, checkType},
	fieldSource:      {"source", true, nil},
	fieldSubject:     {"subject", true, checkResource},
	fieldTime:        {"time", true, nil},
	fieldContentType: {"datacontenttype", true, checkContentType},
	fieldSchema:      {"dataschema", true, nil},
	fieldTenant:      {"tenant_id", false, checkID},
	fieldProject:     {"project_id", false, checkID},
	fieldEnvironment: {"environment_id", false, checkID},
	fieldDatacenter:  {"datacenter_id", false, checkID},
	fieldActor:       {"actor", false, checkActor},
	fieldCorrelation: {"correlation_id", true, checkID},
	fieldCausation:   {"causation_id", false, checkID},
	fieldVisibility:  {"visibility", false, nil},
	fieldData:        {"data", true, nil},
}

// text returns where the i-th field is kept, and nil for the four fields that have
// a type of their own. It is no function in the list above, for what is called
// through a variable keeps an envelope from the stack.
func (e *Envelope) text(i int) *string {
	switch i {
	case fieldSpecVersion:
		return &e.SpecVersion
	case fieldID:
		return &e.ID
	case fieldType:
		return &e.Type
	case fieldSubject:
		return &e.Subject
	case fieldContentType:
		return &e.DataContentType
	case fieldSchema:
		return &e.DataSchema
	case fieldTenant:
		return &e.TenantID
	case fieldProject:
		return &e.ProjectID
	case fieldEnvironment:
		return &e.EnvironmentID
	case fieldDatacenter:
		return &e.DatacenterID
	case fieldActor:
		return (*string)(&e.Actor)
	case fieldCorrelation:
		return &e.CorrelationID
	case fieldCausation:
		return &e.CausationID
	}
	return nil
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
