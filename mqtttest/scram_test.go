package mqtttest

import "testing"

// The example of RFC 7677 section 3, letter by letter.
func TestScramIsByTheLetter(t *testing.T) {
	s := Scram{User: "user", Password: "pencil", Nonce: "rOprNGfwEbeRWgbNEkqO"}
	if got, want := string(s.First()), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"; got != want {
		t.Errorf("first %q, want %q", got, want)
	}
	const nonce = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	got, err := s.Final([]byte(nonce + ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"))
	if want := "c=biws," + nonce + ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="; string(got) != want || err != nil {
		t.Errorf("final %q, %v, want %q", got, err, want)
	}
	if err := s.Check([]byte("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")); err != nil {
		t.Error(err)
	}
	if s.Check([]byte("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")) == nil {
		t.Error("a server that does not know the verifier is believed")
	}
	for _, bad := range []string{"", nonce, "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "r=x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", nonce + ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1"} {
		if _, err := s.Final([]byte(bad)); err == nil {
			t.Errorf("%q is answered", bad)
		}
	}
}
