package mqtt

import "testing"

// BenchmarkParse is what it takes to read a packet, checks included.
func BenchmarkParse(b *testing.B) {
	payload := make([]byte, 64)
	props := props5(0x02, 0, 0, 0, 60, 0x26, 0, 1, 'n', 0, 1, 'v')
	publish4 := packet(0x32, "some/topic/of/4/levels", u16(7), payload)[2:]
	publish5 := packet(0x32, "some/topic/of/4/levels", u16(7), props, payload)[2:]
	read := make([]byte, len(publish5))
	ack := packet(0x40, u16(7))[2:]
	subscribe := packet(0x82, u16(7), props5(), "some/+/of", 1, "other/#", 2)[2:]
	for _, x := range []struct {
		name  string
		parse func() error
	}{
		{"PUBLISH 3.1.1", func() error { var p publication; return parsePublish(0x32, publish4, false, &p) }},
		{"PUBLISH 5", func() error {
			var p publication
			return parsePublish(0x32, append(read[:0], publish5...), true, &p) // it may move what it reads
		}},
		{"PUBACK", func() error { _, _, err := parseAck(4, ack, true); return err }},
		{"SUBSCRIBE", func() error { _, err := parseSubscribe(subscribe, 5); return err }},
	} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := x.parse(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
