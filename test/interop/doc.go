// Package interop holds this library against the programs of others: the official
// CloudEvents SDK, and clients in another language that know docs/WIRE.md and
// nothing else. It has no code of its own; "make interop" runs its tests. The
// module is nested, so that services inherit none of what it needs.
package interop
