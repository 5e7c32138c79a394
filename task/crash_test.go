package task_test

const workerEnv = "TASK_TEST_WORKER"

func workingChild() error { return nil }
