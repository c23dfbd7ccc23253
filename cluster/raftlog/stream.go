package raftlog

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/disk"
)

// Meta says what a snapshot is.
type Meta struct {
	Index, Term uint64 // of the last entry in it
	Config      []byte // the group's configuration at Index, opaque
	ConfigIndex uint64 // where that was agreed
}

// A meta file, version 1: integers are big endian.
//
//	 0  version   1 byte, 1
//	 1  index     u64
//	 9  term      u64
//	17  config at u64
//	25  config    the rest but the last 4
//	-4  checksum  u32, CRC-32C of all that precedes
const (
	metaVersion  = 1
	metaOverhead = 25 + 4
)

func (m Meta) encode() []byte {
	buf := []byte{metaVersion}
	buf = binary.BigEndian.AppendUint64(buf, m.Index)
	buf = binary.BigEndian.AppendUint64(buf, m.Term)
	buf = binary.BigEndian.AppendUint64(buf, m.ConfigIndex)
	buf = append(buf, m.Config...)
	return binary.BigEndian.AppendUint32(buf, crc32.Checksum(buf, castagnoli))
}

func parseMeta(buf []byte) (Meta, error) {
	if len(buf) < metaOverhead {
		return Meta{}, fmt.Errorf("%w: meta of %d bytes", ErrDamaged, len(buf))
	}
	end := len(buf) - 4
	if binary.BigEndian.Uint32(buf[end:]) != crc32.Checksum(buf[:end], castagnoli) {
		return Meta{}, fmt.Errorf("%w: meta: %w", ErrDamaged, errChecksum)
	}
	if buf[0] != metaVersion {
		return Meta{}, fmt.Errorf("%w: meta version %d, this program knows %d", ErrNewer, buf[0], metaVersion)
	}
	return Meta{
		Index:       binary.BigEndian.Uint64(buf[1:]),
		Term:        binary.BigEndian.Uint64(buf[9:]),
		ConfigIndex: binary.BigEndian.Uint64(buf[17:]),
		Config:      append([]byte(nil), buf[25:end]...),
	}, nil
}

// A stream is a snapshot on its way: a tar archive of the file "meta", the files
// "state/NAME" in order of name, and the file "sums", which holds the CRC-32C of
// each of them, 4 bytes big endian, in that order. The sums come last because
// they are computed while the files are read; their size is known, and so is that
// of the whole, which Raft wants to know beforehand.
//
// Files are read as they are asked for; nothing is held in memory but a header. What
// has been read can be read again from any place on: see Rewind.
type stream struct {
	fs      *disk.FS
	release func() error
	size    int64
	pos     int64  // how many bytes have been read
	parts   []part // all of them
	next    int    // index of the part to begin next
	part    io.Reader
	file    io.Closer // behind part; nil if that is in memory
	sum     hash.Hash32
	sums    []byte
	err     error // sticky
}

// A part is one file of a stream: on disk, or in memory if path is empty.
type part struct {
	name, path string
	data       []byte
	size       int64
	at         int64 // where in the stream its header begins
}

const tarBlock = 512

func padded(n int64) int64 { return (n + tarBlock - 1) / tarBlock * tarBlock }

// newStream returns the stream of the copy in dir. release is called when it is
// closed.
func newStream(fs *disk.FS, dir string, m Meta, release func() error) (*stream, error) {
	s := &stream{fs: fs, release: release, sum: crc32.New(castagnoli)}
	state := fs.PathJoin(dir, "state")
	names, err := fs.List(state)
	if err != nil {
		return nil, err
	}
	meta := m.encode()
	s.parts = append(s.parts, part{name: "meta", data: meta, size: int64(len(meta))})
	slices.Sort(names)
	for _, name := range names {
		path := fs.PathJoin(state, name)
		info, err := fs.Stat(path)
		if err != nil {
			return nil, err
		}
		if info.IsDir() {
			return nil, fmt.Errorf("%s is a directory, in a copy of the state", path)
		}
		s.parts = append(s.parts, part{name: "state/" + name, path: path, size: info.Size()})
	}
	s.parts = append(s.parts, part{name: "sums", size: 4 * int64(len(s.parts))})
	for i := range s.parts {
		p := &s.parts[i]
		p.at = s.size
		s.size += tarBlock + padded(p.size)
	}
	s.size += 2 * tarBlock // the end of a tar archive
	return s, nil
}

// Read reads the next bytes.
func (s *stream) Read(p []byte) (int, error) {
	for s.err == nil {
		if s.part == nil {
			if s.err = s.begin(); s.err != nil {
				break
			}
		}
		n, err := s.part.Read(p)
		if n > 0 {
			s.pos += int64(n)
			return n, nil
		}
		if err == io.EOF {
			err = s.endPart()
		}
		s.err = err
	}
	return 0, s.err
}

// Rewind goes back to a place that has been read, from which the next Read goes on,
// also after an error. The file that holds it is read again from its beginning: its
// sum wants that.
func (s *stream) Rewind(to int64) error {
	if s.release == nil {
		return s.err
	}
	if to < 0 || to > s.pos {
		return fmt.Errorf("raftlog: a snapshot read up to %d cannot go on at %d", s.pos, to)
	}
	if to == s.pos && (s.err == nil || s.err == io.EOF) {
		return nil
	}
	err := s.closeFile()
	i := 0
	for i+1 < len(s.parts) && s.parts[i+1].at <= to {
		i++
	}
	s.part, s.err, s.next, s.pos = nil, err, i, s.parts[i].at
	s.sums = s.sums[:crc32.Size*i]
	if err == nil {
		_, err = io.CopyN(io.Discard, s, to-s.pos)
	}
	return err
}

