package telemetry_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"codeberg.org/dataverket/messaging/internal/telemetry"
)

// prometheusNames returns the names that OpenTelemetry's exporter gives a metric.
func prometheusNames(t *testing.T, m telemetry.Metric) []string {
	t.Helper()
	name := strings.ReplaceAll(m.Name, ".", "_")
	switch {
	case m.Unit == "s":
		name += "_seconds"
	default:
		require.Regexp(t, `^\{[a-z]+\}$`, m.Unit, "%s: another unit would add a suffix", m.Name)
	}
	switch m.Kind {
	case telemetry.Counter:
		return []string{name + "_total"}
	case telemetry.Histogram:
		return []string{name + "_bucket", name + "_sum", name + "_count"}
	}
	return []string{name}
}

// known returns all names that an expression may hold.
func known(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, m := range telemetry.Metrics() {
		require.NotEmpty(t, m.Description, m.Name)
		for _, name := range prometheusNames(t, m) {
			require.False(t, names[name], name)
			names[name] = true
		}
	}
	return names
}

// labels are those that metrics have.
var labels = map[string]bool{
	"messaging_nats_stream": true, "messaging_consumer_group_name": true, "messaging_system": true, "messaging_operation_name": true,
	"messaging_nats_source_site": true,
}

var ourNames = regexp.MustCompile(`\b(?:dv|messaging)_[a-z_]+`)

// requireMeasured checks that an expression names something, and only what is
// measured.
func requireMeasured(t *testing.T, names map[string]bool, expr string) {
	t.Helper()
	metrics := 0
	for _, name := range ourNames.FindAllString(expr, -1) {
		if !labels[name] {
			require.True(t, names[name], "%s in %q is not measured", name, expr)
			metrics++
		}
	}
	require.Positive(t, metrics, expr)
	require.Equal(t, strings.Count(expr, "("), strings.Count(expr, ")"), expr)
}

type rules struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			For         string            `yaml:"for"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

// An alert on a metric that nobody measures never rings, and one that does not say
// what to do is of little use at night. docs/METRICS.md lists every alert.
func TestAlertsNameWhatIsMeasuredAndWhatToRun(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../ops/alerts.yaml")
	require.NoError(t, err)
	var all rules
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&all))
	manual, err := os.ReadFile("../../docs/DVMSG.md")
	require.NoError(t, err)
	metrics, err := os.ReadFile("../../docs/METRICS.md")
	require.NoError(t, err)
	names, seen := known(t), map[string]bool{}
	for _, group := range all.Groups {
		require.NotEmpty(t, group.Name)
		for _, rule := range group.Rules {
			require.Regexp(t, `^(Outbox|Consumer|Sites)[A-Za-z]+$`, rule.Alert)
			require.False(t, seen[rule.Alert], rule.Alert)
			seen[rule.Alert] = true
			requireMeasured(t, names, rule.Expr)
			if rule.For != "" {
				_, err := time.ParseDuration(rule.For)
				require.NoError(t, err, rule.Alert)
			}
			require.Contains(t, []string{"page", "ticket"}, rule.Labels["severity"], rule.Alert)
			require.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
			command := regexp.MustCompile(`^dvmsg [a-z]+( [a-z]+)*`).FindString(rule.Annotations["command"])
			require.NotEmpty(t, command, rule.Alert)
			require.Contains(t, string(manual), "### "+command+"\n", rule.Alert)
			require.Contains(t, string(metrics), "`"+rule.Alert+"`", "docs/METRICS.md does not list the alert")
		}
	}
	require.NotEmpty(t, seen)
}

func TestDashboardShowsWhatIsMeasured(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../ops/dashboard.json")
	require.NoError(t, err)
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &board))
	names := known(t)
	require.NotEmpty(t, board.Panels)
	for _, panel := range board.Panels {
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			requireMeasured(t, names, target.Expr)
		}
	}
}

// docs/METRICS.md has a row for every metric with its unit, and no others.
func TestMetricsPageListsWhatIsMeasured(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/METRICS.md")
	require.NoError(t, err)
	listed := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `((?:dv|messaging)\\.[a-z._]+)` \\| (\\S+) \\|").FindAllStringSubmatch(string(text), -1) {
		listed[row[1]] = row[2]
	}
	measured := map[string]string{}
	for _, m := range telemetry.Metrics() {
		measured[m.Name] = m.Unit
	}
	require.Equal(t, measured, listed)
}

// The thresholds of the platform's handbook.
func TestAlertsHaveTheHandbooksThresholds(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../ops/alerts.yaml")
	require.NoError(t, err)
	for _, condition := range []string{
		"(dv_consumer_pending) > 1000", "(dv_consumer_ack_pending) > 100", "(rate(dv_consumer_redeliveries_total[5m])) * 60 > 50",
		"(dv_outbox_oldest_age_seconds) > 60", "(dv_outbox_leading) != 1",
	} {
		require.Contains(t, string(text), condition)
	}
}
