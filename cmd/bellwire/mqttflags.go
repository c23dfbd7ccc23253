package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/spf13/pflag"

	"github.com/bellwire/bellwire/bw"
)

// clientFlags are the flags that pub and sub share: mosquitto's letters, names
// and meaning. mosquitto gives some of them a letter only; those have a name
// of ours beside it.
type clientFlags struct {
	host, unix, bind, url        string
	port                         int
	id, idPrefix                 string
	username, password           string
	scram                        bool
	keepAlive                    int
	version                      string
	persistent                   bool
	expiry                       string
	qos                          int
	willTopic, willPayload       string
	willQoS                      int
	willRetain                   bool
	caFile, caPath, cert, key    string
	insecure, osCerts, noDelay   bool
	alpn, tlsVersion             string
	timeout                      time.Duration
	debug, quiet                 bool
	props                        *properties
	passwordGiven, usernameGiven bool
	urlTopic                     string // of --url, filled by resolve
}

func (c *clientFlags) register(f *pflag.FlagSet, props *properties) {
	c.props = props
	f.StringVarP(&c.host, "host", "h", "localhost", "`host` to connect to")
	f.IntVarP(&c.port, "port", "p", 0, "`port` to connect to (default 1883, with TLS 8883)")
	f.StringVar(&c.unix, "unix", "", "connect to this Unix domain `socket` instead")
	f.StringVarP(&c.bind, "bind", "A", "", "local `address` to connect from")
	f.StringVarP(&c.url, "url", "L", "", "user, password, host, port and topic at once: mqtt(s)://[user[:password]@]host[:port]/topic")
	f.StringVarP(&c.id, "id", "i", "", "client `id` (default: the server chooses)")
	f.StringVarP(&c.idPrefix, "id-prefix", "I", "", "client id made of this `prefix` and the process id")
	f.StringVarP(&c.username, "username", "u", "", "user `name`: on bellwire the principal, such as bob@example.com")
	f.StringVarP(&c.password, "pw", "P", "", "`password` or token")
	c.scramFlag(f)
	f.IntVarP(&c.keepAlive, "keepalive", "k", 60, "`seconds` of silence after which the server is asked whether it is there; 0: never")
	f.StringVarP(&c.version, "protocol-version", "V", "mqttv5", "`version` of MQTT: only mqttv5 or 5")
	f.BoolVarP(&c.persistent, "disable-clean-session", "c", false, "keep the session when the connection ends; needs --id")
	f.StringVarP(&c.expiry, "session-expiry-interval", "x", "", "`seconds` to keep the session after the connection ends; -1 or ∞: for ever (default 0, with -c -1)")
	f.IntVarP(&c.qos, "qos", "q", 0, "quality of service: 0, 1 or 2")
	f.StringVar(&c.willTopic, "will-topic", "", "`topic` of the message that the server sends when this client is lost")
	f.StringVar(&c.willPayload, "will-payload", "", "what that `message` says")
	f.IntVar(&c.willQoS, "will-qos", 0, "its quality of service")
	f.BoolVar(&c.willRetain, "will-retain", false, "retain it")
	f.StringVar(&c.caFile, "cafile", "", "TLS: `file` of PEM certificates to trust")
	f.StringVar(&c.caPath, "capath", "", "TLS: `directory` of .crt files to trust")
	f.StringVar(&c.cert, "cert", "", "TLS: `file` with this client's certificate")
	f.StringVar(&c.key, "key", "", "TLS: `file` with its private key")
	f.BoolVar(&c.insecure, "insecure", false, "TLS: do not check the server's name; for tests only")
	f.BoolVar(&c.osCerts, "tls-use-os-certs", false, "TLS: trust what the system trusts")
	f.StringVar(&c.alpn, "tls-alpn", "", "TLS: application `protocol` to ask for")
	f.StringVar(&c.tlsVersion, "tls-version", "", "TLS: least `version`, tlsv1.2 or tlsv1.3")
	f.BoolVar(&c.noDelay, "nodelay", false, "send at once; always so here")
	f.VarP(props, "property", "D", "add an MQTT property: -D publish content-type text/plain, -D connect user-property name value")
	f.DurationVar(&c.timeout, "timeout", 10*time.Second, "how long to wait for the connection and for answers to it")
	f.BoolVarP(&c.debug, "debug", "d", false, "show what is sent and received, on standard error")
	f.BoolVar(&c.quiet, "quiet", false, "no messages about errors at run time; the exit code tells")
	for name, why := range map[string]string{
		"ciphers": "Go's choice of ciphers is used", "psk": "TLS with pre-shared keys does not exist in Go",
		"psk-identity": "TLS with pre-shared keys does not exist in Go", "proxy": "SOCKS is not supported",
		"tls-engine": "OpenSSL is not used", "tls-engine-kpass-sha1": "OpenSSL is not used", "keyform": "OpenSSL is not used",
	} {
		f.Var(refusedFlag(why), name, "mosquitto's, not supported: "+why)
		f.Lookup(name).Hidden = true
	}
	f.VarP(refusedFlag("SRV look-ups are not supported"), "srv", "S", "mosquitto's, not supported: SRV look-ups")
	f.Lookup("srv").Hidden = true
	f.Lookup("srv").NoOptDefVal = "true"
}

