package envelope_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"github.com/stretchr/testify/require"
)

func TestActorsAreKindAndID(t *testing.T) {
	t.Parallel()
	for _, kind := range []envelope.ActorKind{
		envelope.ActorUser, envelope.ActorService, envelope.ActorOperator, envelope.ActorSystem,
	} {
		a, err := envelope.NewActor(kind, "a:b@c")
		require.NoError(t, err)
		require.Equal(t, kind, a.Kind())
		require.Equal(t, "a:b@c", a.ID())
	}
	require.Empty(t, envelope.Actor("nobody").Kind())
	require.Empty(t, envelope.Actor("nobody").ID())

	_, err := envelope.NewActor("user", strings.Repeat("x", 155))
	require.NoError(t, err)
	_, err = envelope.NewActor("user", strings.Repeat("x", 156))
	require.EqualError(t, err, "envelope: actor: is longer than 160 bytes")
	a, err := envelope.NewActor("robot", "")
	require.Empty(t, a)
	require.Equal(t, []string{"actor kind: must be user, service, operator or system", "actor id: is required"}, faults(err))
}

func TestArtifactsAreReferences(t *testing.T) {
	t.Parallel()
	digest := strings.Repeat("0a", 32)
	for _, a := range []envelope.Artifact{
		{URI: "https://objekt.dv.no/images/1?version=2"}, {URI: "s3://bucket/key"}, {ObjectID: "images/1 ø"},
		{URI: "urn:x:y", ObjectID: "o", MediaType: "application/vnd.oci.image.layer.v1.tar", SHA256: digest, Size: 1 << 40},
	} {
		require.NoError(t, a.Validate())
	}
	const secret = "hunter2"
	for want, a := range map[string]envelope.Artifact{
		"uri: is required unless object_id is set":                                              {},
		"uri: is longer than 2048 bytes":                                                        {URI: "https://" + strings.Repeat("x", 2048)},
		"uri: is not a URI":                                                                     {URI: "https://" + secret + "%zz"},
		"uri: is not a URI ":                                                                    {URI: "https://a/b c"},
		"uri: must be absolute: begin with a scheme such as https or s3":                        {URI: "/images/1"},
		"uri: must not hold user information: a message is stored and copied":                   {URI: "https://u:" + secret + "@h/p"},
		"object_id: must not hold control characters":                                           {ObjectID: "a\n"},
		"media_type: must be type/subtype in lower case, without parameters, at most 127 bytes": {ObjectID: "o", MediaType: "tar"},
		"sha256: must be 64 lower-case hexadecimal digits":                                      {ObjectID: "o", SHA256: strings.ToUpper(digest)},
		"sha256: must be 64 lower-case hexadecimal digits ":                                     {ObjectID: "o", SHA256: digest[1:]},
		"size: is negative":                                                                     {ObjectID: "o", Size: -1},
	} {
		err := a.Validate()
		require.Equal(t, []string{"artifact " + strings.TrimSpace(want)}, faults(err))
		require.NotContains(t, err.Error(), secret)
	}
	require.Len(t, faults(envelope.Artifact{MediaType: "x", SHA256: "x", Size: -1}.Validate()), 4)
}

func TestArtifactsOnTheWire(t *testing.T) {
	t.Parallel()
	full, err := json.Marshal(envelope.Artifact{URI: "u:v", ObjectID: "o", MediaType: "a/b", SHA256: "c", Size: 1})
	require.NoError(t, err)
	require.Equal(t, `{"uri":"u:v","object_id":"o","media_type":"a/b","sha256":"c","size":1}`, string(full))
	empty, err := json.Marshal(envelope.Artifact{})
	require.NoError(t, err)
	require.Equal(t, `{}`, string(empty))
}

