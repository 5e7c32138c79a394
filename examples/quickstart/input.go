package main

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

//go:generate go test -run TestInputFile -update .

// inputFile holds 2,000 servers of eight tenants. A few are faulty. It is
// constant.
//
//go:embed testdata/servers.csv
var inputFile []byte

// inputColumns is constant: the header of the input file.
var inputColumns = []string{"server", "tenant", "ordered_by", "site", "hostname", "size", "resized_to"}

// server is a line of the input file.
type server struct {
	ID, Tenant, OrderedBy, Site, Hostname, Size string
	// Resizes are the sizes it gets later, in this order.
	Resizes []string
}

// readServers parses the input file and makes it n servers long: it is cut, or
// repeated with other ids and host names.
func readServers(file []byte, n int) ([]server, error) {
	lines, err := csv.NewReader(bytes.NewReader(file)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read input: %w", err)
	}
	if len(lines) < 2 || !slices.Equal(lines[0], inputColumns) {
		return nil, fmt.Errorf("read input: the first line must be %q, and servers follow", strings.Join(inputColumns, ","))
	}
	servers := make([]server, 0, n)
	for i := range n {
		round, line := i/(len(lines)-1), lines[1+i%(len(lines)-1)]
		servers = append(servers, newServer(line, round))
	}
	return servers, nil
}

// newServer reads a line. In a later round the id and the host name, where there
// is one, are others.
func newServer(line []string, round int) server {
	s := server{
		ID: line[0], Tenant: line[1], OrderedBy: line[2], Site: line[3], Hostname: line[4], Size: line[5],
		Resizes: strings.Fields(line[6]),
	}
	if round == 0 {
		return s
	}
	s.ID = fmt.Sprintf("%s-r%d", s.ID, round+1)
	if s.Hostname != "" {
		s.Hostname = fmt.Sprintf("%s-r%d", s.Hostname, round+1)
	}
	return s
}

// request is one wish for one server: the first provisions it, the others resize
// it.
type request struct {
	server
	// Revision counts the requests for the server, from 1.
	Revision int
	// Size is the size wanted with this request.
	Size string
	due  int
}

// requestsFor brings the requests into the order in which they arrive: servers
// in the order of the file, their resizes a while later, those of one server
// never before each other. The same seed gives the same order.
func requestsFor(servers []server, seed uint64) []request {
	random := rand.New(rand.NewPCG(seed, 0))
	var all []request
	for i, s := range servers {
		due := i
		all = append(all, request{s, 1, s.Size, due})
		for n, size := range s.Resizes {
			due += 1 + random.IntN(len(servers)/4+1)
			all = append(all, request{s, n + 2, size, due})
		}
	}
	slices.SortStableFunc(all, func(a, b request) int { return a.due - b.due })
	return all
}
