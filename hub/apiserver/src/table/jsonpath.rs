//! The part of kubectl's JSONPath that printer columns use.
//!
//! `.a.b`, `['a.b']`, `["a"]`, `[0]`, `[-1]`, `[1:3]`, `[*]`, `.*`, `..name` and filters
//! `[?(@.type=="Ready")]` with `==`, `!=`, `<`, `<=`, `>`, `>=` or mere existence; braces around
//! the path and a leading `$` are allowed.

use serde_json::Value;

/// Longest path that is parsed, in bytes.
const MAX_LENGTH: usize = 4096;

/// Most values that one path may find at each of its steps.
const MAX_FOUND: usize = 10_000;

/// Most values that one path may look at, so that `..a..a..a` or filters in filters cannot keep a
/// table waiting; what would be found after them is not found.
const MAX_VISITS: usize = 1_000_000;

/// Deepest nesting of filters.
const MAX_NESTING: usize = 16;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Descend(String),
    All,
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Filter(Vec<Step>, Option<(Comparison, Operand)>),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Literal(Value),
    Path(Vec<Step>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Path {
    /// `None` if the text is not a path of the subset above.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LENGTH {
            return None;
        }
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let rest = text.strip_prefix('$').unwrap_or(text);
        let mut parser = Parser { rest, nesting: 0 };
        let steps = parser.steps()?;
        parser.rest.is_empty().then_some(Self(steps))
    }

    /// The names of the fields that it begins with: it looks at nothing beside them.
    pub(super) fn leading_fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map_while(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// All values at the path, in order.
    pub(crate) fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        walk(&self.0, object, &mut { MAX_VISITS })
    }
}

/// `visits` counts down what may still be looked at.
fn walk<'a>(steps: &[Step], object: &'a Value, visits: &mut usize) -> Vec<&'a Value> {
    let mut found = vec![object];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            follow(step, value, &mut next, visits);
        }
        next.truncate(MAX_FOUND);
        found = next;
    }
    found
}

fn follow<'a>(step: &Step, value: &'a Value, out: &mut Vec<&'a Value>, visits: &mut usize) {
    if !visit(visits) {
        return;
    }
    match step {
        Step::Field(name) => out.extend(value.get(name)),
        Step::Descend(name) => descend(name, value, out, visits),
        Step::All => match value {
            Value::Object(map) => out.extend(map.values()),
            Value::Array(items) => out.extend(items),
            _ => {}
        },
        Step::Index(at) => {
            let Value::Array(items) = value else { return };
            out.extend(position(*at, items.len()).and_then(|at| items.get(at)));
        }
        Step::Slice(from, to) => {
            let Value::Array(items) = value else { return };
            let bound = |at: Option<i64>, default| {
                at.map_or(default, |at| position(at, items.len()).unwrap_or(0).min(items.len()))
            };
            let (from, to) = (bound(*from, 0), bound(*to, items.len()));
            out.extend(items.get(from..to.max(from)).unwrap_or_default());
        }
        Step::Filter(path, test) => {
            let Value::Array(items) = value else { return };
            out.extend(items.iter().filter(|item| passes(path, test.as_ref(), item, visits)));
        }
    }
}

fn visit(visits: &mut usize) -> bool {
    *visits = visits.saturating_sub(1);
    *visits > 0
}

fn descend<'a>(name: &str, value: &'a Value, out: &mut Vec<&'a Value>, visits: &mut usize) {
    if out.len() >= MAX_FOUND || !visit(visits) {
        return;
    }
    match value {
        Value::Object(map) => {
            out.extend(map.get(name));
            map.values().for_each(|value| descend(name, value, out, visits));
        }
        Value::Array(items) => items.iter().for_each(|item| descend(name, item, out, visits)),
        _ => {}
    }
}

fn position(at: i64, length: usize) -> Option<usize> {
    match at < 0 {
        true => length.checked_sub(usize::try_from(at.unsigned_abs()).ok()?),
        false => usize::try_from(at).ok(),
    }
}

fn passes(
    path: &[Step],
    test: Option<&(Comparison, Operand)>,
    item: &Value,
    visits: &mut usize,
) -> bool {
    let found = walk(path, item, visits);
    let Some((comparison, operand)) = test else { return !found.is_empty() };
    let Some(left) = found.first() else { return false };
    let right = match operand {
        Operand::Literal(value) => value,
        Operand::Path(path) => match walk(path, item, visits).first() {
            Some(value) => *value,
            None => return false,
        },
    };
    let order = match (left, right) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => None,
        },
    };
    let equal = left == &right || order.is_some_and(std::cmp::Ordering::is_eq);
    match comparison {
        Comparison::Equal => equal,
        Comparison::NotEqual => !equal,
        Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Comparison::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Comparison::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

struct Parser<'a> {
    rest: &'a str,
    /// Filters around the place that is read.
    nesting: usize,
}

