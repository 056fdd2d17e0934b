//! Real servers that state stores are kept on: Git over https and ssh, and S3.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write as _,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::{Process, eventually, free_port};

/// Files by path.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// Git's own http-backend behind https and a password (`$MUSTER_GIT_SERVER`).
#[derive(Debug)]
pub struct GitServer {
    _process: Process,
    root: PathBuf,
    line: Line,
}

#[derive(Debug, Deserialize)]
struct Line {
    url: String,
    authority: PathBuf,
}

/// sshd for one key (`$MUSTER_SSHD`).
#[derive(Debug)]
pub struct SshServer {
    _process: Process,
    directory: PathBuf,
    port: u16,
}

/// versitygw over a directory (`$MUSTER_S3_SERVER`).
#[derive(Debug)]
pub struct S3Server {
    _process: Process,
    root: PathBuf,
    port: u16,
}

/// Bare repositories in a directory.
#[derive(Debug, Clone)]
pub struct Repositories(PathBuf);

impl GitServer {
    /// The user that it lets in at first.
    pub const USER: &'static str = "hub";
    /// The password of that user.
    pub const PASSWORD: &'static str = "let-me-in";

    /// Starts it below `directory`.
    pub fn start(directory: &Path) -> Self {
        let root = directory.join("git");
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("users"), format!("{} {}\n", Self::USER, Self::PASSWORD)).unwrap();
        let program = env::var_os("MUSTER_GIT_SERVER").expect("MUSTER_GIT_SERVER is not set");
        let mut command = Command::new(program);
        command.arg("--root").arg(&root).stdout(Stdio::piped());
        let mut process = Process::start(&mut command, &directory.join("git-server.log"));
        let line = process.first_line();
        let line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        Self { _process: process, root, line }
    }

    /// The URL of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}.git", self.line.url)
    }

    /// The PEM of its authority.
    pub fn authority(&self) -> String {
        fs::read_to_string(self.authority_file()).unwrap()
    }

    /// The file of its authority.
    pub fn authority_file(&self) -> &Path {
        &self.line.authority
    }

    /// Where its repositories lie.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What precedes the names of its repositories in their URLs.
    pub fn base(&self) -> &str {
        &self.line.url
    }

    /// Lets these in: lines of a user, a password, and `ro` for one who only reads.
    pub fn let_in(&self, users: &str) {
        fs::write(self.root.join("users.new"), users).unwrap();
        fs::rename(self.root.join("users.new"), self.root.join("users")).unwrap();
    }

    /// The public key (PEM) of a GitHub App whose JWTs it exchanges for tokens.
    pub fn know_app(&self, public_key: &Path) {
        fs::copy(public_key, self.root.join("app.pem")).unwrap();
    }

    /// Says of the tokens that it gives from now on that they are valid for so long.
    pub fn tokens_last(&self, seconds: u64) {
        fs::write(self.root.join("token-life"), seconds.to_string()).unwrap();
    }

    /// Answers with 503 from now on, or no more.
    pub fn down(&self, down: bool) {
        let file = self.root.join("down");
        if down { fs::write(file, "").unwrap() } else { fs::remove_file(file).unwrap() }
    }

    /// How often it was asked for this: `push`, `fetch`, `ask`, `denied`, `forbidden`, `token`, and
    /// while it was down, `away`.
    pub fn count(&self, what: &str) -> u64 {
        let text = fs::read_to_string(self.root.join("counts.json")).unwrap_or_default();
        let counts: BTreeMap<String, u64> = serde_json::from_str(&text).unwrap_or_default();
        counts.get(what).copied().unwrap_or_default()
    }

    /// Its repositories.
    pub fn repositories(&self) -> Repositories {
        Repositories(self.root.clone())
    }
}

