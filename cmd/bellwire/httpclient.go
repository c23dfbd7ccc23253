package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/bw"
)

// httpFlags say which server's HTTP side a verb talks to, and as whom.
type httpFlags struct {
	server, username, password, caFile string
	timeout                            time.Duration

	who string // what to do about not being whom it takes; empty: be an operator
}

func (f *httpFlags) register(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.server, "server", "http://127.0.0.1:8080", "`address` of any node's --http: a URL, or host:port")
	flags.StringVarP(&f.username, "username", "u", "", "user `name` of an operator; none is needed on the node's machine as root or as its user")
	flags.StringVarP(&f.password, "pw", "P", "", "`password` or token; BELLWIRE_PW keeps it out of the list of processes")
	flags.StringVar(&f.caFile, "cafile", "", "TLS: `file` of PEM certificates to trust, for https")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long to wait for an answer")
}

// An httpClient asks one server.
type httpClient struct {
	flags  *httpFlags
	base   *url.URL
	client http.Client
}

// clientFor is client for a verb that prints in the form that -o says.
func (f *httpFlags) clientFor(output string) (*httpClient, error) {
	if err := checkOutput(output); err != nil {
		return nil, err
	}
	return f.client()
}

// client checks the flags.
func (f *httpFlags) client() (*httpClient, error) {
	text := f.server
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	base, err := url.Parse(text)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fail(bw.Usage, "--server %q is no address of a node's HTTP side", f.server).
			do("give what the node has for --http, such as --server http://127.0.0.1:8080")
	}
	if f.timeout <= 0 {
		return nil, usage("--timeout %s: want a time to come", f.timeout)
	}
	// A verb asks once, or now and then: a connection that it kept would be one of
	// those that the server bounds.
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: f.timeout}).DialContext, TLSHandshakeTimeout: f.timeout, DisableKeepAlives: true}
	if f.caFile != "" {
		pem, err := os.ReadFile(f.caFile)
		if err != nil {
			return nil, fileFault(bw.File, f.caFile, err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fail(bw.File, "%s holds no certificate in PEM", f.caFile).do("give the authority's certificate")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &httpClient{flags: f, base: base, client: http.Client{
		Transport: transport,
		// Credentials are for the server that was named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// call sends body as JSON, nothing if it is nil, and reads the answer into answer.
func (c *httpClient) call(ctx context.Context, method, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, c.flags.timeout)
	defer cancel()
	r, err := c.open(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if err := json.NewDecoder(io.LimitReader(r.Body, maxAnswer)).Decode(answer); err != nil {
		return fail(bw.NoAnswer, "%s does not answer as a bellwire node does: %w", c.base, err).do("is --server the address of a node's --http?")
	}
	return nil
}

// maxAnswer bounds an answer that is read into memory, in bytes.
const maxAnswer = 16 << 20

// open sends a request and returns the answer, if it is not a refusal. The caller
// closes its body.
func (c *httpClient) open(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var send io.Reader
	kind := "application/json"
	policy, isPolicy := body.(policyBody)
	if isPolicy {
		send, kind = bytes.NewReader(policy.data), "application/yaml"
	} else if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		send = bytes.NewReader(text)
	}
	path, query, _ := strings.Cut(path, "?")
	at := c.base.JoinPath(path)
	at.RawQuery = query
	req, err := http.NewRequestWithContext(ctx, method, at.String(), send)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	if policy.file != "" {
		req.Header.Set(api.FileHeader, url.PathEscape(policy.file))
	}
	if policy.base > 0 {
		req.Header.Set("If-Match", fmt.Sprintf("%q", strconv.FormatUint(policy.base, 10)))
	}
	if c.flags.username != "" || c.flags.password != "" {
		req.SetBasicAuth(c.flags.username, c.flags.password)
	}
	r, err := c.client.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if r.StatusCode/100 != 2 {
		defer r.Body.Close()
		return nil, c.refusal(r)
	}
	return r, nil
}

// A policyBody is a body that is a policy file, to be taken if the version base is in
// force; 0 if any is.
type policyBody struct {
	file string // its name; empty if there is none
	data []byte
	base uint64
}

// unreachable says why there was no answer.
func (c *httpClient) unreachable(ctx context.Context, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	_, badCert := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fail(bw.TimedOut, "%s did not answer within %s", c.base, c.flags.timeout).do("wait longer with --timeout, or ask another node with --server")
	case badCert:
		return fail(bw.TLS, "no TLS with %s: %w", c.base, err).named(err, "--server")
	case strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return fail(bw.TLS, "no TLS with %s: it answers without", c.base).do("give --server http://%s", c.base.Host)
	case errors.Is(err, io.EOF), strings.Contains(err.Error(), "malformed HTTP"):
		return fail(bw.NoAnswer, "%s took the connection and does not answer as HTTP does", c.base).
			do("is --server the address of a node's --http, and not of its --mqtt? If that has TLS, begin it with https://")
	}
	return fail(bw.Unreachable, "cannot connect to %s: %w", c.base, rootCause(err)).
		do("is the node up, and served with --http? give that address with --server")
}

// refusal makes a fault of an answer that says no.
func (c *httpClient) refusal(r *http.Response) error {
	var p struct {
		Detail string `json:"detail"`
		Code   string `json:"code"`
		Todo   string `json:"todo"`
		Report string `json:"report"`
	}
	text, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20)) // what there is of it
	if c.base.Scheme == "http" && strings.Contains(string(text), "HTTP request to an HTTPS server") {
		return fail(bw.TLS, "%s has TLS", c.base).do("give --server https://%s, and --cafile with the authority's certificate if it is your own", c.base.Host)
	}
	if json.Unmarshal(text, &p) != nil || p.Detail == "" {
		return fail(bw.NoAnswer, "%s answers %s: it has nothing of this, or is no bellwire node", c.base, r.Status).
			do("is --server the address of a node's --http, and the node as new as this program?")
	}
	if e, ok := bw.Find(p.Code); ok && p.Code != "" {
		f := fail(e.Code, "%s", p.Detail)
		f.todo, f.detail = p.Todo, strings.TrimSuffix(p.Report, "\n")
		if f.todo == "" && e.Code == bw.BadCredentials && c.flags.password == "" {
			f.todo = noPassword
		}
		return f
	}
	switch r.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fail(bw.Denied, "%s", p.Detail).do("%s", cmp.Or(c.flags.who, "give -u and -P of an operator, or run this on the node's machine as the node's user"))
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return fail(bw.Busy, "%s", p.Detail)
	}
	return fail(bw.Refused, "%s: %s", r.Status, p.Detail)
}

