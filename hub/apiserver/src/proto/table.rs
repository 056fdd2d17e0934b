//! The messages of the built-in kinds, from the embedded table.

use std::{collections::BTreeMap, sync::LazyLock};

/// Made by `data/make-messages.py`, which says what the lines mean; see `data/NOTICE`.
const TEXT: &str = include_str!("../../data/messages.txt");

/// One message: its fields by number.
#[derive(Debug, Default)]
pub(super) struct Message(BTreeMap<u32, Field>);

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.0.get(&number)
    }
}

/// One field of a message.
#[derive(Debug)]
pub(super) struct Field {
    /// Its name in JSON.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
}

impl Field {
    /// Whether the fields of the message are fields of the object that holds it.
    pub(super) fn is_inline(&self) -> bool {
        self.name == "-"
    }
}

/// How often a value occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Once; its zero is the same as its absence.
    Single,
    /// Once; its zero is a value.
    Pointer,
    List,
    /// By text.
    Map,
}

/// What a value is in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Int,
    Bool,
    /// base64.
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON in bytes.
    Raw,
    /// A message around a list of texts.
    Items,
    /// Index of a message.
    Message(usize),
}

struct Table {
    messages: Vec<Message>,
    /// Message of (apiVersion, kind); apiVersion `*` is any.
    roots: BTreeMap<(&'static str, &'static str), usize>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| read(TEXT));

/// The message of a kind.
pub(super) fn root(api_version: &str, kind: &str) -> Option<&'static Message> {
    let find = |version| TABLE.roots.get(&(version, kind));
    find(api_version).or_else(|| find("*")).map(|index| message(*index))
}

/// The message of an index in [`Kind::Message`].
pub(super) fn message(index: usize) -> &'static Message {
    &TABLE.messages[index]
}

/// Lines that are not understood are left out; a test reads every line.
fn read(text: &'static str) -> Table {
    let words = || text.lines().map(|line| line.split(' ').collect::<Vec<&str>>());
    let indices: BTreeMap<&str, usize> = words()
        .filter_map(|line| if let [name] = *line { Some(name) } else { None })
        .enumerate()
        .map(|(index, name)| (name, index))
        .collect();
    let mut table = Table { messages: Vec::new(), roots: BTreeMap::new() };
    for line in words() {
        match *line {
            ["=", version, kind, message] => {
                let index = indices.get(message);
                table.roots.extend(index.map(|index| ((version, kind), *index)));
            }
            [_] => table.messages.push(Message::default()),
            [number, name, kind] => {
                let field = field(name, kind, &indices);
                if let (Some(message), Ok(number), Some(field)) =
                    (table.messages.last_mut(), number.parse(), field)
                {
                    message.0.insert(number, field);
                }
            }
            _ => {}
        }
    }
    table
}

fn field(name: &str, kind: &str, indices: &BTreeMap<&str, usize>) -> Option<Field> {
    let shapes = [("*", Shape::Pointer), ("[]", Shape::List), ("{}", Shape::Map)];
    let (shape, kind) = shapes
        .into_iter()
        .find_map(|(prefix, shape)| Some((shape, kind.strip_prefix(prefix)?)))
        .unwrap_or((Shape::Single, kind));
    let kind = match kind {
        "string" => Kind::String,
        "int" => Kind::Int,
        "bool" => Kind::Bool,
        "bytes" => Kind::Bytes,
        "time" => Kind::Time,
        "microtime" => Kind::MicroTime,
        "quantity" => Kind::Quantity,
        "intorstring" => Kind::IntOrString,
        "raw" => Kind::Raw,
        "items" => Kind::Items,
        message => Kind::Message(*indices.get(message)?),
    };
    Some(Field { name: name.to_owned(), kind, shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_understood() {
        let fields: usize = TABLE.messages.iter().map(|message| message.0.len()).sum();
        let (names, roots) = (TABLE.messages.len(), TABLE.roots.len());
        assert_eq!(names + roots + fields, TEXT.lines().count());
        assert!(names > 200 && roots > 20);
    }
}
