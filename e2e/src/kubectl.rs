//! The real kubectl.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::eventually;

/// kubectl 1.32 with one kubeconfig.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

/// What a command printed.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Whether it exited with 0.
    pub ok: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Kubectl {
    /// kubectl with this kubeconfig; the program is `$MUSTER_KUBECTL`.
    pub fn new(kubeconfig: &Path) -> Self {
        let program = env::var_os("MUSTER_KUBECTL").unwrap_or_else(|| {
            panic!("MUSTER_KUBECTL is not set: eval \"$(tests/real/parts.sh)\"")
        });
        Self { program: program.into(), kubeconfig: kubeconfig.to_owned() }
    }

    /// Runs a command.
    pub fn run(&self, args: &[&str]) -> Answer {
        self.with_input(args, "")
    }

    /// Runs a command with standard input.
    pub fn with_input(&self, args: &[&str], input: &str) -> Answer {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        Answer {
            ok: output.status.success(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The command, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let cache = self.kubeconfig.with_file_name("kubectl-cache");
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig).arg("--cache-dir").arg(cache).args(args);
        command
    }

    /// Runs a command that must succeed; its output.
    pub fn ok(&self, args: &[&str]) -> String {
        let answer = self.run(args);
        assert!(answer.ok, "kubectl {args:?}: {}{}", answer.stdout, answer.stderr);
        answer.stdout
    }

    /// Runs a command that must be refused; what it says.
    pub fn refused(&self, args: &[&str], input: &str) -> String {
        let answer = self.with_input(args, input);
        assert!(!answer.ok, "kubectl {args:?} was accepted: {}", answer.stdout);
        answer.stderr
    }

    /// Applies YAML.
    pub fn apply(&self, yaml: &str) -> String {
        let answer = self.with_input(&["apply", "-f", "-"], yaml);
        assert!(answer.ok, "kubectl apply: {}{}", answer.stdout, answer.stderr);
        answer.stdout
    }

    /// Runs a command until it succeeds and its output satisfies `enough`.
    pub fn until(&self, args: &[&str], enough: impl Fn(&str) -> bool) -> String {
        eventually(&format!("kubectl {}", args.join(" ")), || {
            let answer = self.run(args);
            if answer.ok && enough(&answer.stdout) {
                return Ok(answer.stdout);
            }
            Err(format!("{}{}", answer.stdout, answer.stderr))
        })
    }

    /// Waits until `kubectl get` prints this table: a header, and a line for each object. What is
    /// between cells does not matter, and within one `*` stands for anything.
    pub fn prints(&self, args: &[&str], lines: &[&str]) {
        eventually(&format!("kubectl get {} to print {lines:#?}", args.join(" ")), || {
            let answer = self.run(&[&["get"], args].concat());
            let printed: Vec<_> = answer.stdout.lines().collect();
            let same = printed.len() == lines.len()
                && printed.iter().zip(lines).all(|(printed, line)| is_like(printed, line));
            if answer.ok && same { Ok(()) } else { Err(answer.stdout + &answer.stderr) }
        });
    }

    /// Waits until a condition of an object holds.
    pub fn wait(&self, object: &str, condition: &str) {
        let wait = format!("--for=condition={condition}");
        let answer = self.run(&["wait", object, &wait, "--timeout=120s"]);
        if !answer.ok {
            let shown = self.run(&["get", object, "-o", "yaml"]).stdout;
            panic!("{object} is not {condition}: {}\n{shown}", answer.stderr);
        }
    }

    /// Waits until the conditions of an object say all of `fragments`.
    pub fn says(&self, object: &str, fragments: &[&str]) {
        const MESSAGES: &str = r#"jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\n"}{end}"#;
        eventually(&format!("{object} to say {fragments:?}"), || {
            let told = self.run(&["get", object, "-o", MESSAGES]);
            let missing: Vec<_> = fragments.iter().filter(|f| !told.stdout.contains(**f)).collect();
            if told.ok && missing.is_empty() {
                return Ok(());
            }
            Err(format!("{}{} (without {missing:?})", told.stdout, told.stderr))
        });
    }

    /// Waits until a condition of an object has this reason; its message.
    pub fn reason(&self, object: &str, condition: &str, reason: &str) -> String {
        let path = format!(
            "jsonpath={{range .status.conditions[?(@.type==\"{condition}\")]}}{{.reason}}: \
             {{.message}}{{end}}"
        );
        let start = format!("{reason}: ");
        let told = self.until(&["get", object, "-o", &path], |told| told.starts_with(&start));
        told[start.len()..].to_owned()
    }

    /// Waits until an object is gone.
    pub fn gone(&self, object: &str) {
        eventually(&format!("{object} to be gone"), || {
            let answer = self.run(&["get", object, "-o", "yaml"]);
            if answer.stderr.contains("NotFound") { Ok(()) } else { Err(answer.stdout) }
        });
    }
}

/// Whether a line of a table is as a pattern says.
fn is_like(line: &str, pattern: &str) -> bool {
    let fits = |(cell, wanted): (&str, &str)| match wanted.split_once('*') {
        Some((start, end)) => cell.strip_prefix(start).is_some_and(|rest| rest.ends_with(end)),
        None => cell == wanted,
    };
    let (cells, wanted) = (line.split_whitespace(), pattern.split_whitespace());
    cells.clone().count() == wanted.clone().count() && cells.zip(wanted).all(fits)
}
