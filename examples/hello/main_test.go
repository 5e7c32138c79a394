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
	// node registered: server-1
	// dead letter: server server-2 has no hostname
}
