package envelope

// FieldCount is how many fields the wire contract has.
const FieldCount = fieldCount

// ParseTime is the reader of times, for a test that feeds it directly.
var ParseTime = parseTime