func TestPermanentIsSeenThroughWrapping(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("handler: %w", envelope.Permanent(fmt.Errorf("read: %w", io.ErrUnexpectedEOF)))
	require.True(t, envelope.IsPermanent(err))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.EqualError(t, err, "handler: read: unexpected EOF")
	require.True(t, envelope.IsPermanent(errors.Join(io.EOF, envelope.Permanent(io.EOF))))
	require.True(t, envelope.IsPermanent(envelope.RetryAfter(time.Second, envelope.Permanent(io.EOF))))
	require.False(t, envelope.IsPermanent(io.EOF))
	require.False(t, envelope.IsPermanent(nil))
	require.NoError(t, envelope.Permanent(nil))
}

func TestRetryAfterCarriesItsDelay(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("handler: %w", envelope.RetryAfter(1500*time.Millisecond, io.EOF))
	verdict, ok := errors.AsType[*envelope.RetryAfterError](err)
	require.True(t, ok)
	require.Equal(t, 1500*time.Millisecond, verdict.After)
	require.ErrorIs(t, err, io.EOF)
	require.EqualError(t, err, "handler: retry after 1.5s: EOF")
	require.EqualError(t, envelope.RetryAfter(-time.Second, nil), "retry after 0s")
}

func TestCommandsMustNameActorAndCorrelation(t *testing.T) {
	t.Parallel()
	e, err := envelope.Decode(golden(t, "valid", "v1", "command.json"))
	require.NoError(t, err)
	require.NoError(t, e.CheckSubject(provision.Subject()))
	e.Actor, e.CorrelationID = "", ""
	require.Equal(t, []string{"actor: is required in a command", "correlation_id: is required in a command"},
		faults(e.CheckSubject(provision.Subject())))
}

func TestEventsOfForeignProducersMayLackAnActor(t *testing.T) {
	t.Parallel()
	e, err := envelope.Decode(golden(t, "valid", "v1", "foreign_without_actor.json"))
	require.NoError(t, err)
	require.NoError(t, e.CheckSubject(provisioned.Subject()))
}

func TestSubjectAndEnvelopeMustAgree(t *testing.T) {
	t.Parallel()
	evt := func(s subject.Service) subject.Subject { return subject.Must(subject.Evt(s, "server", "provisioned")) }
	cmd := func(s subject.Service) subject.Subject { return subject.Must(subject.Cmd(s, "provision")) }
	task := subject.Must(subject.TaskEvt("created"))
	for _, c := range []struct {
		on       subject.Subject
		typeName string
		source   subject.Service
		fields   []string
	}{
		{evt(subject.Maskin), "maskin.server.provisioned", subject.Maskin, nil},
		{evt(subject.Maskin), "maskin.server.provisioned", subject.Nett, []string{"source"}},
		{evt(subject.Nett), "maskin.server.provisioned", subject.Nett, []string{"type"}},
		{evt(subject.Nett), "maskin.server.provisioned", subject.Maskin, []string{"type", "source"}},
		{evt(subject.Nett), "task.created", subject.Nett, []string{"type"}},
		{cmd(subject.Maskin), "maskin.server.provision.requested", subject.Sentral, nil},
		{cmd(subject.Nett), "maskin.server.provision.requested", subject.Nett, []string{"type"}},
		{task, "task.created", subject.Sentral, nil},
		{task, "maskin.server.provisioned", subject.Maskin, []string{"type"}},
		{subject.Must(subject.RPC(subject.Maskin, "read")), "maskin.server.provisioned", subject.Maskin, []string{"subject"}},
		{subject.Must(subject.DLQ(subject.Nett, "dv.maskin.evt.server.provisioned")), "maskin.server.provisioned", subject.Maskin, []string{"subject"}},
		{subject.Subject{}, "maskin.server.provisioned", subject.Maskin, []string{"subject"}},
	} {
		e := event(t, func(e *envelope.Envelope) { e.Type, e.Source = c.typeName, c.source })
		err := e.CheckSubject(c.on)
		var fields []string
		for _, line := range faults(err) {
			field, _, _ := strings.Cut(line, ":")
			fields = append(fields, field)
		}
		require.Equal(t, c.fields, fields, "%s on %s from %s", c.typeName, c.on, c.source)
		if err != nil {
			_, ok := errors.AsType[*envelope.MismatchError](err)
			require.True(t, ok)
		}
	}
}
