package kind

import "bytes"

// BaseWeight is what any document weighs (see Kind.Weight): that there is one more to
// read, and its octets.
func BaseWeight(doc Document) int { return 2 + len(doc.Body)/512 }

// TextWeight is what JSON or XML weighs that is kept as it was written: as much as it
// has structure, beside its octets.
func TextWeight[T string | []byte](text T) int {
	n := 1
	for _, c := range []byte(text) {
		if c == ',' || c == ':' || c == '[' || c == '{' || c == '<' || c == '&' {
			n++
		}
	}
	return (n + 3) / 4
}

// XMLWeight is what a document in XML weighs beside BaseWeight, whatever of it counts:
// XML takes longer to read, the more so the more elements and references it has.
func XMLWeight(body []byte) int {
	return len(body)/256 + bytes.Count(body, []byte("<"))/4 + bytes.Count(body, []byte("&"))/8
}
