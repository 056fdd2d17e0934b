//! How a session is written down:
//!
//! ```text
//! # Prose, up to the next blank line or command.
//!
//! $ kubectl create configmap a --from-literal=k=v
//! > configmap/a created
//!
//! $ kubectl apply -f - <<'EOF'
//! …
//! EOF
//! ! error: …
//! = 1
//! ```
//!
//! `$` is a command for `sh` (lines that begin with two blanks continue it, and a document follows
//! it up to `EOF`); `>` is what it prints, `!` what it prints as errors, `=` its exit code unless
//! 0, all normalised ([`crate::normal`]). `@1.32` and `@newest` stand before what only that kubectl
//! prints. `@muster WHY` stands before what we print instead, on purpose.

use std::fmt::{self, Display};

/// Which kubectl.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// Of the minor that the API says it is.
    Served,
    Newest,
}

/// What a command came to, normalised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

/// Answers to one command by each kubectl.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    served: Option<Answer>,
    newest: Option<Answer>,
}

/// What we print in place of what was recorded, and why.
#[derive(Debug)]
pub(crate) struct Ours {
    why: String,
    pub(crate) answers: Answers,
}

#[derive(Debug)]
pub(crate) struct Step {
    /// Prose and blank lines above it.
    above: Vec<String>,
    pub(crate) command: String,
    pub(crate) recorded: Answers,
    pub(crate) ours: Option<Ours>,
}

#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
}

impl Step {
    /// What that kubectl has to print against us.
    pub(crate) fn expected(&self, version: Version) -> Option<&Answer> {
        let answers = self.ours.as_ref().map_or(&self.recorded, |ours| &ours.answers);
        answers.get(version)
    }

    /// A mark is kept only where we differ from what was recorded.
    pub(crate) fn drop_vain_mark(&mut self) {
        self.ours.take_if(|ours| ours.answers == self.recorded);
    }
}

impl Answers {
    pub(crate) fn get(&self, version: Version) -> Option<&Answer> {
        match version {
            Version::Served => self.served.as_ref(),
            Version::Newest => self.newest.as_ref(),
        }
    }

    pub(crate) fn set(&mut self, version: Version, answer: Answer) {
        match version {
            Version::Served => self.served = Some(answer),
            Version::Newest => self.newest = Some(answer),
        }
    }
}

impl Script {
    /// How many kubectl commands it holds; a step may hold several, or none.
    pub(crate) fn commands(&self) -> usize {
        self.steps.iter().map(|step| step.command.matches("kubectl ").count()).sum()
    }

    pub(crate) fn parse(text: &str) -> Result<Script, String> {
        let mut steps: Vec<Step> = Vec::new();
        let mut above = Vec::new();
        // Whose answer is being read; `None` is both kubectls'.
        let mut version = None;
        let mut lines = text.lines().enumerate().peekable();
        while let Some((at, line)) = lines.next() {
            if let Some(first) = line.strip_prefix("$ ") {
                let mut command = first.to_owned();
                while let Some((_, more)) = lines.next_if(|(_, line)| line.starts_with("  ")) {
                    command = format!("{command}\n{more}");
                }
                if command.contains("<<'EOF'") {
                    let document = lines.by_ref().map(|(_, line)| line);
                    command.extend(
                        document.take_while(|line| *line != "EOF").map(|line| format!("\n{line}")),
                    );
                    command.push_str("\nEOF");
                }
                let above = std::mem::take(&mut above);
                let (recorded, ours) = (Answers::default(), None);
                steps.push(Step { above, command, recorded, ours });
                version = None;
            } else if line.is_empty() || line.starts_with('#') {
                above.push(line.to_owned());
            } else {
                let step = steps.last_mut().ok_or("begins without a command")?;
                let (mark, rest) = line.split_at_checked(1).unwrap_or((line, ""));
                let rest = rest.strip_prefix(' ').unwrap_or(rest);
                step.read(mark, rest, &mut version).map_err(|why| {
                    format!("line {}: {why}: lines begin with # $ > ! = @", at + 1)
                })?;
            }
        }
        for step in &mut steps {
            step.fill();
        }
        Ok(Script { steps })
    }
}

impl Step {
    fn read(
        &mut self,
        mark: &str,
        rest: &str,
        version: &mut Option<Version>,
    ) -> Result<(), String> {
        if mark == "@" {
            *version = match rest {
                "1.32" => Some(Version::Served),
                "newest" => Some(Version::Newest),
                _ => {
                    let why =
                        rest.strip_prefix("muster ").ok_or("neither 1.32, newest nor muster")?;
                    self.ours = Some(Ours { why: why.to_owned(), answers: Answers::default() });
                    None
                }
            };
            return Ok(());
        }
        let answers = self.ours.as_mut().map_or(&mut self.recorded, |ours| &mut ours.answers);
        for of in [Version::Served, Version::Newest] {
            if version.is_some_and(|only| only != of) {
                continue;
            }
            let mut answer = answers.get(of).cloned().unwrap_or_default();
            match mark {
                ">" => answer.out.extend([rest, "\n"]),
                "!" => answer.err.extend([rest, "\n"]),
                "=" => answer.code = rest.parse().map_err(|_| format!("{rest:?} is no code"))?,
                _ => return Err(format!("{mark:?}")),
            }
            answers.set(of, answer);
        }
        Ok(())
    }

    /// A command without an answer is one that prints nothing and succeeds.
    fn fill(&mut self) {
        for answers in std::iter::once(&mut self.recorded)
            .chain(self.ours.as_mut().map(|ours| &mut ours.answers))
        {
            answers.served.get_or_insert_default();
            answers.newest.get_or_insert_default();
        }
    }
}

impl Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::Served => "1.32",
            Version::Newest => "newest",
        })
    }
}

impl Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            for line in &step.above {
                writeln!(f, "{line}")?;
            }
            writeln!(f, "$ {}", step.command)?;
            write!(f, "{}", step.recorded)?;
            if let Some(ours) = &step.ours {
                writeln!(f, "@muster {}", ours.why)?;
                write!(f, "{}", ours.answers)?;
            }
        }
        Ok(())
    }
}

impl Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.served, &self.newest) {
            (Some(served), Some(newest)) if served == newest => write!(f, "{served}"),
            (served, newest) => {
                for (version, answer) in [(Version::Served, served), (Version::Newest, newest)] {
                    if let Some(answer) = answer {
                        write!(f, "@{version}\n{answer}")?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (mark, text) in [(">", &self.out), ("!", &self.err)] {
            for line in text.lines() {
                writeln!(f, "{}", format!("{mark} {line}").trim_end())?;
            }
        }
        if self.code != 0 {
            writeln!(f, "= {}", self.code)?;
        }
        Ok(())
    }
}