// A refusedFlag is one of mosquitto's that we know and do not have. It says so
// instead of "unknown flag".
type refusedFlag string

func (r refusedFlag) String() string   { return "" }
func (r refusedFlag) Type() string     { return "value" }
func (r refusedFlag) Set(string) error { return errors.New(string(r)) }

// usage returns a fault for flags that are well formed and make no sense.
func usage(format string, args ...any) error { return fail(bw.Usage, format, args...) }

// resolve checks the flags as a whole, fills in defaults, and returns the
// address to dial and the CONNECT to send.
func (c *clientFlags) resolve(flags *pflag.FlagSet) (target, *paho.Connect, error) {
	var to target
	c.usernameGiven, c.passwordGiven = flags.Changed("username"), flags.Changed("pw")
	secure := false
	if c.url != "" {
		var err error
		if secure, err = c.takeURL(flags); err != nil {
			return to, nil, err
		}
	}
	switch strings.TrimPrefix(strings.ToLower(c.version), "mqttv") {
	case "5":
	case "31", "311":
		return to, nil, fail(bw.OldProtocol, "-V %s: only MQTT 5 is spoken here", c.version)
	default:
		return to, nil, usage("-V %q is no version of MQTT", c.version)
	}
	if c.port < 0 || c.port > math.MaxUint16 {
		return to, nil, usage("--port %d is not between 1 and 65535", c.port)
	}
	if c.keepAlive < 0 || c.keepAlive > math.MaxUint16 {
		return to, nil, usage("--keepalive %d is not between 0 and 65535", c.keepAlive)
	}
	for name, q := range map[string]int{"qos": c.qos, "will-qos": c.willQoS} {
		if q < 0 || q > 2 {
			return to, nil, usage("--%s %d is not 0, 1 or 2", name, q)
		}
	}
	tlsConfig, err := c.tls(secure)
	if err != nil {
		return to, nil, err
	}
	to = c.target(tlsConfig)
	connect, err := c.connect()
	if err == nil && c.scram {
		to.scram, err = c.proves(connect)
	}
	return to, connect, err
}

// proves has a CONNECT send neither name nor password: they are proved by SCRAM-SHA-256.
func (c *clientFlags) proves(packet *paho.Connect) (*secret, error) {
	switch {
	case c.username == "" || !c.passwordGiven:
		return nil, fail(bw.Usage, "--scram proves a password: it needs a user name and the password").do("add -u NAME, and -P or BELLWIRE_PW")
	case packet.Properties.AuthMethod != "":
		return nil, usage("--scram is an authentication method: it goes without -D connect authentication-method")
	}
	packet.Username, packet.UsernameFlag, packet.Password, packet.PasswordFlag = "", false, nil, false
	return &secret{c.username, c.password}, nil
}

// scramFlag adds --scram.
func (c *clientFlags) scramFlag(f *pflag.FlagSet) {
	f.BoolVar(&c.scram, "scram", false, "prove the password by SCRAM-SHA-256, which does not send it")
}

// takeURL reads mqtt(s)://[user[:password]@]host[:port]/topic. The topic may
// hold what a URL's path may not, '#' above all.
func (c *clientFlags) takeURL(flags *pflag.FlagSet) (secure bool, err error) {
	if flags.Changed("host") || flags.Changed("port") || c.unix != "" {
		return false, usage("--url says it all: it goes without --host, --port and --unix")
	}
	scheme, rest, ok := strings.Cut(c.url, "://")
	if !ok || (scheme != "mqtt" && scheme != "mqtts") {
		return false, usage("--url %q: want mqtt://… or mqtts://…", c.url)
	}
	authority, topic, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, password, has := strings.Cut(authority[:at], ":")
		c.username, c.usernameGiven = user, true
		if has {
			c.password, c.passwordGiven = password, true
		}
		authority = authority[at+1:]
	}
	c.host = authority
	if host, port, err := net.SplitHostPort(authority); err == nil {
		c.host = host
		if c.port, err = strconv.Atoi(port); err != nil {
			return false, usage("--url %q: %q is no port", c.url, port)
		}
	}
	if c.host == "" {
		return false, usage("--url %q has no host", c.url)
	}
	c.urlTopic = topic
	return scheme == "mqtts", nil
}

