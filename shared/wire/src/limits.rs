//! How large a message may be, and why. A longer one ends the call that carries it.

use muster_core::content::OUTPUT_BYTES_MAX;

/// Most bytes of [`crate::v1::EnrolRequest`]: a token, a signing request and a few facts are below
/// 4 KiB; the asker has shown no certificate yet.
pub const ENROL_MESSAGE_MAX: usize = 16 << 10;

/// Most bytes of reports that an agent puts into one message, unless one report alone is larger.
pub const REPORTS_BYTES_TARGET: usize = 256 << 10;

/// Most bytes of a message of an agent: a full message of reports and one more of the largest kind
/// (1 KiB of messages twice, 16 KiB of outputs, 20 paths).
pub const FROM_AGENT_MESSAGE_MAX: usize = 512 << 10;

/// Most bytes of a message of the hub: an assignment of 20,000 orders, with the longest names that
/// Kubernetes allows, stays below.
pub const FROM_HUB_MESSAGE_MAX: usize = 32 << 20;

/// Bytes of content in one message: large enough that its framing costs nothing, small enough that
/// pulses get through between two of them on a slow line.
pub const CONTENT_CHUNK: usize = 64 << 10;

/// Most bytes of compressed content: what zstd makes of incompressible input of the largest size
/// (its bound is the size, 1/256 of it, and a little).
pub const CONTENT_BYTES_MAX: usize = CONTENT_DECODED_MAX + (CONTENT_DECODED_MAX >> 8) + 1024;

/// Most bytes of content before compression: the files, and their paths and lengths.
pub const CONTENT_DECODED_MAX: usize = OUTPUT_BYTES_MAX + (12 << 20);

/// Most facts of one kind that an agent may tell.
pub const APPLIERS_MAX: usize = 16;

/// Longest text among the facts, in bytes: what a host name may be.
pub const FACT_LEN_MAX: usize = 253;
