//! What one destination must hold: a canonical document of orders.
//!
//! An assignment names content by digest and holds no bytes. A placement that is missing from it is
//! *not* an order to remove anything: removal is [`Intent::Absent`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    DestinationName, Digest, PlacementKey, Revision,
    encode::{DecodeError, Decoder, Encoder},
};

/// Most orders in one assignment; at about 200 bytes each the document stays near 4 MiB.
pub const ORDERS_MAX: usize = 20_000;

const MAGIC: &str = "muster.assignment.v1";

/// Everything that one destination is to hold, and what it is to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// For whom.
    pub destination: DestinationName,
    /// The fence: an older revision is refused.
    pub revision: Revision,
    /// By placement, so that the document has one order of its items.
    pub orders: BTreeMap<PlacementKey, Order>,
}

/// What to do about one placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Which queue it stands in.
    pub lane: Lane,
    /// Which files.
    pub digest: Digest,
    /// Whether they are to be there.
    pub intent: Intent,
    /// Where the files come from, for messages, environments and ownership; see [`option`].
    pub options: BTreeMap<String, String>,
}

/// The keys of [`Order::options`].
pub mod option {
    /// The Promise's name.
    pub const PROMISE: &str = "promise";
    /// The request's name; absent for dependencies.
    pub const RESOURCE: &str = "resource";
    /// The request's namespace; absent for dependencies.
    pub const NAMESPACE: &str = "namespace";
    /// The pipeline's name; absent for static dependencies.
    pub const PIPELINE: &str = "pipeline";
    /// The request's kind.
    pub const KIND: &str = "kind";
}

/// Independent queues: a stuck one never blocks another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// The agent itself.
    Agent,
    /// Dependencies of Promises.
    Platform,
    /// Requests.
    App,
}

/// Whether the files of an order are to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// Apply them and keep them so.
    Present,
    /// Remove what was applied, then say so.
    Absent,
}

impl Assignment {
    /// An assignment without orders.
    pub fn empty(destination: DestinationName) -> Self {
        Self { destination, revision: Revision::default(), orders: BTreeMap::new() }
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(MAGIC);
        encoder.text(self.destination.as_str());
        encoder.number(self.revision.epoch).number(self.revision.n);
        encoder.count(self.orders.len());
        for (placement, order) in &self.orders {
            encoder.text(&placement.to_string()).tag(order.lane.tag());
            encoder.bytes(order.digest.as_bytes()).tag(order.intent.tag());
            encoder.count(order.options.len());
            for (key, value) in &order.options {
                encoder.text(key).text(value);
            }
        }
        encoder.finish()
    }

    /// Reads canonical bytes; refuses any other encoding of the same assignment.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes, MAGIC)?;
        let destination =
            field("destination", DestinationName::parse(decoder.text("destination")?))?;
        let revision = Revision { epoch: decoder.number("epoch")?, n: decoder.number("n")? };
        let count = decoder.count("orders")?;
        if count > ORDERS_MAX {
            let cause = format!("{count} orders are over the limit of {ORDERS_MAX}");
            return Err(DecodeError::Field { field: "orders", cause });
        }
        let mut orders = BTreeMap::new();
        for _ in 0..count {
            let placement = field("placement", PlacementKey::parse(decoder.text("placement")?))?;
            in_order("placement", orders.last_key_value().map(|(last, _)| last), &placement)?;
            orders.insert(placement, Order::decode(&mut decoder)?);
        }
        decoder.finish()?;
        Ok(Self { destination, revision, orders })
    }

    /// The name of this document: the digest of its canonical bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }
}

impl Order {
    fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let lane = field("lane", Lane::from_tag(decoder.tag("lane")?).ok_or("is not known"))?;
        let digest = decoder.bytes("digest")?.try_into().map_err(|_| "is not 32 bytes long");
        let digest = Digest::from_bytes(field("digest", digest)?);
        let intent =
            field("intent", Intent::from_tag(decoder.tag("intent")?).ok_or("is not known"))?;
        let mut options = BTreeMap::new();
        for _ in 0..decoder.count("options")? {
            let key = decoder.text("option")?.to_owned();
            in_order("option", options.last_key_value().map(|(last, _)| last), &key)?;
            options.insert(key, decoder.text("option")?.to_owned());
        }
        Ok(Self { lane, digest, intent, options })
    }
}

impl Lane {
    fn tag(self) -> u8 {
        match self {
            Self::Agent => 0,
            Self::Platform => 1,
            Self::App => 2,
        }
    }

    fn from_tag(tag: u8) -> Option<Self> {
        [Self::Agent, Self::Platform, Self::App].into_iter().find(|lane| lane.tag() == tag)
    }
}

impl Intent {
    fn tag(self) -> u8 {
        match self {
            Self::Present => 1,
            Self::Absent => 2,
        }
    }

    fn from_tag(tag: u8) -> Option<Self> {
        [Self::Present, Self::Absent].into_iter().find(|intent| intent.tag() == tag)
    }
}

fn field<T>(field: &'static str, value: Result<T, impl ToString>) -> Result<T, DecodeError> {
    value.map_err(|cause| DecodeError::Field { field, cause: cause.to_string() })
}

fn in_order<K: Ord>(name: &'static str, last: Option<&K>, next: &K) -> Result<(), DecodeError> {
    if last.is_some_and(|last| last >= next) { field(name, Err("is out of order")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment() -> Assignment {
        let order = |intent, lane| Order {
            lane,
            digest: Digest::of(b"files"),
            intent,
            options: BTreeMap::from([(option::PROMISE.to_owned(), "web".to_owned())]),
        };
        let mut assignment = Assignment::empty(DestinationName::parse("vm-1").unwrap());
        assignment.revision = Revision { epoch: 3, n: 7 };
        let key = |name| PlacementKey::new("default", name).unwrap();
        assignment.orders.insert(key("web-1"), order(Intent::Present, Lane::App));
        assignment.orders.insert(key("web-0"), order(Intent::Absent, Lane::Platform));
        assignment
    }

    #[test]
    fn encoding_is_the_committed_one() {
        assert_eq!(
            hex::encode(assignment().encode()),
            include_str!("assignment/vector.hex").trim()
        );
    }

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let bytes = assignment().encode();
        assert_eq!(Assignment::decode(&bytes).unwrap(), assignment());
        for cut in 0..bytes.len() {
            assert!(Assignment::decode(&bytes[..cut]).is_err(), "accepted {cut} bytes");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(Assignment::decode(&longer).is_err());
    }

    #[test]
    fn any_change_changes_the_digest() {
        let mut newer = assignment();
        newer.revision.n += 1;
        assert_ne!(newer.digest(), assignment().digest());
        let mut fewer = assignment();
        fewer.orders.pop_first();
        assert_ne!(fewer.digest(), assignment().digest());
    }
}
