package main

import (
	"bytes"
	"encoding/csv"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write testdata/servers.csv anew")

// The input file is generated here, once: a test, so that nobody edits the file
// without the generator or the other way round.
func TestInputFileIsWhatTheGeneratorWrites(t *testing.T) {
	t.Parallel()
	generated := generateInput(2000)
	if *update {
		require.NoError(t, os.WriteFile("testdata/servers.csv", generated, 0o644))
		return
	}
	require.True(t, bytes.Equal(inputFile, generated), "run: go generate ./examples/quickstart")
}

// What the generator draws from. Sites are data halls of real towns; tenants and
// people are invented.
var (
	siteWeights = []string{"osl1", "osl1", "osl1", "osl2", "osl2", "bgo1", "bgo1", "trd1", "svg1", "tos1", "sto1", "got1", "cph1", "hel1", "rkv1"}
	tenants     = []string{"fjordbanken", "nordlys_helse", "havbruk_nord", "skogdata", "trikken", "polarforsk", "bryggen_kommune", "saga_spill"}
	people      = [][]string{
		{"kari.lunde", "ola.brekke"}, {"sigrid.aasen", "johan.utsi"}, {"magnus.eide"}, {"aino.virtanen", "lars.holm"},
		{"ingrid.moe"}, {"nils.somby", "freya.dahl"}, {"bjorn.haugen", "astrid.vik"}, {"gudrun.jonsdottir"},
	}
	serverRoles = []string{"web", "web", "web", "app", "app", "db", "cache", "queue", "lb", "build", "mon"}
	animals     = []string{"rype", "ulv", "jerv", "gaupe", "elg", "oter", "lunde", "havorn", "torsk", "sild", "rein", "ekorn", "mår", "røyskatt"}
	weights     = []string{"small", "small", "small", "medium", "medium", "medium", "large", "large", "xlarge", "memory_large", "storage_large"}
)

// faultsOfInput says which lines are broken, and how. The first is the one that
// the demo repairs: a size that maskin's catalogue lacks.
var faultsOfInput = map[int]func(*server){
	8:    func(s *server) { s.Size = "gpu_large" },
	31:   func(s *server) { s.Hostname = "" },
	57:   func(s *server) { s.Site = "rkv9" },
	96:   func(s *server) { s.Size = "meduim" },
	140:  func(s *server) { s.Hostname = strings.ReplaceAll(s.Hostname, "-", "_") },
	611:  func(s *server) { s.Hostname = "" },
	902:  func(s *server) { s.Site = "oslo" },
	1333: func(s *server) { s.Size = "XL" },
	1751: func(s *server) { s.Size = "gpu_large" },
	1904: func(s *server) { s.Site = "" },
}

func generateInput(n int) []byte {
	random := rand.New(rand.NewPCG(7, 7))
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	_ = w.Write(inputColumns)
	counters := map[string]int{}
	for i := range n {
		s := generateServer(random, i, counters)
		if spoil := faultsOfInput[i+1]; spoil != nil {
			spoil(&s)
			s.Resizes = nil // nobody resizes what never came up
		}
		_ = w.Write([]string{s.ID, s.Tenant, s.OrderedBy, s.Site, s.Hostname, s.Size, strings.Join(s.Resizes, " ")})
	}
	w.Flush()
	return out.Bytes()
}

func generateServer(random *rand.Rand, i int, counters map[string]int) server {
	tenant := random.IntN(len(tenants))
	s := server{
		ID: fmt.Sprintf("srv-%05d", i+1), Tenant: tenants[tenant],
		OrderedBy: pick(random, people[tenant]), Site: pick(random, siteWeights), Size: pick(random, weights),
	}
	// Host names are ASCII: "mår" is written "mar", "røyskatt" "royskatt".
	animal := strings.NewReplacer("å", "a", "ø", "o").Replace(pick(random, animals))
	base := s.Site + "-" + pick(random, serverRoles) + "-" + animal
	counters[base]++
	s.Hostname = fmt.Sprintf("%s-%02d", base, counters[base])
	size := s.Size
	for range []int{0, 1, 1, 1, 2, 2, 2, 2, 2, 2}[random.IntN(10)] {
		size = another(random, size)
		s.Resizes = append(s.Resizes, size)
	}
	return s
}

func pick(random *rand.Rand, from []string) string { return from[random.IntN(len(from))] }

func another(random *rand.Rand, than string) string {
	for {
		if size := pick(random, weights); size != than {
			return size
		}
	}
}

func TestInputIsRepeatedWithOtherNames(t *testing.T) {
	t.Parallel()
	servers, err := readServers(inputFile, 4100)
	require.NoError(t, err)
	require.Len(t, servers, 4100)
	ids, hosts := map[string]bool{}, map[string]bool{}
	for _, s := range servers {
		require.False(t, ids[s.ID], s.ID)
		require.False(t, s.Hostname != "" && hosts[s.Hostname], s.Hostname)
		ids[s.ID], hosts[s.Hostname] = true, true
	}
	require.Equal(t, servers[7].Size, servers[4007].Size)
}

func TestRequestsOfAServerKeepTheirOrder(t *testing.T) {
	t.Parallel()
	servers, err := readServers(inputFile, 2000)
	require.NoError(t, err)
	requests := requestsFor(servers, 1)
	require.Equal(t, requests, requestsFor(servers, 1), "the same seed gives the same order")
	require.NotEqual(t, requests, requestsFor(servers, 2))
	last := map[string]int{}
	for _, r := range requests {
		require.Equal(t, last[r.ID]+1, r.Revision, r.ID)
		last[r.ID] = r.Revision
	}
	for _, s := range servers {
		require.Equal(t, 1+len(s.Resizes), last[s.ID])
	}
	mixed := !slices.IsSortedFunc(requests, func(a, b request) int { return a.Revision - b.Revision })
	require.True(t, mixed, "resizes arrive between provisionings")
}

func TestDamagedInputIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "a,b\n1,2\n", strings.Join(inputColumns, ",") + "\n", strings.Join(inputColumns, ",") + "\n1,2\n"} {
		_, err := readServers([]byte(text), 5)
		require.ErrorContains(t, err, "read input", "%q", text)
	}
	header, err := csv.NewReader(bytes.NewReader(inputFile)).Read()
	require.NoError(t, err)
	require.Equal(t, inputColumns, header)
}
