//! What Terraform says, as one sentence that names file, line and cause.

use serde_json::Value;

/// Most errors of one run that are told.
const TOLD_MAX: usize = 3;

/// The errors among the messages of `-json` (one JSON object a line), or in plain text.
pub(super) fn errors(stdout: &[u8], stderr: &[u8]) -> Option<String> {
    let lines = String::from_utf8_lossy(stdout);
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut told: Vec<String> = messages
        .filter_map(|message| message.get("diagnostic").cloned())
        .filter(|diagnostic| diagnostic.get("severity").and_then(Value::as_str) == Some("error"))
        .map(|diagnostic| sentence(&diagnostic))
        .collect();
    if told.is_empty() {
        told = plain(&String::from_utf8_lossy(stderr));
    }
    if told.is_empty() {
        told = plain(&lines);
    }
    told.dedup();
    told.truncate(TOLD_MAX);
    (!told.is_empty()).then(|| told.join("; "))
}

/// The changes that a plan announces, such as `Plan: 1 to add, 0 to change, 0 to destroy.`
pub(super) fn summary(stdout: &[u8]) -> Option<String> {
    let lines = String::from_utf8_lossy(stdout);
    let mut messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found =
        messages.find(|m| m.get("type").and_then(Value::as_str) == Some("change_summary"))?;
    Some(found.get("@message")?.as_str()?.to_owned())
}

fn sentence(diagnostic: &Value) -> String {
    let text = |pointer| diagnostic.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let line = diagnostic.pointer("/range/start/line").and_then(Value::as_u64);
    let place = match (text("/range/filename"), line, text("/address")) {
        ("", _, "") => String::new(),
        ("", _, address) => format!("{address}: "),
        (file, Some(line), _) => format!("{file}, line {line}: "),
        (file, None, _) => format!("{file}: "),
    };
    let detail = one_line(text("/detail"));
    let detail = if detail.is_empty() { detail } else { format!(": {detail}") };
    format!("{place}{}{detail}", one_line(text("/summary")))
}

/// Errors as `init` prints them: `Error: summary`, then `on FILE line N`, then the detail.
fn plain(text: &str) -> Vec<String> {
    let bare =
        |line: &str| line.trim_matches(|c: char| c.is_whitespace() || "│╷╵".contains(c)).to_owned();
    let lines: Vec<String> = text.lines().map(bare).filter(|line| !line.is_empty()).collect();
    let mut told: Vec<String> = Vec::new();
    let mut in_error = false;
    for line in lines {
        if let Some(summary) = line.strip_prefix("Error: ") {
            told.push(summary.to_owned());
            in_error = true;
        } else if let (true, Some(last)) = (in_error, told.last_mut()) {
            match line.strip_prefix("on ").and_then(|rest| rest.split_once(" line ")) {
                Some((file, rest)) => {
                    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
                    *last = format!("{file}, line {number}: {last}");
                }
                // The source line that Terraform quotes begins with its number.
                None if line.starts_with(|c: char| c.is_ascii_digit()) => {}
                None => *last = format!("{last} {line}"),
            }
        }
    }
    told
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_file_line_and_cause() {
        let json = br#"{"@level":"info","type":"version"}
{"@level":"error","type":"diagnostic","diagnostic":{"severity":"error","summary":"Unsupported attribute","detail":"This object\nhas no x.","range":{"filename":"main.tf","start":{"line":7}}}}"#;
        let told = errors(json, b"").unwrap();
        assert_eq!(told, "main.tf, line 7: Unsupported attribute: This object has no x.");
        let text = "╷\n│ Error: Invalid block\n│ \n│   on main.tf line 3, in resource:\n│    3: foo {\n│ \
                    \n│ Blocks of type foo are unknown.\n╵\n";
        let told = errors(b"", text.as_bytes()).unwrap();
        assert_eq!(told, "main.tf, line 3: Invalid block Blocks of type foo are unknown.");
        assert_eq!(errors(b"Success!", b""), None);
    }
}