// begin begins the next part: header, contents, padding.
func (s *stream) begin() error {
	if s.next == len(s.parts) {
		return io.EOF
	}
	p := s.parts[s.next]
	s.next++
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	err := w.WriteHeader(&tar.Header{Name: p.name, Size: p.size, Mode: 0o640, Format: tar.FormatUSTAR})
	if err != nil {
		return err
	}
	var body io.Reader = bytes.NewReader(p.data)
	switch {
	case p.path != "":
		f, err := s.fs.Open(p.path)
		if err != nil {
			return err
		}
		s.file, body = f, &exactly{r: f, left: p.size, name: p.path}
	case p.name == "sums":
		body = bytes.NewReader(s.sums)
	}
	s.sum.Reset()
	pad := make([]byte, padded(p.size)-p.size)
	if s.next == len(s.parts) {
		pad = append(pad, make([]byte, 2*tarBlock)...)
	}
	s.part = io.MultiReader(&head, io.TeeReader(body, s.sum), bytes.NewReader(pad))
	return nil
}

func (s *stream) endPart() error {
	s.part = nil
	s.sums = s.sum.Sum(s.sums)
	return s.closeFile()
}

func (s *stream) closeFile() error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}

// Close ends the stream, read to its end or not.
func (s *stream) Close() error {
	if s.release == nil {
		return nil
	}
	release := s.release
	s.release, s.err = nil, errors.New("raftlog: the snapshot has been closed")
	return errors.Join(s.closeFile(), release())
}

// exactly reads left bytes of r, neither more nor fewer.
type exactly struct {
	r    io.Reader
	left int64
	name string
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		return n, fmt.Errorf("%s is %d bytes too short: %w", e.name, e.left, io.ErrUnexpectedEOF)
	}
	return n, err
}

// unpack writes the snapshot that r streams into dir, which it makes: its files
// in dir/state, durable when unpack returns, and its meta as a result. A stream
// that is not whole, or whose sums differ, is ErrDamaged.
func unpack(fs *disk.FS, r io.Reader, dir string) (Meta, error) {
	state := fs.PathJoin(dir, "state")
	if err := fs.MakeDir(state); err != nil {
		return Meta{}, err
	}
	u := unpacker{fs: fs, state: state, in: tar.NewReader(r)}
	if err := u.run(); err != nil {
		return Meta{}, err
	}
	return u.meta, fs.SyncDir(state)
}

// Unpack is unpack, for a backup.
func Unpack(fs *disk.FS, r io.Reader, dir string) (Meta, error) {
	m, err := unpack(fs, r, dir)
	if err != nil {
		return Meta{}, fmt.Errorf("raftlog: unpack a snapshot: %w", err)
	}
	return m, nil
}

// Check reads a snapshot to its end, and returns what it is. One that is not whole,
// or whose sums differ, is ErrDamaged.
func Check(r io.Reader) (Meta, error) {
	u := unpacker{in: tar.NewReader(r)}
	if err := u.run(); err != nil {
		return Meta{}, fmt.Errorf("raftlog: check a snapshot: %w", err)
	}
	return u.meta, nil
}

type unpacker struct {
	fs    *disk.FS // nil to write nothing
	state string
	in    *tar.Reader
	meta  Meta
	sums  []byte
	done  bool // sums has been read, and nothing may follow
}

func (u *unpacker) run() error {
	for first := true; ; first = false {
		h, err := u.in.Next()
		if err == io.EOF && u.done {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: the stream ends early: %w", ErrDamaged, err)
		}
		err = u.entry(h, first)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: the stream ends within %s: %w", ErrDamaged, h.Name, err)
		}
		if err != nil {
			return err
		}
	}
}

// maxMeta bounds what is read into memory: a meta, or the sums of many files.
const maxMeta = 1 << 20

func (u *unpacker) entry(h *tar.Header, first bool) error {
	sum := crc32.New(castagnoli)
	body := io.TeeReader(u.in, sum)
	name, isState := strings.CutPrefix(h.Name, "state/")
	var err error
	switch {
	case h.Typeflag != tar.TypeReg || u.done || first != (h.Name == "meta"):
		return fmt.Errorf("%w: %q is out of place", ErrDamaged, h.Name)
	case h.Name == "meta" || h.Name == "sums":
		if h.Size > maxMeta {
			return fmt.Errorf("%w: %s of %d bytes", ErrDamaged, h.Name, h.Size)
		}
		var data []byte
		if data, err = io.ReadAll(body); err != nil {
			break
		}
		if h.Name == "sums" {
			u.done = true
			return u.compare(data)
		}
		u.meta, err = parseMeta(data)
	case isState && name != "" && !strings.ContainsAny(name, `/\`) && name != "." && name != "..":
		err = u.file(name, body)
	default:
		return fmt.Errorf("%w: %q is no file of a snapshot", ErrDamaged, h.Name)
	}
	u.sums = sum.Sum(u.sums)
	return err
}

func (u *unpacker) file(name string, body io.Reader) (err error) {
	if u.fs == nil {
		_, err := io.Copy(io.Discard, body)
		return err
	}
	f, err := u.fs.CreateFile(u.fs.PathJoin(u.state, name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(f, body); err != nil {
		return err
	}
	return f.Sync()
}

func (u *unpacker) compare(sums []byte) error {
	if !bytes.Equal(sums, u.sums) {
		return fmt.Errorf("%w: snapshot: %w", ErrDamaged, errChecksum)
	}
	return nil
}
