package main

import (
	"context"
	"fmt"
)

func Example_run() {
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// Everybody speaks version 1.
	//   plattform was sent version 1: hostname web-1.osl.example
	//   nett      was sent version 1: hostname web-1.osl.example
	// Readers first: plattform's new release handles version 2 and is given version 1 carried forward. nett is late.
	//   plattform was sent version 1: host web-2 in osl.example
	//   nett      was sent version 1: hostname web-2.osl.example
	// maskin rolls out too early: one instance sends version 1, the other version 2. nett goes on with version 1.
	//   plattform was sent version 2: host web-3 in osl.example
	//   plattform was sent version 1: host web-4 in osl.example
	//   nett      was sent version 1: hostname web-4.osl.example
	//   nett      has a dead letter of class decode: consumer: route message: envelope: decode maskin.server.provisioned v2: no handler of this version; this consumer handles v1: deploy a release that handles the newer one, then replay
	// nett is rolled out, and an operator replays its letter: nothing was lost.
	//   nett      was sent version 2: host web-3 in osl.example
}
