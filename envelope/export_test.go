package envelope

// FieldCount is how many fields the wire contract has.
const FieldCount = fieldCount