// asksFirst are the flags of verbs that cannot be undone.
type asksFirst struct {
	dryRun, yes bool
	confirm     string
}

func (a *asksFirst) register(cmd *cobra.Command, what string) {
	cmd.Flags().BoolVar(&a.dryRun, "dry-run", false, "show what would be done, and do nothing")
	cmd.Flags().BoolVar(&a.yes, "yes", false, "do not ask")
	cmd.Flags().StringVar(&a.confirm, "confirm", "", "`"+what+"`, instead of being asked to type it")
}

// ofCluster is agreed for what is done to a cluster: its name is the word, or its id,
// which does as well and is all there is of one without a name.
func (a *asksFirst) ofCluster(cmd *cobra.Command, plan, name, id string) (bool, error) {
	if name == "" || a.confirm == shortID(id) {
		return a.agreed(cmd, plan, "the cluster's id", shortID(id))
	}
	return a.agreed(cmd, plan, "the cluster's name", name)
}

// agreed shows the plan and returns whether to go on: by --yes, by --confirm, or
// because whoever sits at the terminal types the word.
func (a *asksFirst) agreed(cmd *cobra.Command, plan, what, word string) (bool, error) {
	fmt.Fprintln(cmd.ErrOrStderr(), plan)
	switch {
	case a.dryRun:
		return false, nil
	case a.yes:
		return true, nil
	case a.confirm != "":
		if a.confirm != word {
			return false, fail(bw.NotConfirmed, "--confirm %s is not %s, %s", a.confirm, what, word).do("check that it is what you mean, and give --confirm %s", word)
		}
		return true, nil
	}
	in := cmd.InOrStdin()
	if f, ok := in.(*os.File); !ok || !isTerminal(f) {
		return false, fail(bw.NotConfirmed, "this cannot be undone, and nobody is there to be asked").do("give --confirm %s, which is %s, or --dry-run to see what it would do", word, what)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "type %s, %s, to go on: ", what, word)
	var typed string
	_, _ = fmt.Fscanln(in, &typed) // nothing typed is no
	if typed != word {
		return false, fail(bw.NotConfirmed, "%q is not %s, %s", typed, what, word).do("nothing was changed")
	}
	return true, nil
}
