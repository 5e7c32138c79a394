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
	// maskin.server.provisioned server-1 by user:kari for tenant-1
	// objekt.bucket.deleted bucket-1 by user:kari for tenant-1
	// ERROR: the audit is append-only (SQLSTATE P0001)
}
