package dvtest_test

import (
	"slices"
	"testing"
	"time"

	"codeberg.org/dataverket/messaging/dvtest"
	"github.com/stretchr/testify/require"
)

func TestSmoke(t *testing.T) {
	for range 5 {
		t0 := time.Now()
		p := dvtest.Postgres(t)
		t.Log(time.Since(t0))
		require.NoError(t, p.Ping(t.Context()))
		t.Log(time.Since(t0))
	}
	dvtest.NATS(t)
}
func BenchmarkPostgres(b *testing.B) {
	dvtest.Postgres(b)
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		require.NoError(b, dvtest.Postgres(b).Ping(b.Context()))
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
}
