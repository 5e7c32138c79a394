package inbox

import "time"

// FullBatch begins only when it has so many messages, so that a test decides what
// is in a batch, however slow the machine is.
func FullBatch(size int) Batch { return Batch{Size: size, Wait: 10 * time.Hour, exact: true} }