impl SshServer {
    /// Starts it below `directory`; whoever runs the tests may log in with [`SshServer::key`].
    pub fn start(directory: &Path) -> Self {
        let directory = directory.join("ssh");
        fs::create_dir_all(directory.join("git")).unwrap();
        for key in ["host", "user", "other"] {
            keygen(&directory.join(key));
        }
        fs::copy(directory.join("user.pub"), directory.join("authorized")).unwrap();
        // sshd of root insists on it.
        let _not_root = fs::create_dir_all("/run/sshd").is_err();
        let port = free_port();
        let at = |name: &str| directory.join(name).display().to_string();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
             UsePAM no\nPidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
             PerSourcePenalties no\n",
            at("host"),
            at("authorized")
        );
        // Older servers do not know the last line, and count no failed logins against an address.
        let program = env::var_os("MUSTER_SSHD").expect("MUSTER_SSHD is not set");
        fs::write(at("config"), &config).unwrap();
        let mut known = Command::new(&program);
        known.args(["-t", "-f", &at("config")]).stderr(Stdio::null());
        if !known.status().unwrap().success() {
            let config = config.replace("PerSourcePenalties no\n", "");
            fs::write(at("config"), config).unwrap();
        }
        let mut command = Command::new(program);
        command.args(["-D", "-e", "-f", &at("config")]);
        let process = Process::start(&mut command, &directory.join("sshd.log"));
        listens(port);
        Self { _process: process, directory, port }
    }

    /// The URL of a repository.
    pub fn url(&self, name: &str) -> String {
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap();
        let path = self.directory.join("git").join(name);
        format!("ssh://{}@127.0.0.1:{}{}.git", user.trim(), self.port, path.display())
    }

    /// The private key that it lets in.
    pub fn key(&self) -> String {
        fs::read_to_string(self.directory.join("user")).unwrap()
    }

    /// The public half of it.
    pub fn public_key(&self) -> String {
        fs::read_to_string(self.directory.join("user.pub")).unwrap()
    }

    /// The line for `known_hosts`; `true`: the right one.
    pub fn known_hosts(&self, right: bool) -> String {
        let file = if right { "host.pub" } else { "other.pub" };
        let key = fs::read_to_string(self.directory.join(file)).unwrap();
        format!("[127.0.0.1]:{} {key}", self.port)
    }

    /// Its repositories.
    pub fn repositories(&self) -> Repositories {
        Repositories(self.directory.join("git"))
    }
}

impl S3Server {
    /// The id of its one key.
    pub const ID: &'static str = "muster-tests";
    /// The secret of its one key.
    pub const SECRET: &'static str = "muster-tests-secret";

    /// Starts it below `directory`.
    pub fn start(directory: &Path) -> Self {
        let port = free_port();
        Self::start_with(directory, (&format!("127.0.0.1:{port}"), port), &[])
    }

    /// Starts it with TLS; the PEM of its authority.
    pub fn start_secure(directory: &Path) -> (Self, Vec<u8>) {
        let flags = certified(directory, "IP:127.0.0.1");
        let port = free_port();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let server = Self::start_with(directory, (&format!("127.0.0.1:{port}"), port), &flags);
        (server, fs::read(directory.join("ca.pem")).unwrap())
    }

    /// Starts it with TLS as a host of this name in a region, at the usual port of all addresses: only
    /// in a network namespace of the test's own. The PEM of its authority.
    pub fn start_as(directory: &Path, host: &str, region: &str) -> (Self, Vec<u8>) {
        let flags = certified(directory, &format!("DNS:{host}"));
        let mut flags: Vec<_> = flags.iter().map(String::as_str).collect();
        flags.extend(["--region", region]);
        let server = Self::start_with(directory, (":443", 443), &flags);
        (server, fs::read(directory.join("ca.pem")).unwrap())
    }

