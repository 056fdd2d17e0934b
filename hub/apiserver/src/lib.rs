//! (to be written)

pub(crate) mod discovery;
pub(crate) mod field;
pub(crate) mod json;
pub(crate) mod openapi;
pub(crate) mod patch;
pub(crate) mod proto;
pub(crate) mod schema;
pub(crate) mod selector;
pub(crate) mod ssa;
pub(crate) mod table;
