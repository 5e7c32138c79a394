package topology

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
)

// jsonName is what names of the contract file look like. encoding/json matches
// names without regard to case, so that "Service" would be taken for "service".
var jsonName = regexp.MustCompile(`^[a-z_]+$`)

// maxDepth is deeper than a contract file ever is.
const maxDepth = 8

// checkNames walks through the one JSON value of data and refuses names that
// are given twice in an object, or not in lower case, which encoding/json
// accepts silently.
func checkNames(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := checkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the object; remove it")
	}
	return nil
}

func checkValue(dec *json.Decoder, depth int) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	opening, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	if depth == maxDepth {
		return errors.New("it is nested too deep")
	}
	seen := map[string]bool{}
	for dec.More() {
		if opening == '{' {
			if err := checkName(dec, seen); err != nil {
				return err
			}
		}
		if err := checkValue(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

func checkName(dec *json.Decoder, seen map[string]bool) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	name, _ := token.(string)
	switch {
	case !jsonName.MatchString(name):
		return fmt.Errorf("name %.40q is not spelled as in a contract file", name)
	case seen[name]:
		return fmt.Errorf("name %q is given twice; remove one", name)
	}
	seen[name] = true
	return nil
}
