package archtest_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// foreignText returns what no file may hold: paths of the machine that the
// library was written on, and hosts of registries, which the user's own settings
// name. The parts are joined here so that this file does not hold them.
func foreignText() []string {
	join := func(parts ...string) string { return strings.Join(parts, "") }
	return []string{
		join("/wo", "rk/"), join("../", "shared"), join("proxy.", "golang.org"), join("registry.", "npmjs"),
		join("deb.", "debian.org"),
	}
}

// checkText finds such text in any file, nested modules included.
func checkText(t *tree) (faults []string) {
	for _, name := range slices.Sorted(maps.Keys(t.texts)) {
		for i, line := range strings.Split(t.texts[name], "\n") {
			for _, foreign := range foreignText() {
				if strings.Contains(line, foreign) {
					faults = append(faults, fmt.Sprintf("%s:%d: holds %q, which exists on one machine only", name, i+1, foreign))
				}
			}
		}
	}
	return faults
}

func TestNoTextNamesAMachineOrARegistry(t *testing.T) {
	t.Parallel()
	holds(t, checkText)
	accepts(t, checkText, files{"Makefile": "work/ shared golang.org npmjs debian", "x.bin": "\x00" + foreignText()[0], ".git/config": foreignText()[0]})
	for _, foreign := range foreignText() {
		refuses(t, checkText, files{"test/bench/go.mod": "module b\n", "test/bench/run.sh": "#!/bin/sh\ncat " + foreign + "x"},
			"test/bench/run.sh:2: holds")
		refuses(t, checkText, files{".hidden/a/testdata/x.json": foreign}, ".hidden/a/testdata/x.json:1: holds")
	}
}
