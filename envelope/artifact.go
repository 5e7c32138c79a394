package envelope

import (
	"errors"
	"net/url"
	"strings"
)

// Artifact is a reference to something too large or too binary for a message:
// put the bytes into an object store and the reference into the data
// (requirement E2). It is meant as a field of a payload type.
//
//	type ImageBuiltV1 struct {
//		ImageID string            `json:"image_id"`
//		Image   envelope.Artifact `json:"image"`
//	}
//
// The digest lets a consumer notice that the object was replaced since.
type Artifact struct {
	// URI locates the object: absolute and without user information, since a
	// message is stored and copied. Either URI or ObjectID is required.
	URI string `json:"uri,omitempty"`
	// ObjectID names the object in the platform's object store: at most 256
	// bytes without control characters.
	ObjectID string `json:"object_id,omitempty"`
	// MediaType is the type of the object, such as
	// "application/vnd.oci.image.layer.v1.tar". Optional.
	MediaType string `json:"media_type,omitempty"`
	// SHA256 is the digest of the object in 64 lower-case hex digits. Optional.
	SHA256 string `json:"sha256,omitempty"`
	// Size is the length of the object in bytes; 0 means unknown.
	Size int64 `json:"size,omitempty"`
}

// maxURI bounds an artifact's address; longer ones are refused by common HTTP
// servers too.
const maxURI = 2048

// Validate reports all faults at once, each as a [*FieldError]. Call it in the
// handler, or before drafting; the envelope does not look into the data.
func (a Artifact) Validate() error {
	var faults []error
	add := func(field, reason string) {
		if reason != "" {
			faults = append(faults, &FieldError{"artifact " + field, reason})
		}
	}
	if a.URI == "" && a.ObjectID == "" {
		add("uri", "is required unless object_id is set")
	}
	add("uri", checkURI(a.URI))
	add("object_id", optional(a.ObjectID, checkResource))
	add("media_type", optional(a.MediaType, checkMediaType))
	add("sha256", optional(a.SHA256, checkDigest))
	if a.Size < 0 {
		add("size", "is negative")
	}
	return errors.Join(faults...)
}

// optional applies a check to a text that may be absent.
func optional(text string, check func(string) string) string {
	if text == "" {
		return ""
	}
	return check(text)
}

// checkURI returns why text is not the address of an artifact, or "".
func checkURI(text string) string {
	if text == "" {
		return ""
	}
	if len(text) > maxURI {
		return "is longer than 2048 bytes"
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || strings.ContainsRune(text, ' '):
		return "is not a URI" // the cause would quote the text
	case !u.IsAbs():
		return "must be absolute: begin with a scheme such as https or s3"
	case u.User != nil:
		return "must not hold user information: a message is stored and copied"
	}
	return ""
}

// checkDigest returns why text is not a SHA-256 digest, or "".
func checkDigest(text string) string {
	if len(text) != 64 || !isHex(text) {
		return "must be 64 lower-case hexadecimal digits"
	}
	return ""
}
