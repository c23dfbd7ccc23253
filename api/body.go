package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/internal/nearest"
)

// readAll returns the body of a request, of at most most bytes; what calls it in the answer
// to one of more, which is 413. One that is not here in the server's time is 408, one that
// ends before its length, or comes in bad chunks, 400.
func readAll(w http.ResponseWriter, r *http.Request, what string, most int64) (body []byte, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case large:
		refuse(w, http.StatusRequestEntityTooLarge, "%s has at most %d bytes", what, most)
	case errors.Is(err, os.ErrDeadlineExceeded):
		refuse(w, http.StatusRequestTimeout, "the rest of the body has not come in time: nothing was done, send it again")
	case err != nil:
		refuse(w, http.StatusBadRequest, "the body could not be read: %v", err)
	}
	return body, err == nil
}

// maxRequest is the size of the largest request that is a few members of JSON.
const maxRequest = 16 << 10

// readJSON reads the body of a request, one value that has no members but those of v.
func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	body, ok := readAll(w, r, "a request", maxRequest)
	if !ok {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	switch {
	case errors.Is(err, io.EOF):
		err = errors.New("it is empty, want JSON")
	case err != nil:
		err = nearMember(err, v)
	case err == nil && len(bytes.TrimSpace(body[d.InputOffset():])) > 0:
		err = errors.New("there is more behind the JSON: send one value")
	}
	if err != nil {
		refuseAs(w, http.StatusBadRequest, bw.Usage, "body: %v", err)
	}
	return err == nil
}

// nearMember adds to the error of a member that v does not have the one that was probably meant.
func nearMember(err error, v any) error {
	_, quoted, ok := strings.Cut(err.Error(), "unknown field ")
	name, bad := strconv.Unquote(quoted)
	t := reflect.TypeOf(v).Elem()
	if !ok || bad != nil || t.Kind() != reflect.Struct {
		return err
	}
	var names []string
	for _, field := range reflect.VisibleFields(t) {
		if tag, _, _ := strings.Cut(field.Tag.Get("json"), ","); tag != "" && tag != "-" {
			names = append(names, tag)
		}
	}
	if near := nearest.Name(name, names); near != "" {
		return fmt.Errorf("there is no member %q: did you mean %q?", name, near)
	}
	return fmt.Errorf("there is no member %.40q: there are %s", name, strings.Join(names, ", "))
}
