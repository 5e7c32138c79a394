package contract_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
)

// published is where the repository has the schemas that other languages read.
const published = "../docs/schemas"

func TestThePublishedEnvelopeSchemaIsThatOfTheCode(t *testing.T) {
	t.Parallel()
	got, err := contract.EnvelopeSchemaDocument()
	require.NoError(t, err)
	requireGolden(t, filepath.Join(published, "envelope.json"), got)
	_, err = contract.ParseSchema([]byte(strings.Replace(strings.Replace(string(got),
		`"$schema": "http://json-schema.org/draft-07/schema#",`, "", 1), `"$id": "urn:dataverket:schema:envelope:1.0",`, "", 1)))
	require.NoError(t, err, "it is of the subset")
}

// goldens are the envelopes of package envelope's own tests.
func goldens(t *testing.T, pattern string) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("../envelope/testdata/" + pattern)
	require.NoError(t, err)
	require.NotEmpty(t, files)
	all := map[string][]byte{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		require.NoError(t, err)
		all[filepath.Base(f)] = data
	}
	return all
}

func TestTheEnvelopeSchemaAndTheDecoderAgreeOnTheGoldenFiles(t *testing.T) {
	t.Parallel()
	s := contract.EnvelopeSchema()
	for name, data := range goldens(t, "valid/v1/*.json") {
		require.True(t, accepts(s, object(t, data)), name)
	}
	// What no schema of JSON can see: it begins with the parsed value, and looks at
	// fields one by one.
	unseen := []string{
		"case_variant_tenant.json", "case_variant_unknown.json", "depth_bomb.json", "duplicate_tenant.json", "folded_source.json", "lone_surrogate_in_data.json",
		"nil_id.json", "nul_in_data.json", "schema_of_another_type.json", "subject_with_newline.json", "trailing_comma.json", "two_values.json",
	}
	for name, data := range goldens(t, "bad/*.json") {
		var v any
		if json.Unmarshal(data, &v) != nil {
			continue
		}
		require.Equal(t, slices.Contains(unseen, name), accepts(s, v), name)
	}
}

// Field by field: what one refuses, the other does.
func TestTheEnvelopeSchemaAndTheDecoderAgreeOnEveryField(t *testing.T) {
	t.Parallel()
	s := contract.EnvelopeSchema()
	full := object(t, goldens(t, "valid/v1/external.json")["external.json"])
	require.ElementsMatch(t, slices.Collect(maps.Keys(full)), slices.Collect(maps.Keys(s.Properties)), "the golden file has every field")
	agree := func(what string, v map[string]any) {
		data, err := json.Marshal(v)
		require.NoError(t, err)
		_, err = envelope.Decode(data)
		require.Equal(t, err == nil, accepts(s, v), "%s: the decoder says %v", what, err)
	}
	for name := range full {
		changed := maps.Clone(full)
		delete(changed, name)
		agree("without "+name, changed)
		require.Equal(t, slices.Contains(s.Required, name), !accepts(s, changed))
		for _, value := range []any{
			nil, "", 7.0, true, []any{}, map[string]any{}, "x", "-x", " ", "x y", "user:x", "robot:x", "user:", "1.0", "1.", "1.12345678", "1.123456789", "2.0",
			"maskin", "robot", "task.created", "maskin.a.b.c.d.e", "maskin.a.b.c.d.e.f", "Maskin.a", "internal", "external", "public",
			"application/json", "application/x+json", "application/json; charset=utf-8", "text/plain", "APPLICATION/JSON",
			"2026-01-31T23:59:59Z", "2026-01-31T23:59:59.123456789Z", "2026-01-31T23:59:59+01:00", "2026-13-31T23:59:59Z", "2026-01-31",
			"01936f2e-1111-7222-8333-444455556666", "01936F2E-1111-7222-8333-444455556666", "{01936f2e-1111-7222-8333-444455556666}",
			"urn:dataverket:schema:maskin.server.provisioned:v1", "urn:dataverket:schema:maskin.server.provisioned:v01", "urn:dataverket:schema:maskin.server.provisioned:v0",
			strings.Repeat("x", 128), strings.Repeat("x", 129), strings.Repeat("x", 256), strings.Repeat("x", 257), "user:" + strings.Repeat("x", 155), "user:" + strings.Repeat("x", 156),
		} {
			if name == "type" {
				continue // the schema's version belongs to it: changed together below
			}
			changed[name] = value
			agree(name, changed)
		}
	}
	for _, name := range []string{"maskin.server", "task.created", "maskin", "maskin.A", "maskin.a.b.c.d.e", "maskin.a.b.c.d.e.f", "robot.a", "maskin..a", "maskin." + strings.Repeat("a", 300)} {
		changed := maps.Clone(full)
		changed["type"], changed["dataschema"] = name, "urn:dataverket:schema:"+strings.ToLower(name)+":v1"
		agree(name, changed)
	}
}

// column is what the database says of one.
type column struct {
	name, typ string
	nullable  bool
}

// jsonOf is how docs/schemas writes the types of PostgreSQL.
var jsonOf = map[string]contract.Schema{
	"xid8":                     {Type: contract.Types{"string"}},
	"smallint":                 {Type: contract.Types{"integer"}},
	"bigint":                   {Type: contract.Types{"integer"}},
	"integer":                  {Type: contract.Types{"integer"}},
	"text":                     {Type: contract.Types{"string"}},
	"uuid":                     {Type: contract.Types{"string"}, Format: "uuid"},
	"bytea":                    {Type: contract.Types{"string"}, ContentEncoding: "base64"},
	"timestamp with time zone": {Type: contract.Types{"string"}, Format: "date-time"},
}

func TestThePublishedRecordsAreThoseOfTheMigrations(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	for _, table := range []string{"outbox_events", "inbox_messages"} {
		rows, err := pool.Query(t.Context(), `select column_name, data_type, is_nullable = 'YES' from information_schema.columns
			where table_schema = 'messaging' and table_name = $1`, table)
		require.NoError(t, err)
		columns := map[string]column{}
		for rows.Next() {
			var c column
			require.NoError(t, rows.Scan(&c.name, &c.typ, &c.nullable))
			columns[c.name] = c
		}
		require.NoError(t, rows.Err())

		data, err := os.ReadFile(filepath.Join(published, table+".json"))
		require.NoError(t, err)
		document := object(t, data)
		require.Equal(t, "http://json-schema.org/draft-07/schema#", document["$schema"])
		require.Equal(t, "urn:dataverket:schema:"+table+":1", document["$id"])
		delete(document, "$schema")
		delete(document, "$id")
		bare, err := json.Marshal(document)
		require.NoError(t, err)
		s, err := contract.ParseSchema(bare)
		require.NoError(t, err)

		require.ElementsMatch(t, slices.Collect(maps.Keys(columns)), slices.Collect(maps.Keys(s.Properties)), table)
		for name, c := range columns {
			p, want := *s.Properties[name], jsonOf[c.typ]
			require.NotEmpty(t, p.Description, name)
			require.NotEmpty(t, want.Type, "%s.%s: %s", table, name, c.typ)
			p.Description = ""
			if c.nullable {
				want.Type = append(slices.Clone(want.Type), "null")
			}
			require.Equal(t, want, p, "%s.%s", table, name)
			require.Contains(t, s.Required, name)
		}
	}
}