func (c *clientFlags) tls(secure bool) (*tls.Config, error) {
	if c.port == 8883 && c.caFile == "" && c.caPath == "" {
		secure = true // as mosquitto does
	}
	if !secure && c.caFile == "" && c.caPath == "" && !c.osCerts && c.cert == "" {
		return nil, nil
	}
	conf := &tls.Config{ServerName: c.host, InsecureSkipVerify: c.insecure, MinVersion: tls.VersionTLS12}
	if c.alpn != "" {
		conf.NextProtos = []string{c.alpn}
	}
	switch c.tlsVersion {
	case "", "tlsv1.2":
	case "tlsv1.3":
		conf.MinVersion = tls.VersionTLS13
	default:
		return nil, usage("--tls-version %q: want tlsv1.2 or tlsv1.3", c.tlsVersion)
	}
	if (c.cert == "") != (c.key == "") {
		return nil, usage("--cert and --key go together")
	}
	if c.cert != "" {
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, fail(bw.Usage, "--cert %s --key %s: %w", c.cert, c.key, err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, c.trust(conf)
}

// trust fills conf.RootCAs; nil means those of the system.
func (c *clientFlags) trust(conf *tls.Config) error {
	var files []string
	if c.caFile != "" {
		files = append(files, c.caFile)
	}
	if c.caPath != "" {
		more, err := filepath.Glob(filepath.Join(c.caPath, "*.crt"))
		if err != nil {
			return fail(bw.Usage, "--capath %s: %w", c.caPath, err)
		}
		files = append(files, more...)
	}
	if len(files) == 0 {
		return nil
	}
	pool := x509.NewCertPool()
	if c.osCerts {
		if system, err := x509.SystemCertPool(); err == nil {
			pool = system
		}
	}
	for _, name := range files {
		pem, err := os.ReadFile(name)
		if err != nil {
			return fail(bw.Usage, "certificates to trust: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return usage("%s holds no PEM certificate", name)
		}
	}
	conf.RootCAs = pool
	return nil
}

func (c *clientFlags) target(conf *tls.Config) target {
	if c.unix != "" {
		return target{network: "unix", address: c.unix, tls: conf, timeout: c.timeout}
	}
	port := c.port
	if port == 0 {
		port = 1883
		if conf != nil {
			port = 8883
		}
	}
	return target{
		network: "tcp", address: net.JoinHostPort(strings.Trim(c.host, "[]"), strconv.Itoa(port)),
		bind: c.bind, tls: conf, timeout: c.timeout,
	}
}

func (c *clientFlags) connect() (*paho.Connect, error) {
	if c.id != "" && c.idPrefix != "" {
		return nil, usage("--id and --id-prefix exclude each other")
	}
	id := c.id
	if c.idPrefix != "" {
		id = c.idPrefix + strconv.Itoa(os.Getpid())
	}
	expiry, err := c.sessionExpiry()
	if err != nil {
		return nil, err
	}
	if id == "" && (c.persistent || expiry == math.MaxUint32) {
		return nil, fail(bw.Usage, "a session that is to be found again needs a client id").do("add --id NAME")
	}
	p := &paho.Connect{
		ClientID: id, KeepAlive: uint16(c.keepAlive), CleanStart: !c.persistent,
		Username: c.username, UsernameFlag: c.usernameGiven, Password: []byte(c.password), PasswordFlag: c.passwordGiven,
	}
	set := c.props.of("connect")
	p.Properties = &paho.ConnectProperties{
		AuthData: set.AuthData, AuthMethod: set.AuthMethod, SessionExpiryInterval: set.SessionExpiryInterval,
		ReceiveMaximum: set.ReceiveMaximum, TopicAliasMaximum: set.TopicAliasMaximum, MaximumPacketSize: set.MaximumPacketSize,
		User:                paho.UserPropertiesFromPacketUser(set.User),
		RequestProblemInfo:  set.RequestProblemInfo == nil || *set.RequestProblemInfo == 1,
		RequestResponseInfo: set.RequestResponseInfo != nil && *set.RequestResponseInfo == 1,
	}
	if c.expiry != "" || c.persistent {
		p.Properties.SessionExpiryInterval = &expiry
	}
	if p.Properties.ReceiveMaximum == nil {
		// As many as are taken from the socket before they are printed.
		p.Properties.ReceiveMaximum = paho.Uint16(receiveAhead)
	}
	return p, c.will(p)
}

func (c *clientFlags) sessionExpiry() (uint32, error) {
	switch c.expiry {
	case "":
		if c.persistent {
			return math.MaxUint32, nil
		}
		return 0, nil
	case "-1", "∞":
		return math.MaxUint32, nil
	}
	n, err := strconv.ParseUint(c.expiry, 10, 32)
	if err != nil {
		return 0, usage("-x %q: want 0 to 4294967295 seconds, -1 or ∞", c.expiry)
	}
	return uint32(n), nil
}

func (c *clientFlags) will(p *paho.Connect) error {
	if c.willTopic == "" {
		if c.willPayload != "" || c.willRetain || c.willQoS != 0 || c.props.set["will"] != nil {
			return usage("a will needs --will-topic")
		}
		return nil
	}
	p.WillMessage = &paho.WillMessage{Topic: c.willTopic, Payload: []byte(c.willPayload), QoS: byte(c.willQoS), Retain: c.willRetain}
	p.InitWillProperties(c.props.of("will"))
	return nil
}
