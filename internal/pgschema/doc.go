// Package pgschema checks and quotes the name of the schema that the library's
// tables live in. It is the one place where a configured name becomes part of
// an SQL text, so that no other package concatenates one.
package pgschema
