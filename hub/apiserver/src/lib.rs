//! (to be written)

pub(crate) mod field;
pub(crate) mod json;
pub(crate) mod schema;
pub(crate) mod selector;
