//! Label and field selectors of list, watch and deletecollection requests.
//!
//! The label grammar and its error texts follow `k8s.io/apimachinery/pkg/labels`.

mod lexer;
mod names;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::field::{FieldError, summary};
use lexer::{Lexer, Token};

pub(crate) use names::{check_label_key, check_label_value};

/// Longest selector that is parsed, in bytes: an URL of a request is no longer than this.
const MAX_SELECTOR: usize = 64 * 1024;

/// A text that is not a selector; the message is shown to the user as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SelectorError(String);

/// A parsed label selector: all requirements must hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

impl Labels {
    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`; the empty text selects everything.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        check_length(text)?;
        let mut parser = Parser { tokens: Lexer::new(text).collect(), position: 0 };
        Ok(Self(parser.selector()?))
    }

    /// Whether nothing is asked for, so that every object matches.
    pub(crate) fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the object's `metadata.labels` satisfy every requirement.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.get("metadata").and_then(|m| m.get("labels"));
        self.matches_with(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str))
    }

    /// As [`Self::matches`], over any lookup of a label's value.
    pub(crate) fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| {
            let value = label(&requirement.key);
            match (&requirement.test, value) {
                (Test::In(values), Some(value)) => values.iter().any(|v| v == value),
                (Test::NotIn(values), Some(value)) => values.iter().all(|v| v != value),
                (Test::NotIn(_) | Test::Absent, None) | (Test::Exists, Some(_)) => true,
                (Test::Above(than), Some(value)) => value.parse::<i64>().is_ok_and(|v| v > *than),
                (Test::Below(than), Some(value)) => value.parse::<i64>().is_ok_and(|v| v < *than),
                (Test::In(_) | Test::Exists | Test::Above(_) | Test::Below(_), None)
                | (Test::Absent, Some(_)) => false,
            }
        })
    }
}

/// A parsed field selector: all terms must hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<Term>);

/// One `field=value` or `field!=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    /// Dotted path without leading dot, such as `metadata.name`.
    pub(crate) field: String,
    pub(crate) value: String,
    /// `true` for `=` and `==`, `false` for `!=`.
    pub(crate) equal: bool,
}

impl Fields {
    /// Parses `a=b,c!=d`; in values `\,`, `\=` and `\\` stand for the characters themselves.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        check_length(text)?;
        let mut terms = Vec::new();
        for part in split_terms(text).into_iter().filter(|part| !part.is_empty()) {
            let (field, equal, value) = split_term(part).ok_or_else(|| {
                SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'"))
            })?;
            terms.push(Term { field: field.to_owned(), value: unescape(value)?, equal });
        }
        Ok(Self(terms))
    }

    /// Whether every object matches.
    pub(crate) fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The terms, so that the caller can refuse fields that its kind does not offer.
    pub(crate) fn terms(&self) -> &[Term] {
        &self.0
    }

    /// The value that `field` must have, if the selector pins it with `=`.
    pub(crate) fn required(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    /// An error for the first field that is not in `offered`; `metadata.name` and
    /// `metadata.namespace` always are. A built-in kind that offers no more says so.
    pub(crate) fn check<S: AsRef<str>>(
        &self,
        offered: &[S],
        custom: bool,
    ) -> Result<(), SelectorError> {
        let known = |field: &str| {
            matches!(field, "metadata.name" | "metadata.namespace")
                || offered.iter().any(|o| o.as_ref() == field)
        };
        match self.0.iter().find(|term| !known(&term.field)) {
            None => Ok(()),
            Some(Term { field, .. }) if offered.is_empty() && !custom => {
                Err(SelectorError(format!(
                    "{field:?} is not a known field selector: only \"metadata.name\", \
                     \"metadata.namespace\""
                )))
            }
            Some(Term { field, .. }) => {
                Err(SelectorError(format!("field label not supported: {field}")))
            }
        }
    }

    /// Whether the object satisfies every term. A missing field counts as the empty text,
    /// scalars as their JSON text.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|term| (field_text(object, &term.field) == term.value) == term.equal)
    }
}

fn check_length(text: &str) -> Result<(), SelectorError> {
    match text.len() > MAX_SELECTOR {
        true => Err(SelectorError(format!("selector is longer than {MAX_SELECTOR} bytes"))),
        false => Ok(()),
    }
}

fn field_text(object: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(object, |value, name| value.get(name));
    match found {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    // The two-character operators first, so that `==` does not leave a `=` in the value.
    const OPERATORS: [(&str, bool); 3] = [("!=", false), ("==", true), ("=", true)];
    term.char_indices().find_map(|(at, _)| {
        OPERATORS.iter().find_map(|(operator, equal)| {
            let value = term[at..].strip_prefix(operator)?;
            Some((&term[..at], *equal, value))
        })
    })
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => escaped,
                other => {
                    let sequence = format!("\\{}", other.map(String::from).unwrap_or_default());
                    let text =
                        format!("invalid field selector: invalid escape sequence: {sequence}");
                    return Err(SelectorError(text));
                }
            },
            ',' | '=' => {
                let text = format!("invalid field selector: unescaped character in value: {c}");
                return Err(SelectorError(text));
            }
            c => c,
        };
        out.push(c);
    }
    Ok(out)
}

