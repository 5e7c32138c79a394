package pgserver

import "syscall"

const (
	sharedMemory = "/dev/shm"
	tmpfsMagic   = 0x01021994
	// enoughMemory is what a file system in memory must have free to be used. A
	// test binary's server takes some 100 MB; containers have 64 MB there.
	enoughMemory = 4 << 30
)

// memoryDir is a directory in memory that is large enough, or "". Copying a
// database takes 16 ms there; on a disk that other tests keep busy it took 50 to
// 200 ms.
func memoryDir() string {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(sharedMemory, &stat); err != nil {
		return ""
	}
	if int64(stat.Type) != tmpfsMagic || stat.Bavail*uint64(stat.Bsize) < enoughMemory {
		return ""
	}
	return sharedMemory
}