impl<'a> Parser<'a> {
    fn steps(&mut self) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            if self.take("..") {
                steps.push(Step::Descend(self.name()?));
            } else if self.take(".") {
                if self.take("*") {
                    steps.push(Step::All);
                } else if self.rest.is_empty() && steps.is_empty() {
                    // The object itself.
                    return Some(steps);
                } else if !self.rest.starts_with('[') {
                    steps.push(Step::Field(self.name()?));
                }
            } else if self.take("[") {
                steps.push(self.bracket()?);
            } else {
                return Some(steps);
            }
        }
    }

    fn bracket(&mut self) -> Option<Step> {
        let step = if self.take("?(") {
            self.nesting += 1;
            (self.nesting <= MAX_NESTING).then_some(())?;
            let step = self.filter()?;
            self.nesting -= 1;
            self.take(")").then_some(step)?
        } else if self.take("*") {
            Step::All
        } else if self.rest.starts_with(['\'', '"']) {
            Step::Field(self.quoted()?)
        } else {
            self.index()?
        };
        self.take("]").then_some(step)
    }

    fn index(&mut self) -> Option<Step> {
        let end = self.rest.find(']')?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let number = |text: &str| match text.trim() {
            "" => Some(None),
            text => text.parse::<i64>().ok().map(Some),
        };
        match text.split_once(':') {
            None => Some(Step::Index(number(text)??)),
            Some((from, to)) => Some(Step::Slice(number(from)?, number(to)?)),
        }
    }

    fn filter(&mut self) -> Option<Step> {
        self.blanks();
        self.take("@").then_some(())?;
        let path = self.steps()?;
        self.blanks();
        if self.rest.starts_with(')') {
            return Some(Step::Filter(path, None));
        }
        const COMPARISONS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let (_, comparison) = COMPARISONS.into_iter().find(|(text, _)| self.take(text))?;
        self.blanks();
        let operand = if self.take("@") {
            Operand::Path(self.steps()?)
        } else if self.rest.starts_with(['\'', '"']) {
            Operand::Literal(Value::String(self.quoted()?))
        } else {
            let end = self.rest.find(')')?;
            let (text, rest) = self.rest.split_at(end);
            self.rest = rest;
            Operand::Literal(serde_json::from_str(text.trim()).ok()?)
        };
        self.blanks();
        Some(Step::Filter(path, Some((comparison, operand))))
    }

    /// A field name; a backslash lets dots be part of it.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let end = loop {
            match chars.next() {
                None => break self.rest.len(),
                Some((_, '\\')) => name.push(chars.next()?.1),
                Some((at, '.' | '[' | ']' | '(' | ')' | '=' | '!' | '<' | '>' | ' ' | ',')) => {
                    break at;
                }
                Some((_, c)) => name.push(c),
            }
        };
        self.rest = &self.rest[end..];
        (!name.is_empty()).then_some(name)
    }

    fn quoted(&mut self) -> Option<String> {
        let quote = self.rest.chars().next()?;
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        loop {
            match chars.next()? {
                (_, '\\') => text.push(chars.next()?.1),
                (at, c) if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Some(text);
                }
                (_, c) => text.push(c),
            }
        }
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, text: &str) -> bool {
        let rest: Option<&'a str> = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_what_kubectl_finds() {
        let object = json!({
            "a": {"b": 1, "x.y/z": "dotted"}, "l": [10, 20, 30],
            "c": [{"type": "Ready", "status": "True", "n": 2}, {"type": "Other", "status": "False", "n": 5}]});
        let cases = [
            (".a.b", json!([1])),
            ("{.a.b}", json!([1])),
            ("$.a.b", json!([1])),
            (r".a.x\.y/z", json!(["dotted"])),
            (".a['x.y/z']", json!(["dotted"])),
            (".l[0]", json!([10])),
            (".l[-1]", json!([30])),
            (".l[1:]", json!([20, 30])),
            (".l[:-1]", json!([10, 20])),
            (".l[*]", json!([10, 20, 30])),
            (".l[7]", json!([])),
            (r#".c[?(@.type=="Ready")].status"#, json!(["True"])),
            (".c[?(@.type == 'Other')].status", json!(["False"])),
            (".c[?(@.n>2)].type", json!(["Other"])),
            (".c[?(@.type!='Ready')].type", json!(["Other"])),
            (".c[?(@.missing)].type", json!([])),
            (".c[*].type", json!(["Ready", "Other"])),
            ("..status", json!(["True", "False"])),
            (".missing.deep", json!([])),
        ];
        for (path, expected) in cases {
            let parsed = Path::parse(path).unwrap_or_else(|| panic!("{path} is a path"));
            assert_eq!(json!(parsed.find(&object)), expected, "{path}");
        }
    }

    #[test]
    fn has_limits() {
        let nested = |depth: usize| "[?(@".repeat(depth) + &")]".repeat(depth);
        assert!(Path::parse(&nested(MAX_NESTING)).is_some());
        assert!(Path::parse(&nested(MAX_NESTING + 1)).is_none());
        // Every step would look at all of the rest again, from each of a hundred places.
        let mut tree = json!({});
        for _ in 0..100 {
            tree = json!({"a": tree, "b": vec![0; 1000]});
        }
        let path = Path::parse(&"..a".repeat(1000)).unwrap();
        assert!(path.find(&tree).is_empty());
    }

    #[test]
    fn refuses_other_text() {
        for text in ["a", ".a[", ".a[?(@.b==)]", ".a[x]", ".a..", ".a[?(b)]", ".a]"] {
            assert_eq!(Path::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[.\\[\\]?(@=a'\"*0:{}$\\\\ -]{0,16}") {
            if let Some(path) = Path::parse(&text) {
                let _ = path.find(&json!({"a": [{"a": 1}, [2]]}));
            }
        }
    }
}
