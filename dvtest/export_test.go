package dvtest

// ClosePool is tested with a pool that is never given back.
var ClosePool = closePool
