//! What a root module asks for, before Terraform reads it: a backend of its own, or a shell.
//!
//! Provisioners and the `external` data source run programs on the agent's host, so they need the
//! policy's shell applier. A module that cannot be understood here counts as asking for it.

use std::collections::BTreeMap;

use serde_json::Value;

/// What the files of a module ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asks {
    /// The first thing that would run a program, with its file.
    pub(super) shell: Option<String>,
    /// Whether the module says where its state is kept.
    pub(super) backend: bool,
}

/// Reads the `*.tf` and `*.tf.json` among `files`.
pub(super) fn read(files: &BTreeMap<String, Vec<u8>>) -> Asks {
    let mut asks = Asks::default();
    for (path, bytes) in files {
        let text = String::from_utf8_lossy(bytes);
        let (shell, backend) = if path.ends_with(".tf") {
            read_hcl(&text)
        } else if path.ends_with(".tf.json") {
            read_json(&text)
        } else {
            continue;
        };
        // Only the root's own directory may set the backend.
        asks.backend |= backend && !path.contains('/');
        if asks.shell.is_none() {
            asks.shell = shell.map(|what| format!("{what} in {path}"));
        }
    }
    asks
}

fn shell_block(kind: &str, label: &str) -> Option<String> {
    match kind {
        "provisioner" => Some(format!("provisioner {label:?}")),
        // An escape in a label could spell `external`.
        "data" if label == "external" || label.contains('\\') => {
            Some(format!("data source {label:?}"))
        }
        _ => None,
    }
}

fn read_json(text: &str) -> (Option<String>, bool) {
    let Ok(root) = serde_json::from_str::<Value>(text) else {
        return (Some("something that is not JSON".to_owned()), false);
    };
    let mut shell = None;
    let mut backend = false;
    // A block is an object or a list of objects, at any level (terraform.io, JSON syntax).
    let mut open: Vec<&Value> = vec![&root];
    while let Some(value) = open.pop() {
        if let Value::Object(fields) = value {
            for (kind, inner) in fields {
                for label in labels(inner) {
                    shell = shell.or_else(|| shell_block(kind, label));
                }
                backend |=
                    kind == "terraform" && !block_of(inner, &["backend", "cloud"]).is_empty();
            }
        }
        match value {
            Value::Object(fields) => open.extend(fields.values()),
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    (shell, backend)
}

fn labels(block: &Value) -> Vec<&str> {
    match block {
        Value::Object(fields) => fields.keys().map(String::as_str).collect(),
        Value::Array(items) => items.iter().flat_map(labels).collect(),
        _ => Vec::new(),
    }
}

fn block_of<'a>(block: &'a Value, kinds: &[&str]) -> Vec<&'a str> {
    labels(block).into_iter().filter(|label| kinds.contains(label)).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// An identifier, or the text of a quoted string as it is written.
    Word(String),
    Open,
    Close,
    Other,
}

fn read_hcl(text: &str) -> (Option<String>, bool) {
    let Some(tokens) = tokens(text) else {
        return (Some("something that does not end".to_owned()), false);
    };
    let mut shell = None;
    let mut backend = false;
    let mut header: Vec<&str> = Vec::new();
    let mut open: Vec<String> = Vec::new();
    for token in &tokens {
        match token {
            Token::Word(word) => header.push(word),
            Token::Other => header.clear(),
            Token::Close => {
                header.clear();
                open.pop();
            }
            Token::Open => {
                // Words of an earlier line may precede the header: look at every pair.
                for pair in header.windows(2) {
                    shell = shell.or_else(|| shell_block(pair[0], pair[1]));
                }
                let in_terraform = open.last().is_some_and(|kind| kind == "terraform");
                let last = header.iter().rev().take(2);
                backend |=
                    in_terraform && last.into_iter().any(|w| ["backend", "cloud"].contains(w));
                open.push(header.last().copied().unwrap_or_default().to_owned());
                header.clear();
            }
        }
    }
    (shell, backend)
}

