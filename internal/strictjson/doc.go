// Package strictjson scans JSON by rules that leave no two readers room to
// disagree. It is a scanner, not a decoder: it tells where the top-level members
// of an object are and that everything in them is sound, and copies nothing.
//
// encoding/json is not used for this, because it takes the last of several equal
// names, matches names without regard to case (also ſ for s and the Kelvin sign
// for k), and replaces broken UTF-8: all of them ways to show one tenant to one
// reader and another tenant to the next.
//
// # Guarantees
//
// Accepted is what RFC 8259 calls one JSON value, with these further rules:
//   - nothing but white space around it;
//   - valid UTF-8 throughout, no byte order mark;
//   - no lone surrogate escape, no U+0000 in any spelling (PostgreSQL stores
//     neither);
//   - at most [MaxDepth] nested objects and arrays;
//   - of the top-level object: at most [MaxMembers] members, no two names that
//     are equal or equal but for case under Unicode simple folding, and no name
//     that equals a known name but for case.
//
// Names inside nested objects are not compared: what they mean is not this
// package's business.
//
// Every accepted text is accepted by encoding/json and means the same there. The
// time is linear in the length of the input, apart from the comparison of at most
// MaxMembers names; nothing is allocated for the members of an object whose names
// are known and free of escapes.
//
// # Concurrency
//
// A [Names] may be shared. An [Object] belongs to one goroutine.
//
// # Errors
//
// Every error is an [*Error] with the byte offset and the reason, and never any of
// the content.
package strictjson
