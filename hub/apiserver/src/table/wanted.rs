//! Reads of an object no more than a table's columns look at: to make values of all the rest would
//! take most of the time of a long table.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize as _, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{Cell, Column};

/// The part of an object that is looked at.
#[derive(Debug)]
pub(crate) enum Wanted {
    Everything,
    /// These fields, and of each this part. What is no object there counts as null.
    Fields(BTreeMap<String, Wanted>),
}

impl Wanted {
    /// What these columns look at.
    pub(crate) fn by(columns: &[Column]) -> Wanted {
        let mut wanted = Wanted::Fields(BTreeMap::new());
        for column in columns {
            match &column.cell {
                Cell::Computed(_) => return Wanted::Everything,
                Cell::Path(Some(path)) => wanted.add(path.leading_fields()),
                Cell::Path(None) => {}
            }
        }
        wanted
    }

    fn add<'p>(&mut self, mut path: impl Iterator<Item = &'p str>) {
        let Wanted::Fields(fields) = self else { return };
        match path.next() {
            None => *self = Wanted::Everything,
            Some(name) => {
                let nothing = || Wanted::Fields(BTreeMap::new());
                fields.entry(name.to_owned()).or_insert_with(nothing).add(path);
            }
        }
    }

    /// Reads that part of an object's JSON.
    pub(crate) fn read(&self, object: &[u8]) -> Value {
        self.deserialize(&mut serde_json::Deserializer::from_slice(object)).unwrap_or_default()
    }
}

impl<'de> DeserializeSeed<'de> for &Wanted {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Wanted::Everything => Value::deserialize(deserializer),
            Wanted::Fields(fields) => deserializer.deserialize_any(Fields(fields)),
        }
    }
}

struct Fields<'w>(&'w BTreeMap<String, Wanted>);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            match self.0.get(&name) {
                Some(wanted) => {
                    object.insert(name, map.next_value_seed(wanted)?);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}