/// The tokens that matter of a file in HCL native syntax; `None` if something in it does not end.
fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '#' || rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/")?.1;
        } else if first == '"' {
            let end = string_end(&rest[1..])?;
            tokens.push(Token::Word(rest[1..1 + end].to_owned()));
            rest = &rest[end + 2..];
        } else if let Some(heredoc) = rest.strip_prefix("<<") {
            tokens.push(Token::Other);
            rest = after_heredoc(heredoc)?;
        } else if first.is_alphabetic() || first == '_' {
            let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        } else {
            match first {
                '{' => tokens.push(Token::Open),
                '}' => tokens.push(Token::Close),
                c if c.is_whitespace() => {}
                _ => tokens.push(Token::Other),
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    Some(tokens)
}

/// Where a quoted string ends: the index of its closing quote. Templates may hold strings.
fn string_end(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = text.get(at..)?;
        match rest.chars().next()? {
            '"' => return Some(at),
            '\\' => at += 1 + rest[1..].chars().next()?.len_utf8(),
            '$' | '%' if rest[1..].starts_with('{') && !is_escaped(text, at) => {
                at += 2 + template_end(&rest[2..])? + 1;
            }
            c => at += c.len_utf8(),
        }
    }
}

/// `$${` and `%%{` are text, not templates.
fn is_escaped(text: &str, at: usize) -> bool {
    at > 0 && text.as_bytes()[at - 1] == text.as_bytes()[at]
}

/// Where a template ends: the index of its closing brace.
fn template_end(text: &str) -> Option<usize> {
    let mut at = 0;
    let mut depth = 0usize;
    loop {
        let rest = text.get(at..)?;
        match rest.chars().next()? {
            '"' => at += string_end(&rest[1..])? + 2,
            '{' => (depth, at) = (depth + 1, at + 1),
            '}' if depth == 0 => return Some(at),
            '}' => (depth, at) = (depth - 1, at + 1),
            c => at += c.len_utf8(),
        }
    }
}

/// What follows a heredoc whose marker `text` begins with. A `<<` that is none is skipped.
fn after_heredoc(text: &str) -> Option<&str> {
    let (marker, mut rest) = text.split_once('\n')?;
    let marker = marker.trim_start_matches('-').trim();
    loop {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if line.trim() == marker {
            return Some(after);
        }
        if after.is_empty() {
            return None;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(files: &[(&str, &str)]) -> Asks {
        let files = files.iter().map(|(path, text)| (path.to_string(), text.as_bytes().to_vec()));
        read(&files.collect())
    }

    #[test]
    fn finds_what_would_run_a_program() {
        let shells = [
            (
                "main.tf",
                "resource \"a\" \"b\" {\n  provisioner \"local-exec\" { command = \"id\" }\n}",
            ),
            (
                "main.tf",
                "resource \"a\" \"b\" {\n x = \"${f(\"}\")}\"\n provisioner local-exec\n{}}",
            ),
            ("main.tf", "x = 1 /* \" */\ndata \"external\" \"x\" {}"),
            ("main.tf", "data \"ext\\u0065rnal\" \"x\" {}"),
            ("main.tf", "a = <<E\n\"\nE\ndata \"external\" \"x\" {}"),
            ("main.tf", "a = \"never closed"),
            ("modules/x/main.tf", "resource \"a\" \"b\" { provisioner \"remote-exec\" {} }"),
            ("a.tf.json", r#"{"resource": {"a": {"b": [{"provisioner": {"local-exec": {}}}]}}}"#),
            ("a.tf.json", r#"{"data": [{"external": {"x": {}}}]}"#),
        ];
        for (path, text) in shells {
            let found = asks(&[(path, text)]).shell;
            assert!(found.is_some_and(|what| what.ends_with(path)), "{text}");
        }
    }

    #[test]
    fn leaves_ordinary_modules_alone() {
        let ordinary = "# provisioner \"local-exec\" {}\nvariable \"provisioner\" {}\n\
            locals { provisioner = \"x\", text = \"provisioner \\\"a\\\" {\" }\n\
            data \"http\" \"external\" {}\noutput \"x\" { value = \"$${not} ${upper(\"a\")}\" }\n";
        assert_eq!(
            asks(&[("main.tf", ordinary), ("notes.md", "provisioner \"a\" {")]),
            Asks::default()
        );
    }

    #[test]
    fn finds_a_backend_of_the_root_only() {
        let backend = "terraform {\n  required_version = \"1\"\n  backend \"s3\" {}\n}";
        assert!(asks(&[("main.tf", backend)]).backend);
        assert!(asks(&[("main.tf", "terraform {\n cloud {\n }\n}")]).backend);
        assert!(asks(&[("a.tf.json", r#"{"terraform": {"backend": {"s3": {}}}}"#)]).backend);
        assert!(!asks(&[("modules/x/main.tf", backend)]).backend);
        assert!(!asks(&[("main.tf", "resource \"backend\" \"cloud\" {}")]).backend);
    }
}
