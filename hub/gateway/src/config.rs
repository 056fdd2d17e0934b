//! What a gateway is told, and the limits that it keeps by itself.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use muster_core::ports::{AssignmentSource, Enrolments, Presence, ReportSink};

/// Open connections in all; each costs a descriptor and some 70 kB.
pub(crate) const CONNECTIONS_MAX: usize = 20_000;
/// TLS handshakes at once: each is a millisecond of CPU, so more would only wait longer.
pub(crate) const HANDSHAKES_MAX: usize = 256;
/// A handshake over the worst line takes a few seconds.
pub(crate) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(15);
/// Connections of one agent: its session, and its next one while the last is being noticed dead.
pub(crate) const CONNECTIONS_PER_AGENT_MAX: usize = 8;
/// Calls at once on one connection: a session, a renewal, downloads.
pub(crate) const CALLS_PER_CONNECTION_MAX: u32 = 16;
/// A connection without a session has no reason to stay: an enrolment takes a second.
pub(crate) const SESSIONLESS_TIME_MAX: Duration = Duration::from_secs(30);
/// How long an agent may take to say Hello.
pub(crate) const HELLO_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a peer may leave what was sent to it untaken.
pub(crate) const SEND_TIME_MAX: Duration = Duration::from_secs(30);
/// How long the last words of a session may take.
pub(crate) const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);
/// Downloads at once in all: each holds at most one content in memory.
pub(crate) const DOWNLOADS_MAX: usize = 64;
/// Messages that wait to be sent to one agent; the next one waits for a place.
pub(crate) const OUTBOX_MAX: usize = 8;
/// Pulses missed before a session counts as silent: one may be late, two may be lost.
pub(crate) const PULSES_MISSED_MAX: u32 = 3;
/// Pulses of all agents in a second, at most: what costs a small part of one core.
pub(crate) const PULSES_PER_SECOND_MAX: usize = 400;
/// Life of an agent's certificate.
pub(crate) const AGENT_CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Life of the gateway's own certificate, which it replaces every day.
pub(crate) const SERVER_CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How often the gateway's own certificate is replaced.
pub(crate) const SERVER_CERTIFICATE_PERIOD: Duration = Duration::from_secs(24 * 3600);
/// Life of the authority.
pub(crate) const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of hosts differ: certificates are valid from this long ago.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// How often an agent with nothing to say says that it is there, unless the fleet is large.
pub const PULSE: Duration = Duration::from_secs(30);

/// Where the door is and what stands on it.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// The hub's data directory; the authority is in `agents-ca` below it.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `HOST:PORT` or `HOST` by which agents reach this hub, beside the loopback names. The first
    /// one is what [`crate::Gateway::address`] tells.
    pub advertise: Vec<String>,
    /// [`PULSE`], or less in tests; whole seconds.
    pub pulse: Duration,
}

/// The rest of the hub, as the gateway sees it.
#[derive(Clone)]
pub struct Ports {
    /// What each agent is to hold.
    pub assignments: Arc<dyn AssignmentSource>,
    /// Where reports go.
    pub reports: Arc<dyn ReportSink>,
    /// Who is an agent.
    pub enrolments: Arc<dyn Enrolments>,
    /// Who is here.
    pub presence: Arc<dyn Presence>,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ports")
    }
}
