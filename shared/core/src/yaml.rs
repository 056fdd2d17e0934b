//! YAML as Go's `sigs.k8s.io/yaml` writes it, because people compare it byte by byte.
//!
//! kubectl, Kratix and Flux all print with that library (goyaml.v2 1.4 beneath), so the files of a
//! Work, `object.yaml` in a pipeline and `-o yaml` come out the same here: keys in its natural
//! order, sequences not indented below their key, its quoting, its folding after column 80. The
//! writer follows its emitter state for state; `fixtures/yaml` holds what the Go program really
//! wrote, and a test compares every case.

mod order;
mod scalar;
#[cfg(test)]
mod tests;

use serde_json::{Map, Number, Value};

use scalar::Style;

/// Columns after which a line is folded at its next single space.
const WIDTH: usize = 80;
/// Longest key, in bytes, that is written without the `?` indicator.
const SIMPLE_KEY_MAX: usize = 128;

/// The value as one YAML document, with a newline at its end.
#[must_use]
pub fn to_yaml(value: &Value) -> String {
    let mut writer = Writer::new();
    writer.node(value, Place::Root);
    writer.indent = 0;
    writer.start_line();
    writer.out
}

/// Where a node stands; decides how a sequence is indented and whether a scalar may break.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Item,
    Key,
    Field,
}

struct Writer {
    out: String,
    column: usize,
    /// -1 before the first collection, as in libyaml.
    indent: isize,
    /// The last thing written was a space or an indicator that counts as one.
    whitespace: bool,
    /// The line holds nothing but indentation so far.
    indention: bool,
}

impl Writer {
    fn new() -> Self {
        Self { out: String::new(), column: 0, indent: -1, whitespace: true, indention: true }
    }

    fn node(&mut self, value: &Value, place: Place) {
        match value {
            Value::Object(map) if !map.is_empty() => self.mapping(map),
            Value::Array(items) if !items.is_empty() => self.sequence(items, place),
            Value::Object(_) => self.indicator("{}", true, false, false),
            Value::Array(_) => self.indicator("[]", true, false, false),
            Value::String(text) => self.scalar(text, scalar::style(text), place),
            Value::Number(number) => self.scalar(&number_text(number), Style::Plain, place),
            Value::Bool(true) => self.scalar("true", Style::Plain, place),
            Value::Bool(false) => self.scalar("false", Style::Plain, place),
            Value::Null => self.scalar("null", Style::Plain, place),
        }
    }

    fn mapping(&mut self, map: &Map<String, Value>) {
        let outer = self.indent;
        self.indent = if outer < 0 { 0 } else { outer + 2 };
        for key in order::sorted(map.keys().map(String::as_str)) {
            self.start_line();
            let simple = key.len() <= SIMPLE_KEY_MAX && !scalar::has_breaks(key);
            if simple {
                self.scalar(key, scalar::style(key), Place::Key);
                self.indicator(":", false, false, false);
            } else {
                self.indicator("?", true, false, true);
                self.scalar(key, scalar::style(key), Place::Field);
                self.start_line();
                self.indicator(":", true, false, true);
            }
            self.node(&map[key], Place::Field);
        }
        self.indent = outer;
    }

    fn sequence(&mut self, items: &[Value], place: Place) {
        let outer = self.indent;
        let below_its_key = place == Place::Field && !self.indention;
        if outer < 0 {
            self.indent = 0;
        } else if !below_its_key {
            self.indent += 2;
        }
        for item in items {
            self.start_line();
            self.indicator("-", true, false, true);
            self.node(item, Place::Item);
        }
        self.indent = outer;
    }

    fn scalar(&mut self, text: &str, wanted: Style, place: Place) {
        let outer = self.indent;
        self.indent = if outer < 0 { 2 } else { outer + 2 };
        let key = place == Place::Key;
        match scalar::allowed(text, wanted, key) {
            Style::Plain => self.plain(text, !key),
            Style::Single => self.single_quoted(text, !key),
            Style::Double => self.double_quoted(text, !key),
            Style::Literal => self.literal(text),
        }
        self.indent = outer;
    }

    fn plain(&mut self, text: &str, may_fold: bool) {
        if !self.whitespace {
            self.put(' ');
        }
        self.flowing(text, may_fold, |_| true, Self::put);
        self.whitespace = false;
        self.indention = false;
    }

