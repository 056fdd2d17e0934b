// Git over HTTPS for tests: git's own http-backend behind basic authentication, with a certificate
// of its own authority, and a count of what was asked. Standard library only.
//
// What it lets in is read from files at every request, so that a test can change it:
//
//	ROOT/users        lines of USER PASSWORD [ro]; ro may fetch and not push
//	ROOT/down         while it exists, every request is answered with 503
//	ROOT/app.pem      the public key of a GitHub App, whose JWTs are exchanged for tokens
//	ROOT/token-life   how many seconds those tokens are said to be valid; an hour where it is missing
//
// It prints one line of JSON: its URL, and the file of its authority. ROOT/counts.json says how often it
// was asked what.
package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

type server struct {
	root, backend string

	mu     sync.Mutex
	counts map[string]int
	tokens map[string]bool
}

func main() {
	root := flag.String("root", "", "directory of bare repositories")
	listen := flag.String("listen", "127.0.0.1:0", "address")
	backend := flag.String("backend", "/usr/lib/git-core/git-http-backend", "git http-backend")
	flag.Parse()
	s := &server{root: *root, backend: *backend, counts: map[string]int{}, tokens: map[string]bool{}}
	certificate, authority := certificates()
	file := filepath.Join(*root, "authority.pem")
	check(os.WriteFile(file, authority, 0o600))
	listener, err := tls.Listen("tcp", *listen, &tls.Config{Certificates: []tls.Certificate{certificate}})
	check(err)
	line, err := json.Marshal(map[string]string{
		"url": "https://" + listener.Addr().String(), "authority": file,
	})
	check(err)
	fmt.Println(string(line))
	log.SetOutput(os.Stderr)
	check(http.Serve(listener, s))
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case exists(filepath.Join(s.root, "down")):
		s.count("away")
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	case strings.HasPrefix(path, "/api/v3/app/installations/"):
		s.exchange(w, r)
		return
	}
	user, password, given := r.BasicAuth()
	writes := strings.HasSuffix(path, "/git-receive-pack") ||
		r.URL.Query().Get("service") == "git-receive-pack"
	known, readOnly := s.knows(user, password)
	switch {
	case !given || !known:
		s.count("denied")
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	case writes && readOnly:
		s.count("forbidden")
		http.Error(w, "read only", http.StatusForbidden)
		return
	case strings.HasSuffix(path, "/git-receive-pack"):
		s.count("push")
	case strings.HasSuffix(path, "/git-upload-pack"):
		s.count("fetch")
	default:
		s.count("ask")
	}
	(&cgi.Handler{
		Path: s.backend, Root: "/", Dir: s.root, Stderr: os.Stderr,
		Env: []string{"GIT_PROJECT_ROOT=" + s.root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=" + user,
			"PATH=" + os.Getenv("PATH"), "HOME=" + s.root, "GIT_CONFIG_COUNT=2",
			"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
			"GIT_CONFIG_KEY_1=http.receivepack", "GIT_CONFIG_VALUE_1=true"},
	}).ServeHTTP(w, r)
}

// knows says whether a user may enter, and whether only to read.
func (s *server) knows(user, password string) (known, readOnly bool) {
	s.mu.Lock()
	token := s.tokens[password]
	s.mu.Unlock()
	if user == "x-access-token" && token {
		return true, false
	}
	users, err := os.ReadFile(filepath.Join(s.root, "users"))
	check(err)
	for _, line := range strings.Split(string(users), "\n") {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == user && fields[1] == password {
			return true, len(fields) > 2 && fields[2] == "ro"
		}
	}
	return false, false
}

// exchange gives a token for a JWT that the App's key signed and that is valid now, as GitHub does.
func (s *server) exchange(w http.ResponseWriter, r *http.Request) {
	refuse := func(why string) { http.Error(w, `{"message":"`+why+`"}`, http.StatusUnauthorized) }
	parts := strings.Split(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), ".")
	text, err := os.ReadFile(filepath.Join(s.root, "app.pem"))
	if err != nil || len(parts) != 3 || r.Method != http.MethodPost {
		refuse("A JSON web token could not be decoded")
		return
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	check(err)
	signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if rsa.VerifyPKCS1v15(key.(*rsa.PublicKey), crypto.SHA256, digest[:], signature) != nil {
		refuse("A JSON web token could not be decoded")
		return
	}
	var claims struct {
		Iat, Exp int64
		Iss      string
	}
	body, _ := base64.RawURLEncoding.DecodeString(parts[1])
	now := time.Now().Unix()
	if json.Unmarshal(body, &claims) != nil || claims.Iat > now || claims.Exp < now || claims.Exp > now+600 || claims.Iss == "" {
		refuse("'Expiration time' claim ('exp') is too far in the future")
		return
	}
	random := make([]byte, 20)
	_, err = rand.Read(random)
	check(err)
	token := "ghs_" + hex.EncodeToString(random)
	s.mu.Lock()
	s.tokens[token] = true
	s.mu.Unlock()
	s.count("token")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]string{
		"token": token, "expires_at": time.Now().Add(s.tokenLife()).UTC().Format(time.RFC3339),
	})
}

func (s *server) tokenLife() time.Duration {
	text, err := os.ReadFile(filepath.Join(s.root, "token-life"))
	if err != nil {
		return time.Hour
	}
	seconds, err := strconv.Atoi(strings.TrimSpace(string(text)))
	check(err)
	return time.Duration(seconds) * time.Second
}

func (s *server) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
	text, err := json.Marshal(s.counts)
	check(err)
	file := filepath.Join(s.root, "counts.json")
	// Without room on the disk the numbers stay what they were.
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		log.Print(err)
		return
	}
	check(os.Rename(file+".new", file))
}

// certificates makes an authority and a certificate for loopback.
func certificates() (tls.Certificate, []byte) {
	key := func() *ecdsa.PrivateKey {
		made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(err)
		return made
	}
	ends := time.Now().Add(24 * time.Hour)
	begins := time.Now().Add(-time.Hour)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tests"}, NotBefore: begins, NotAfter: ends,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"}, NotBefore: begins, NotAfter: ends,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	authorityKey, leafKey := key(), key()
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, &authorityKey.PublicKey, authorityKey)
	check(err)
	signed, err := x509.CreateCertificate(rand.Reader, leaf, authority, &leafKey.PublicKey, authorityKey)
	check(err)
	var text bytes.Buffer
	check(pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root}))
	return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: leafKey}, text.Bytes()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