    fn start_with(directory: &Path, (listen, port): (&str, u16), flags: &[&str]) -> Self {
        let (root, versions) = (directory.join("s3"), directory.join("s3-versions"));
        for folder in [&root, &versions] {
            fs::create_dir_all(folder).unwrap();
        }
        let program = env::var_os("MUSTER_S3_SERVER").expect("MUSTER_S3_SERVER is not set");
        let mut command = Command::new(program);
        command
            .env("ROOT_ACCESS_KEY", Self::ID)
            .env("ROOT_SECRET_KEY", Self::SECRET)
            .args(["--port", listen])
            .args(flags)
            .args(["posix", "--versioning-dir"])
            .args([&versions, &root])
            .stdout(Stdio::null());
        let process = Process::start(&mut command, &directory.join("s3.log"));
        listens(port);
        Self { _process: process, root, port }
    }

    /// Where its buckets lie.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its host and port.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes a bucket.
    pub fn create(&self, bucket: &str) {
        fs::create_dir_all(self.root.join(bucket)).unwrap();
    }

    /// Keeps older versions of a bucket's objects from now on.
    pub fn keep_versions(&self, bucket: &str) {
        let body = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                    <Status>Enabled</Status></VersioningConfiguration>";
        self.ask("PUT", &format!("{bucket}?versioning="), body);
    }

    /// Puts an object, as somebody else does.
    pub fn put(&self, bucket: &str, key: &str, text: &str) {
        self.ask("PUT", &format!("{bucket}/{key}"), text);
    }

    /// Deletes an object, as somebody else does.
    pub fn delete(&self, bucket: &str, key: &str) {
        self.ask("DELETE", &format!("{bucket}/{key}"), "");
    }

    /// The bytes of an object as they are now, if it is there.
    pub fn read(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join(bucket).join(key)).ok()
    }

    /// The names of a bucket's objects, as it lists them.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let told = self.ask("GET", &format!("{bucket}?list-type=2"), "");
        let keys = told.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        keys.map(str::to_owned).collect()
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let sum = format!("printf %s '{body}' | sha256sum | cut -c 1-64");
        let sum = Command::new("sh").args(["-c", &sum]).output().unwrap().stdout;
        let sum = String::from_utf8(sum).unwrap();
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail-with-body", "-X", method, "--data-binary", body]);
        command.arg("-H").arg(format!("x-amz-content-sha256: {}", sum.trim()));
        command.args(["--aws-sigv4", "aws:amz:us-east-1:s3", "-H", "content-type: text/xml"]);
        command.arg("--user").arg(format!("{}:{}", Self::ID, Self::SECRET));
        command.arg(format!("http://{}/{path}", self.endpoint()));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{method} {path}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The objects of a bucket. One that keeps versions leaves the bytes of deleted ones there.
    pub fn tree(&self, bucket: &str) -> Tree {
        let (root, mut tree) = (self.root.join(bucket), Tree::new());
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            // A folder may go while it is looked at.
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                if name.starts_with(".sgwtmp") {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(bytes) = fs::read(&path) {
                    tree.insert(name, bytes);
                }
            }
        }
        tree
    }
}

impl Repositories {
    /// Makes a repository without commits.
    pub fn create_empty(&self, name: &str) {
        self.git(name, &["init", "--quiet", "--bare", "-b", "main"]);
    }

    /// Makes a repository whose branch `main` has one commit with a README.
    pub fn create(&self, name: &str) {
        self.create_empty(name);
        self.commit(name, "echo hello > README.md");
    }

    /// Runs a shell in a clone and pushes what it did.
    pub fn commit(&self, name: &str, script: &str) {
        let clone = tempfile::tempdir().unwrap();
        let script = format!(
            "set -e; git clone -q '{}' . 2>/dev/null; git checkout -q -B main; {script}; git add -A; \
             git -c user.name=someone -c user.email=someone@example.org commit -q -m 'by hand'; \
             git push -q origin main",
            self.path(name).display()
        );
        let status = Command::new("sh").args(["-c", &script]).current_dir(clone.path()).status();
        assert!(status.unwrap().success(), "{script}");
    }

