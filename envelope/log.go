package envelope

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
)

// LogValue lets an Envelope be logged: id, type, source, correlation and
// causation, the size of the data, and a digest of the tenant. Data, actor,
// resource and the other ids are left out, because logs are read more widely than
// messages.
func (e *Envelope) LogValue() slog.Value {
	if e == nil {
		return slog.StringValue("none") // a message that did not decode
	}
	attrs := []slog.Attr{
		slog.String("id", e.ID),
		slog.String("type", e.Type),
		slog.String("source", e.Source.String()),
		slog.String("correlation_id", e.CorrelationID),
	}
	if e.CausationID != "" {
		attrs = append(attrs, slog.String("causation_id", e.CausationID))
	}
	if e.TenantID != "" {
		attrs = append(attrs, slog.String("tenant_hash", tenantHash(e.TenantID)))
	}
	return slog.GroupValue(append(attrs, slog.Int("data_bytes", len(e.Data)))...)
}

// tenantHash is short enough to read and long enough to tell tenants apart.
func tenantHash(tenant string) string {
	sum := sha256.Sum256([]byte(tenant))
	return hex.EncodeToString(sum[:8])
}
