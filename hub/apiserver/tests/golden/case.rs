//! A file of cases: requests written by people, each with the answer recorded from a real server.
//!
//! ```text
//! === Title
//! # why it is here
//! POST /api/v1/namespaces/default/configmaps?fieldManager=me
//! Accept: application/json
//! @keep uid /metadata/uid
//!
//! {"metadata": {"name": "${earlier}"}}
//! --- 201
//! content-type: application/json
//!
//! {"kind": "ConfigMap", …}
//! --- here 200: why the embedded server answers otherwise, and with what
//! …
//! ```
//!
//! `@keep NAME POINTER` remembers a part of the answer for `${NAME}`; `@only POINTER…` compares
//! those parts alone; `@until CODE` asks again until that is answered; `@anonymous` sends no
//! credentials; `@pad N` makes the body N bytes long.

use std::fmt::Write as _;

use serde_json::Value;

/// A line of JSON may be so long before it is broken.
const WIDTH: usize = 100;

pub(crate) struct Case {
    pub(crate) title: String,
    /// The lines up to the answers, as they were written.
    head: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) keep: Vec<(String, String)>,
    pub(crate) only: Vec<String>,
    pub(crate) until: Option<u16>,
    pub(crate) anonymous: bool,
    pub(crate) pad: usize,
    pub(crate) recorded: Option<Answer>,
    /// What the embedded server answers where that is not what was recorded, and why.
    pub(crate) here: Option<(String, Answer)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    /// One value, or one for each event of a watch.
    Json(Vec<Value>),
    Text(String),
}

/// The prose before the first case, and the cases.
pub(crate) fn parse(text: &str) -> (String, Vec<Case>) {
    let mut pieces = text.split("\n=== ");
    let preface = pieces.next().unwrap_or_default().to_owned();
    (preface, pieces.map(parse_case).collect())
}

pub(crate) fn print(preface: &str, cases: &[Case]) -> String {
    let mut text = preface.to_owned();
    for case in cases {
        text.push_str("\n=== ");
        text.push_str(&case.head);
        if let Some(answer) = &case.recorded {
            let _ = writeln!(text, "--- {}", answer.code);
            text.push_str(&print_answer(answer));
        }
        if let Some((why, answer)) = &case.here {
            let _ = writeln!(text, "--- here {}: {why}", answer.code);
            text.push_str(&print_answer(answer));
        }
    }
    text
}

fn parse_case(text: &str) -> Case {
    let mut parts = text.split("\n--- ");
    let head = format!("{}\n", parts.next().unwrap_or_default().trim_end());
    let mut case = parse_head(head);
    for part in parts {
        let (first, rest) = part.split_once('\n').unwrap_or((part, ""));
        match first.strip_prefix("here ") {
            None => case.recorded = Some(parse_answer(first, rest)),
            Some(first) => {
                let (code, why) = first
                    .split_once(": ")
                    .unwrap_or_else(|| panic!("{}: say why it differs here", case.title));
                case.here = Some((why.to_owned(), parse_answer(code, rest)));
            }
        }
    }
    case
}

fn parse_head(head: String) -> Case {
    let (top, body) = head.split_once("\n\n").unwrap_or((&head, ""));
    let mut lines = top.lines();
    let title = lines.next().unwrap_or_default().to_owned();
    let mut case = Case {
        title,
        method: String::new(),
        path: String::new(),
        headers: Vec::new(),
        body: body.trim_end().to_owned(),
        keep: Vec::new(),
        only: Vec::new(),
        until: None,
        anonymous: false,
        pad: 0,
        recorded: None,
        here: None,
        head: String::new(),
    };
    for line in lines.filter(|line| !line.starts_with('#')) {
        if let Some(directive) = line.strip_prefix('@') {
            direct(&mut case, directive);
        } else if case.method.is_empty() {
            let (method, path) = line.split_once(' ').expect("METHOD PATH");
            (case.method, case.path) = (method.to_owned(), path.to_owned());
        } else {
            let (name, value) = line.split_once(": ").expect("Header: value");
            case.headers.push((name.to_owned(), value.to_owned()));
        }
    }
    case.head = head;
    case
}

fn direct(case: &mut Case, directive: &str) {
    let words: Vec<String> = directive.split(' ').map(str::to_owned).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["keep", name, pointer] => case.keep.push(((*name).to_owned(), (*pointer).to_owned())),
        ["only", ..] => case.only = words[1..].to_vec(),
        ["until", code] => case.until = Some(code.parse().expect("a code")),
        ["anonymous"] => case.anonymous = true,
        ["pad", bytes] => case.pad = bytes.parse().expect("a number of bytes"),
        _ => panic!("{}: no such directive: @{directive}", case.title),
    }
}

fn parse_answer(code: &str, rest: &str) -> Answer {
    let (headers, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").expect("header: value");
        (name.to_owned(), value.to_owned())
    };
    Answer {
        code: code.trim().parse().expect("a code"),
        headers: headers.lines().filter(|line| !line.is_empty()).map(header).collect(),
        body: content(body),
    }
}

/// JSON where it is JSON, else text.
pub(crate) fn content(body: &str) -> Content {
    let values = serde_json::Deserializer::from_str(body).into_iter::<Value>();
    match values.collect::<Result<Vec<Value>, _>>() {
        Ok(values) if body.trim_start().starts_with(['{', '[']) => Content::Json(values),
        _ => Content::Text(body.trim_end().to_owned()),
    }
}

fn print_answer(answer: &Answer) -> String {
    let mut text = String::new();
    for (name, value) in &answer.headers {
        let _ = writeln!(text, "{name}: {value}");
    }
    text.push('\n');
    match &answer.body {
        Content::Text(body) if body.is_empty() => {}
        Content::Text(body) => {
            let _ = writeln!(text, "{body}");
        }
        Content::Json(values) => {
            for value in values {
                print_json(value, 0, &mut text);
                text.push('\n');
            }
        }
    }
    text
}

/// JSON with sorted keys, broken only where it would be too wide.
fn print_json(value: &Value, indent: usize, text: &mut String) {
    let sorted = sorted(value);
    let flat = sorted.to_string();
    if indent + flat.len() <= WIDTH {
        text.push_str(&flat);
        return;
    }
    let pad = " ".repeat(indent + 2);
    let end = " ".repeat(indent);
    let comma = |index: usize, count: usize| if index + 1 < count { ",\n" } else { "\n" };
    match &sorted {
        Value::Object(fields) if !fields.is_empty() => {
            text.push_str("{\n");
            for (index, (name, field)) in fields.iter().enumerate() {
                let _ = write!(text, "{pad}{}: ", Value::from(name.as_str()));
                print_json(field, indent + 2, text);
                text.push_str(comma(index, fields.len()));
            }
            let _ = write!(text, "{end}}}");
        }
        Value::Array(items) if !items.is_empty() => {
            text.push_str("[\n");
            for (index, item) in items.iter().enumerate() {
                text.push_str(&pad);
                print_json(item, indent + 2, text);
                text.push_str(comma(index, items.len()));
            }
            let _ = write!(text, "{end}]");
        }
        _ => text.push_str(&flat),
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            names.into_iter().map(|name| (name.clone(), sorted(&fields[name]))).collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}
