package main

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPercentiles(t *testing.T) {
	t.Parallel()
	require.Zero(t, median(nil))
	require.InDelta(t, 2, median([]float64{3, 1, 2}), 0)
	require.InDelta(t, 2.5, median([]float64{4, 1, 3, 2}), 0)
	require.InDelta(t, 99, percentile(oneTo(100), 0.98), 0)
	require.InDelta(t, 100, percentile(oneTo(100), 0.99), 0)
	require.InDelta(t, 7, percentile([]float64{7}, 0.99), 0)
}

func oneTo(n int) []float64 {
	figures := make([]float64, n)
	for i := range figures {
		figures[i] = float64(i + 1)
	}
	return figures
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	t.Parallel()
	// The second round was slow for both sides: only the ratio of each round
	// tells that nothing changed.
	row := ratioRow("a/b", "", "msg/s", 0.8, []float64{90, 9, 80}, best([]float64{100, 5, 100}, []float64{50, 10, 100}))
	require.InDelta(t, 0.9, *row.Ratio, 0.001)
	require.True(t, *row.Holds)
	require.False(t, *ratioRow("a/b", "", "", 0.95, []float64{90}, []float64{100}).Holds)
	require.Nil(t, ratioRow("a/b", "", "", 0, []float64{90}, []float64{100}).Holds)
}

func TestLimitsHoldUpToTheBar(t *testing.T) {
	t.Parallel()
	require.True(t, *limitRow("a", "", "ms", 3, []float64{3, 3, 9}).Holds)
	require.False(t, *limitRow("a", "", "ms", 3, []float64{3.01}).Holds)
}

func TestRowsAreChosenByGroupOrByName(t *testing.T) {
	t.Parallel()
	all, err := choose(nil)
	require.NoError(t, err)
	require.Len(t, all, len(groups()))
	some, err := choose([]string{"latency/p50", "idle"})
	require.NoError(t, err)
	require.Len(t, some, 2)
	_, err = choose([]string{"speed"})
	require.ErrorContains(t, err, "the groups are relay, writers")

	rows := []Row{{Name: "latency/p50"}, {Name: "latency/p99"}, {Name: "idle/cpu"}}
	require.Len(t, only(rows, nil), 3)
	require.Len(t, only([]Row{rows[0], rows[1], rows[2]}, []string{"latency/p50", "idle"}), 2)
}

func TestNumbersAreReadable(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]float64{"0": 0, "0.83": 0.834, "2.5": 2.5, "150": 150, "1,234": 1234.4, "1,234,567": 1234567} {
		require.Equal(t, want, number(f))
	}
}

func TestPlotIsWellFormed(t *testing.T) {
	t.Parallel()
	text := plot([]Row{
		ratioRow("relay/raw", "relay < raw & more", "msg/s", 0.8, []float64{90}, []float64{100}),
		limitRow("latency/p50", "latency", "ms", 3, []float64{0}),
		limitRow("latency/p99", "latency", "ms", 3, []float64{9}),
	})
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		_, err := d.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
	}
	require.Contains(t, text, "PublishAsync alone")
	require.NotContains(t, text, "NaN")
}

func TestRowsThatWereNotMeasuredStay(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "results.json")
	relay, writers := Row{Name: "relay/raw", Ours: 1}, Row{Name: "writers/insert", Ours: 2}
	all, err := beside(file, []Row{relay})
	require.NoError(t, err)
	require.Equal(t, []Row{relay}, all)
	text, err := json.Marshal([]Row{writers, {Name: "relay/raw"}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, text, 0o600))
	decode := Row{Name: "decode/cloudevents", Ours: 3}
	all, err = beside(file, []Row{decode, relay})
	require.NoError(t, err)
	require.Equal(t, []Row{relay, writers, decode}, all)
}

func TestMeansOfRounds(t *testing.T) {
	t.Parallel()
	require.Equal(t, []float64{2, 5}, means([]float64{1, 2, 3, 4, 5, 6}, 3))
	require.Empty(t, means(nil, 3))
}