/// Recursive descent over the tokens of a label selector.
struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    position: usize,
}

impl<'a> Parser<'a> {
    fn selector(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::In | Token::NotIn | Token::Not, _) => {}
                (Token::End, _) => return Ok(requirements),
                (_, text) => return found(text, "!, identifier, or 'end of string'"),
            }
            let requirement = self
                .requirement()
                .map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
            requirements.push(requirement);
            match self.next() {
                (Token::End, _) => return Ok(requirements),
                (Token::Comma, _) => match self.peek() {
                    (Token::Identifier | Token::In | Token::NotIn | Token::Not, _) => {}
                    (_, text) => return found(text, "identifier after ','"),
                },
                (_, text) => return found(text, "',' or 'end of string'"),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut token = self.next();
        let negated = token.0 == Token::Not;
        if negated {
            token = self.next();
        }
        let key = match token {
            (Token::Identifier | Token::In | Token::NotIn, text) => text.to_owned(),
            (_, text) => return found(text, "identifier"),
        };
        let errors = check_label_key(&key);
        if !errors.is_empty() {
            return invalid("", &key, &errors);
        }
        let ends = matches!(self.peek().0, Token::End | Token::Comma);
        let test = match (negated, ends) {
            (true, _) => Test::Absent,
            (false, true) => Test::Exists,
            (false, false) => self.test(&key)?,
        };
        Ok(Requirement { key, test })
    }

    fn test(&mut self, key: &str) -> Result<Test, SelectorError> {
        let (token, text) = self.next();
        match token {
            Token::In | Token::NotIn => {
                let values = self.values()?;
                check_values(key, &values)?;
                Ok(if token == Token::In { Test::In(values) } else { Test::NotIn(values) })
            }
            Token::Equal | Token::NotEqual => {
                let values = vec![self.exact_value()?];
                check_values(key, &values)?;
                Ok(if token == Token::Equal { Test::In(values) } else { Test::NotIn(values) })
            }
            Token::Above | Token::Below => {
                let value = self.exact_value()?;
                let Ok(number) = value.parse() else {
                    let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                    return invalid("values[0]", &value, &[detail.to_owned()]);
                };
                Ok(if token == Token::Above { Test::Above(number) } else { Test::Below(number) })
            }
            _ => found(text, "in, notin, =, ==, !=, gt, lt"),
        }
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            (Token::End | Token::Comma, _) => Ok(String::new()),
            (Token::Identifier | Token::In | Token::NotIn, text) => {
                self.position += 1;
                Ok(text.to_owned())
            }
            (_, text) => found(text, "identifier"),
        }
    }

    /// `(a,b)`; an empty place between commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            (Token::Open, _) => {}
            (_, text) => return Err(SelectorError(format!("found '{text}' expected: '('"))),
        }
        let mut values = Vec::new();
        loop {
            let value = match self.peek() {
                (Token::Identifier | Token::In | Token::NotIn, text) => {
                    self.position += 1;
                    text
                }
                (Token::Comma | Token::Close, _) => "",
                (_, text) => return found(text, "',', ')' or identifier"),
            };
            if !values.iter().any(|v| v == value) {
                values.push(value.to_owned());
            }
            match self.next() {
                (Token::Close, _) => return Ok(values),
                (Token::Comma, _) => {}
                (_, text) => return found(text, "',' or ')'"),
            }
        }
    }

    fn peek(&self) -> (Token, &'a str) {
        self.tokens.get(self.position).copied().unwrap_or((Token::End, ""))
    }

    fn next(&mut self) -> (Token, &'a str) {
        let token = self.peek();
        self.position += 1;
        token
    }
}

fn found<T>(text: &str, expected: &str) -> Result<T, SelectorError> {
    Err(SelectorError(format!("found '{text}', expected: {expected}")))
}

fn check_values(key: &str, values: &[String]) -> Result<(), SelectorError> {
    for (at, value) in values.iter().enumerate() {
        let errors = check_label_value(value);
        if !errors.is_empty() {
            return invalid(&format!("values[{at}][{key}]"), value, &errors);
        }
    }
    Ok(())
}

fn invalid<T>(field: &str, value: &str, errors: &[String]) -> Result<T, SelectorError> {
    let error = FieldError::invalid(field, &Value::from(value), &errors.join("; "));
    Err(SelectorError(summary(&[error])))
}
