//! Whether users who are on the standby are kept from the primary: tried, for people and before anything is moved by itself.
//!
//! In: a primary with a canary, a front door. Out: what was found, and how it is shown. Keeps true: one trial of a server at a time, since
//! in one its canary is said to be elsewhere for a moment; what an interrupted trial left behind is taken back first. A server that
//! does not answer keeps no other waiting.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use chrono::Utc;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::{Mutex, Semaphore};
use understudy_database::health;
use understudy_health::{
    decide::{Fence, Kept},
    probe,
};
use understudy_protocol::{messages::Finding, server::Server};

/// So many servers are tried side by side.
const SIDE_BY_SIDE: usize = 16;

static ROOM: Semaphore = Semaphore::const_new(SIDE_BY_SIDE);
/// By server. There are as many as there are primaries.
static ONE_AT_A_TIME: LazyLock<Mutex<HashMap<i64, Arc<Mutex<()>>>>> = LazyLock::new(Mutex::default);

const BY_ADDRESS: &str = "the canary gets in at the front door and is refused at the primary itself";
const BY_LEASE: &str = "the primary asks at each log-in whose the user is: it refused the canary while that was said to be elsewhere, and lets it in otherwise";

/// Tries it.
pub(crate) async fn tried(pool: &PgPool, server_id: i64, primary: &Server) -> Fence {
    let turn = ONE_AT_A_TIME.lock().await.entry(server_id).or_default().clone();
    let _alone = turn.lock().await;
    // Never closed.
    let _room = ROOM.acquire().await.ok();
    match fence(pool, server_id, primary).await {
        Ok(fence) => fence,
        Err(error) => Fence::Unknown(format!(
            "nobody could try whether users reach {} past the front doors: {error}",
            primary.name
        )),
    }
}

async fn fence(pool: &PgPool, server_id: i64, primary: &Server) -> understudy_database::Result<Fence> {
    health::end_lease_trial(pool, server_id).await?;
    let door = health::door(pool).await?;
    let fence = probe::fence(primary, door.as_deref()).await;
    let (Fence::Open(_), Some(canary)) = (&fence, &primary.canary) else { return Ok(fence) };
    health::begin_lease_trial(pool, server_id, &canary.address).await?;
    let while_away = probe::lease(primary, true).await;
    health::end_lease_trial(pool, server_id).await?;
    let name = &primary.name;
    let afterwards = match while_away {
        Ok(true) => probe::lease(primary, false).await,
        // It let the canary in as if nothing had been said.
        Ok(false) => return Ok(fence),
        Err(why) => Err(why),
    };
    Ok(match afterwards {
        Ok(true) => Fence::Holds(Kept::ByLease),
        Ok(false) => Fence::Unknown(format!("{name} refuses its canary now, which it let in a moment ago")),
        Err(why) => Fence::Unknown(format!("{name} did not say whether it lets users in past the front doors: {why}")),
    })
}

/// As interfaces show it.
pub(super) fn shown(fence: &Fence) -> Value {
    let (state, reason, by) = match fence {
        Fence::Holds(Kept::ByAddress) => ("holds", BY_ADDRESS, Some("address")),
        Fence::Holds(Kept::ByLease) => ("holds", BY_LEASE, Some("lease")),
        Fence::Open(reason) => ("open", reason.as_str(), None),
        Fence::Unknown(reason) => ("unknown", reason.as_str(), None),
    };
    json!({ "state": state, "reason": reason, "by": by, "at": Utc::now() })
}

/// What was shown.
pub(super) fn restored(shown: &Value) -> Option<Fence> {
    let reason = shown["reason"].as_str().unwrap_or_default().to_owned();
    match (shown["state"].as_str(), shown["by"].as_str()) {
        (Some("holds"), Some("lease")) => Some(Fence::Holds(Kept::ByLease)),
        (Some("holds"), _) => Some(Fence::Holds(Kept::ByAddress)),
        (Some("open"), _) => Some(Fence::Open(reason)),
        (Some("unknown"), _) => Some(Fence::Unknown(reason)),
        _ => None,
    }
}

/// For the check of a primary.
pub(crate) async fn check(pool: &PgPool, server_id: i64, primary: &Server) -> Finding {
    let finding = |level: &str, meaning: &str, remedy: &str| Finding {
        level: level.to_owned(),
        name: "fence".to_owned(),
        meaning: meaning.to_owned(),
        remedy: remedy.to_owned(),
    };
    match tried(pool, server_id, primary).await {
        Fence::Holds(Kept::ByAddress) => finding("ok", BY_ADDRESS, ""),
        Fence::Holds(Kept::ByLease) => finding("ok", BY_LEASE, ""),
        Fence::Open(reason) => finding(
            "warning",
            &format!("{reason}; nothing is moved by itself"),
            "Let users in from the front doors only, or have the server ask whose they are: docs/front-doors.md, \"The fence at the primary\".",
        ),
        Fence::Unknown(reason) => finding(
            "note",
            &format!("{reason}; until that is known nothing is moved by itself"),
            "Give the server a `canary` with a `password_file`, and a [[front_door]] its `imap`: docs/outages.md.",
        ),
    }
}
