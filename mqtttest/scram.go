package mqtttest

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Scram is the client's side of one proof by SCRAM-SHA-256 (RFC 5802, RFC 7677), by
// the letter and without a library, so that it judges the broker's. Names and passwords
// are ASCII, and names have neither comma nor equals sign.
type Scram struct {
	User, Password string
	Nonce          string // of the client; First draws one if it is empty

	bare, signature string
}

// First returns the client's first message.
func (s *Scram) First() []byte {
	if s.Nonce == "" {
		s.Nonce = rand.Text()
	}
	s.bare = "n=" + s.User + ",r=" + s.Nonce
	return []byte("n,," + s.bare)
}

// Final returns the proof for what the server answered to First.
func (s *Scram) Final(first []byte) ([]byte, error) {
	fields := strings.Split(string(first), ",")
	if len(fields) != 3 || !strings.HasPrefix(fields[0], "r="+s.Nonce) || fields[0] == "r="+s.Nonce {
		return nil, fmt.Errorf("server-first-message %q", first)
	}
	salt, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(fields[1], "s="))
	n, err2 := strconv.Atoi(strings.TrimPrefix(fields[2], "i="))
	if err := errors.Join(err, err2); err != nil || n < 4096 {
		return nil, fmt.Errorf("server-first-message %q: %w", first, err)
	}
	salted, err := pbkdf2.Key(sha256.New, s.Password, salt, n, sha256.Size)
	if err != nil {
		return nil, err
	}
	client := mac(salted, "Client Key")
	stored := sha256.Sum256(client)
	withoutProof := "c=biws," + fields[0]
	message := s.bare + "," + string(first) + "," + withoutProof
	proof := make([]byte, sha256.Size)
	subtle.XORBytes(proof, client, mac(stored[:], message))
	s.signature = base64.StdEncoding.EncodeToString(mac(mac(salted, "Server Key"), message))
	return []byte(withoutProof + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// Check says whether the server's last message proves that it knows the user's verifier.
func (s *Scram) Check(final []byte) error {
	if string(final) != "v="+s.signature {
		return fmt.Errorf("server-final-message %q, want v=%s", final, s.signature)
	}
	return nil
}

func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}

// Authenticate proves who the client is by SCRAM-SHA-256: on a connection that has sent
// nothing yet by m, else, if again, by AUTH. It returns what the exchange ended with: a
// CONNACK, an AUTH or a DISCONNECT.
func (c *Conn) Authenticate(m Connect, s *Scram, again bool) (*Packet, error) {
	method := Text(PropAuthMethod, "SCRAM-SHA-256")
	data := func(b []byte) Properties { return Properties{method, Binary(PropAuthData, b)} }
	m.Properties = append(m.Properties, data(s.First())...)
	var begin Message = m
	if again {
		begin = Reason{Type: AUTH, Code: 0x19, Properties: data(s.First())}
	}
	if err := c.Write(begin); err != nil {
		return nil, err
	}
	p, err := c.Read(Patience)
	if err != nil || p.Type != AUTH || p.Code != 0x18 {
		return p, err
	}
	proof, err := s.Final([]byte(p.Properties.Text(PropAuthData)))
	if err != nil {
		return p, err
	}
	if err := c.Write(Reason{Type: AUTH, Code: 0x18, Properties: data(proof)}); err != nil {
		return nil, err
	}
	if p, err = c.Read(Patience); err != nil || p.Code != 0 || p.Type == DISCONNECT {
		return p, err
	}
	if got := p.Properties.Text(PropAuthMethod); got != "SCRAM-SHA-256" {
		return p, fmt.Errorf("%v: authentication method %q", p, got)
	}
	return p, s.Check([]byte(p.Properties.Text(PropAuthData)))
}

// DialAuth dials, sends a CONNECT of MQTT 5 with an authentication method, and returns
// what the broker answered: AUTH or CONNACK, whatever its code is.
func DialAuth(addr string, m Connect) (*Conn, *Packet, error) {
	c, err := DialConn(addr, 5, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := c.Write(m); err != nil {
		c.Close()
		return nil, nil, err
	}
	p, err := c.Read(Patience)
	if err == nil && p.Type != AUTH && p.Type != CONNACK {
		err = fmt.Errorf("got %v, want AUTH or CONNACK", p)
	}
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, p, nil
}
