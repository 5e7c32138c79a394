// Package faultlink is a network link that tests disturb: a TCP proxy that cuts
// connections, swallows what passes, or delays it.
//
// # Usage
//
//	link, err := faultlink.Listen("127.0.0.1:7422")
//	…
//	defer link.Close()
//	client.Dial(link.Addr())
//	link.Cut()
//	link.Heal()
//
// # Guarantees
//
// What passes arrives whole and in order. A black hole holds bytes back as a
// network does whose packets vanish: the connections stay, and what TCP would
// send again arrives after the heal.
//
// # Concurrency
//
// All methods are safe for concurrent use. Close leaves no goroutine behind.
package faultlink
