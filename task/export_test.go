package task

// OneLine is the cleaning of what people read.
func OneLine(text string, n int) string { return oneLine(text, n) }