    /// The files of `main`.
    pub fn tree(&self, name: &str) -> Tree {
        let Ok(head) = self.try_git(name, &["rev-parse", "main"]) else { return Tree::new() };
        let head = String::from_utf8(head).unwrap().trim().to_owned();
        let listed = self.git(name, &["ls-tree", "-r", "-z", "--name-only", &head]);
        let listed = String::from_utf8(listed).unwrap();
        let paths = listed.split('\0').filter(|path| !path.is_empty());
        let read = |path: &str| self.git(name, &["show", &format!("{head}:{path}")]);
        paths.map(|path| (path.to_owned(), read(path))).collect()
    }

    /// Makes the server run a script on each push (`pre-receive`), or no more.
    pub fn hook(&self, name: &str, script: Option<&str>) {
        let file = self.path(name).join("hooks").join("pre-receive");
        let Some(script) = script else { return fs::remove_file(file).unwrap() };
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Gives `main` so many commits more, each of which replaces a file of some kilobytes.
    pub fn grow(&self, name: &str, commits: usize) {
        let head = self.head(name);
        let mut stream = String::new();
        for n in 0..commits {
            let text = format!("{n}\n").repeat(2000);
            stream.push_str(&format!(
                "commit refs/heads/main\ncommitter someone <someone@example.org> {n} +0000\n\
                 data 2\nof\n"
            ));
            if n == 0 {
                stream.push_str(&format!("from {head}\n"));
            }
            stream.push_str(&format!("M 100644 inline old.txt\ndata {}\n{text}\n", text.len()));
        }
        let mut command = Command::new("git");
        command.args(["-c", "safe.directory=*", "--git-dir"]).arg(self.path(name));
        command.args(["fast-import", "--quiet"]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "git fast-import failed");
    }

    /// The newest commit of `main`.
    pub fn head(&self, name: &str) -> String {
        String::from_utf8(self.git(name, &["rev-parse", "main"])).unwrap().trim().to_owned()
    }

    /// How many commits `main` has.
    pub fn commits(&self, name: &str) -> usize {
        let told = self.try_git(name, &["rev-list", "--count", "main"]).unwrap_or_default();
        String::from_utf8(told).unwrap().trim().parse().unwrap_or_default()
    }

    /// What `git` prints in a repository.
    pub fn git(&self, name: &str, args: &[&str]) -> Vec<u8> {
        self.try_git(name, args).unwrap_or_else(|error| panic!("git {args:?} in {name}: {error}"))
    }

    fn try_git(&self, name: &str, args: &[&str]) -> Result<Vec<u8>, String> {
        let mut command = Command::new("git");
        command.args(["-c", "safe.directory=*", "--git-dir"]).arg(self.path(name)).args(args);
        let output = command.output().unwrap();
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.git"))
    }
}

fn keygen(file: &Path) {
    let mut command = Command::new("ssh-keygen");
    let status = command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file).status();
    assert!(status.is_ok_and(|status| status.success()), "ssh-keygen failed");
}

/// Makes an authority, and the certificate of an S3 server; the flags that name it.
fn certified(directory: &Path, name: &str) -> [String; 4] {
    let script = format!(
        "set -e; new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        openssl req -x509 $new -keyout ca.key -out ca.pem -subj /CN=tests -days 2
        openssl req $new -keyout s3.key -out s3.csr -subj /CN=s3
        echo subjectAltName={name} > s3.ext
        openssl x509 -req -in s3.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out s3.pem \\
          -days 2 -extfile s3.ext"
    );
    let made = Command::new("sh").args(["-c", &script]).current_dir(directory).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let at = |name: &str| directory.join(name).display().to_string();
    ["--cert".to_owned(), at("s3.pem"), "--key".to_owned(), at("s3.key")]
}

fn listens(port: u16) {
    eventually("a server to listen", || {
        TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
    });
}
