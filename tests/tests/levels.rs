//! How well a primary can be followed: the four levels, made of a real server by hiding what it offers.

use anyhow::Result;
use understudy_tests::scenario::Scenario;

/// A level as it is shown, and what has to be hidden of a server for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    pub(crate) name: &'static str,
    hidden: &'static [&'static str],
}

/// The best first.
pub(crate) const LEVELS: [Level; 4] = [
    Level { name: "notify+qresync", hidden: &[] },
    Level { name: "idle+qresync", hidden: &["NOTIFY", "LIST-STATUS"] },
    Level { name: "condstore", hidden: &["NOTIFY", "QRESYNC", "ESEARCH"] },
    Level { name: "none", hidden: &["NOTIFY", "QRESYNC", "CONDSTORE", "IDLE", "LIST-EXTENDED", "X-GUID"] },
];

impl Level {
    /// The line of `[source]` that makes it.
    pub(crate) fn setting(self) -> String {
        format!("capability_mask = {:?}", self.hidden)
    }

    /// Two servers and the roles as processes of their own, the primary followed at this level.
    pub(crate) async fn apart(self, users: &[&str]) -> Result<Scenario> {
        Scenario::apart_with(users, &self.setting()).await
    }
}
