//! Who is measured.

use clap::ValueEnum;

/// What runs beside what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Peer {
    /// isync's mbsync: the agentless tool an administrator would take.
    Mbsync,
    /// This product.
    Understudy,
    /// FETCH joined to MULTIAPPEND: the limit, not a product.
    Copy,
    /// Dovecot's own replicator (2.3): the agent to be as quick as.
    Replicator,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mbsync => "mbsync",
            Self::Understudy => "understudy",
            Self::Copy => "copy",
            Self::Replicator => "replicator",
        }
    }
}