    fn single_quoted(&mut self, text: &str, may_fold: bool) {
        self.indicator("'", true, false, false);
        let last = text.len().saturating_sub(1);
        self.flowing(
            text,
            may_fold,
            |at| at > 0 && at < last,
            |writer, c| {
                if c == '\'' {
                    writer.put('\'');
                }
                writer.put(c);
            },
        );
        self.indicator("'", false, false, false);
    }

    /// The loop that plain and single-quoted scalars share: fold at single spaces, keep breaks.
    fn flowing(
        &mut self,
        text: &str,
        may_fold: bool,
        inside: impl Fn(usize) -> bool,
        mut write: impl FnMut(&mut Self, char),
    ) {
        let (mut spaces, mut breaks) = (false, false);
        for (at, c) in text.char_indices() {
            if c == ' ' {
                let single = !spaces && !text[at + 1..].starts_with(' ');
                if may_fold && single && self.column > WIDTH && inside(at) {
                    self.start_line();
                } else {
                    self.put(c);
                }
                spaces = true;
            } else if scalar::is_break(c) {
                if !breaks && c == '\n' {
                    self.put_break();
                }
                self.copy_break(c);
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.start_line();
                }
                write(self, c);
                self.indention = false;
                (spaces, breaks) = (false, false);
            }
        }
    }

    fn double_quoted(&mut self, text: &str, may_fold: bool) {
        self.indicator("\"", true, false, false);
        // The Go library looks for a byte order mark at the start of the text at every character.
        let marked = text.starts_with('\u{feff}');
        let last = text.len().saturating_sub(1);
        let mut spaces = false;
        for (at, c) in text.char_indices() {
            if marked || scalar::needs_escape(c) {
                for escaped in scalar::escape(c).chars() {
                    self.put(escaped);
                }
                spaces = false;
            } else if c == ' ' {
                if may_fold && !spaces && self.column > WIDTH && at > 0 && at < last {
                    self.start_line();
                    if text[at + 1..].starts_with(' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(c);
                }
                spaces = true;
            } else {
                self.put(c);
                spaces = false;
            }
        }
        self.indicator("\"", false, false, false);
    }

    fn literal(&mut self, text: &str) {
        self.indicator("|", true, false, false);
        if text.starts_with(|c| c == ' ' || scalar::is_break(c)) {
            self.indicator("2", false, false, false);
        }
        let mut from_end = text.chars().rev();
        if !from_end.next().is_some_and(scalar::is_break) {
            self.indicator("-", false, false, false);
        } else if from_end.next().is_none_or(scalar::is_break) {
            self.indicator("+", false, false, false);
        }
        self.put_break();
        self.indention = true;
        self.whitespace = true;
        let mut breaks = true;
        for c in text.chars() {
            if scalar::is_break(c) {
                self.copy_break(c);
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.start_line();
                }
                self.put(c);
                self.indention = false;
                breaks = false;
            }
        }
    }

    /// Moves to the indentation of the present node, on a new line unless this one is still empty.
    fn start_line(&mut self) {
        let indent = usize::try_from(self.indent).unwrap_or(0);
        if !self.indention || self.column > indent || (self.column == indent && !self.whitespace) {
            self.put_break();
        }
        while self.column < indent {
            self.put(' ');
        }
        self.whitespace = true;
        self.indention = true;
    }

    fn indicator(&mut self, text: &str, spaced: bool, is_space: bool, is_indention: bool) {
        if spaced && !self.whitespace {
            self.put(' ');
        }
        self.out.push_str(text);
        self.column += text.len();
        self.whitespace = is_space;
        self.indention = self.indention && is_indention;
    }

    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn put_break(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    fn copy_break(&mut self, c: char) {
        self.out.push(c);
        self.column = 0;
    }
}

/// A number as Go prints it after its way through JSON: a whole float is an integer, the rest has
/// the shortest digits (`%g`).
fn number_text(number: &Number) -> String {
    if number.is_i64() || number.is_u64() {
        return number.to_string();
    }
    let float = number.as_f64().unwrap_or_default();
    // Go writes JSON floats below 1e21 without exponent, and then reads those that fit as integers.
    if float.fract() == 0.0 && float.abs() < 1e21 {
        let whole = float as i128;
        if i64::try_from(whole).is_ok() || u64::try_from(whole).is_ok() {
            return whole.to_string();
        }
    }
    // `{:e}` gives the shortest digits: `1.2345675e6`.
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return format!("{float}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
