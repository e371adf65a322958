//! What the source gateway asks and the recovery gateway answers, besides transactions.
//!
//! The source always dials. Routes (HTTP/2, bodies by [`crate::codec`]):
//!
//! | route | body | answer |
//! |---|---|---|
//! | `POST /link/v1/hello` | [`Hello`] | [`Welcome`] |
//! | `POST /link/v1/ship` | frames of [`Shipment`] | [`Shipped`] |
//! | `POST /link/v1/heartbeat` | [`Heartbeat`] | [`Directives`]; held open until there is one or the asked time passed |
//! | `POST /link/v1/known/{mailbox}` | – | frames of [`Known`]: what the recovery site holds of a mailbox |
//! | `POST /link/v1/lacks` | [`Lacks`]: parts | [`Lacks`]: those that are not there |
//! | `POST /link/v1/report` | [`Report`] | nothing |
//! | `POST /link/v1/inventory/{run}` | frames of [`InventoryFrame`] | nothing |
//! | `POST /link/v1/content/{id}` | the octets asked for by [`Asked::Content`] | nothing |

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    ContentRef, Digest, Epoch, FolderId, FolderPath, FolderPosition, MailboxId, PartKey, Seq, TenantId, Uid, UidSet,
    UidValidity, server::Server,
};

/// The version of the link spoken by this build.
pub const LINK_VERSION: u32 = 1;
/// The header in which every request names the process life of its gateway, as [`Hello::gateway`] did.
pub const GATEWAY_HEADER: &str = "understudy-gateway";
/// The oldest version still understood.
pub const OLDEST_LINK_VERSION: u32 = 1;

/// The source gateway introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub link_version: u32,
    /// One process life of a source gateway; a later one takes over from an earlier one of the same installation.
    pub gateway: Uuid,
    /// The source gateway's own database: another one has another journal. Nil where a gateway does not say.
    #[serde(default)]
    pub installation: Uuid,
    pub product_version: String,
}

/// The recovery gateway's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub link_version: u32,
    pub product_version: String,
    /// Spool files may be handed over by name ([`Shipment::Handed`]): both gateways work on the same folder.
    #[serde(default)]
    pub hands_over: bool,
    /// Messages may come in parts ([`Shipment::Part`]), and shipments packed.
    #[serde(default)]
    pub takes_parts: bool,
    /// For how long a part surely stays there once nothing names it any more, in seconds; 0 where a gateway does not say.
    #[serde(default)]
    pub keeps_seconds: u64,
}

/// One frame of a shipment: contents come before the transaction that names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shipment {
    /// Exactly `size` raw bytes follow the frame.
    Content(ContentRef),
    /// Exactly `size` raw bytes follow: a part, unwrapped, under the digest by its tenant's [`PartKey`].
    Part(ContentRef),
    /// A message, put together by this recipe (`content::Recipe`). The octets of its own follow, as many as the recipe says.
    Skeleton {
        content: ContentRef,
        #[serde(with = "serde_bytes")]
        recipe: Vec<u8>,
    },
    /// These contents lie, from these offsets on, in the file of that name in the spool folder both gateways share.
    Handed { file: String, contents: Vec<(ContentRef, u64)> },
    /// A [`crate::Transaction`] by [`crate::codec::encode`], as it rests in the journal.
    Transaction(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// Which of a tenant's parts are not there? And the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lacks {
    pub tenant: TenantId,
    pub parts: Vec<Digest>,
}

/// The answer to a shipment: one acknowledgement per mailbox named in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipped {
    pub acks: Vec<Ack>,
    /// Nothing of it was taken: it was packed after bytes that are not known there any more. Pack it by itself.
    #[serde(default)]
    pub unseen: bool,
}

/// Cumulative acknowledgement of one mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    pub mailbox: MailboxId,
    /// Durable at the recovery site through here; the next one wanted is one more.
    pub received: Seq,
    /// Visible on the standby through here.
    pub applied: Seq,
    /// Why a transaction was not taken, if one was not.
    pub refused: Option<Refusal>,
}

/// Why the recovery gateway did not take a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It skipped numbers: send from `received + 1`.
    Gap,
    /// Its epoch is not the mailbox's.
    Epoch { current: Epoch },
    /// Nobody protects this mailbox (any more).
    UnknownMailbox,
    /// It names content that is neither here nor in the shipment: messages, or parts of one.
    LacksContent { digests: Vec<Digest> },
    /// It travels the wrong way for the mailbox's side.
    Direction,
    /// Its number was taken by a transaction with other changes: the two journals are not the same one.
    Diverged,
}

/// Sent all the time, by which the recovery site knows the source lives; also fetches directives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub gateway: Uuid,
    pub sent_at: DateTime<Utc>,
    /// How long to hold the request open when there is nothing to say, in milliseconds.
    pub wait_ms: u64,
    /// The last [`Directives::version`] acted upon: an answer comes at once when there is a newer one.
    pub seen_version: u64,
    /// What changed about mailboxes since the last heartbeat.
    pub mailboxes: Vec<MailboxReport>,
    /// Mailboxes that have not proven themselves lately, all of them; no byte while there is none. Counts where `wait_ms` is not 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unproven: Vec<Unproven>,
    /// What the source gateway found when it looked whether primaries answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<Look>,
    /// How the link itself fares, where it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkReport>,
}

impl Heartbeat {
    /// One that is answered at once and asks for no directives: it only carries what is filled in.
    #[must_use]
    pub fn news(gateway: Uuid) -> Self {
        Self {
            gateway,
            sent_at: Utc::now(),
            wait_ms: 0,
            seen_version: u64::MAX,
            mailboxes: Vec::new(),
            unproven: Vec::new(),
            looks: Vec::new(),
            link: None,
        }
    }
}

/// The link as the source gateway sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkReport {
    /// The ways to the recovery site, the best first.
    pub paths: Vec<PathReport>,
    /// Everything that went over the wire since this process began.
    pub bytes: Vec<WireBytes>,
}

/// One way to the recovery site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathReport {
    pub url: String,
    /// `used`, `standing_by`, `untried` or `down`.
    pub state: String,
    /// Why it is down.
    #[serde(default)]
    pub reason: Option<String>,
    pub since: DateTime<Utc>,
    #[serde(default)]
    pub round_trip_ms: Option<f64>,
}

/// Bytes of one kind in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireBytes {
    /// `out` or `in`, as the source gateway sees it.
    pub direction: String,
    /// `live`, `seed`, `check`, `control` or `overhead`.
    pub kind: String,
    pub bytes: u64,
}

/// What the link may use of the line, as calendars ([`crate::calendar::Calendar`]); empty: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Everything sent, in bytes on the wire.
    #[serde(default)]
    pub wire: String,
    /// Seeding alone.
    #[serde(default)]
    pub seeding: String,
}

/// A mailbox of which the source gateway cannot tell whether anything changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unproven {
    pub mailbox: MailboxId,
    /// For how long.
    pub seconds: u64,
    /// `primary` or `source_gateway`.
    pub place: String,
}

/// What one look at a primary found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Name of the primary.
    pub server: String,
    /// Log-in, folder and message were tried, not only whether somebody answers.
    pub deep: bool,
    pub outcome: LookOutcome,
    pub seconds: f64,
}

/// What came of a look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LookOutcome {
    Good,
    Bad(String),
    /// It answers; for reasons of our own nothing more was learned.
    Unknown(String),
}

/// How one mailbox fares at the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxReport {
    pub mailbox: MailboxId,
    pub captured: Seq,
    /// The level in use, as shown: `notify+qresync`, `idle+qresync`, `condstore`, `none`.
    pub capability: String,
    pub progress: SeedProgress,
    /// Everything that was there when protection began has been captured.
    pub seeded: bool,
    /// When the last look at the whole mailbox ended.
    pub swept_at: Option<DateTime<Utc>>,
    /// What stands in the way, if anything does.
    pub trouble: Option<Trouble>,
    /// Messages the primary lists and cannot give: passed over, tried again. `None` leaves what was reported before.
    #[serde(default)]
    pub unreadable: Option<Vec<Unreadable>>,
}

/// A message that is on the primary and could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    pub folder: FolderId,
    pub path: FolderPath,
    pub uid: Uid,
    /// As listed; 0 while unknown.
    pub size: u64,
    pub reason: String,
}

/// Messages and bytes captured of those found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedProgress {
    pub messages_done: u64,
    pub messages_total: u64,
    pub bytes_done: u64,
    /// 0 while unknown.
    pub bytes_total: u64,
}

/// Something a person should know about: one sentence of why, one of what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// For machines: `login_refused`, `unreachable`, `certificate`, `no_such_user`, `protocol`, …
    pub kind: String,
    pub reason: String,
    pub remedy: String,
    /// False while trying again may help by itself.
    pub fault: bool,
}

/// What the source gateway is to do. Complete: a mailbox not listed is none of its business.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directives {
    /// Rises whenever anything below changes.
    pub version: u64,
    /// The primaries the mailboxes live on.
    pub servers: Vec<Server>,
    pub mailboxes: Vec<Assignment>,
    /// Asked once each; answered by a [`Report`] with the same id. Repeated until answered.
    pub requests: Vec<Request>,
    /// What the link may use of the line.
    #[serde(default)]
    pub limits: Limits,
    /// Of every tenant: the key of its parts' digests.
    #[serde(default)]
    pub part_keys: Vec<(TenantId, PartKey)>,
}

/// One mailbox to mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub mailbox: MailboxId,
    pub tenant: TenantId,
    pub address: String,
    /// Name of the primary in [`Directives::servers`].
    pub server: String,
    pub epoch: Epoch,
    pub paused: bool,
    /// Rises when a person asked to try again at once (resume, changed server).
    pub attempt: i32,
    pub received: Seq,
    pub applied: Seq,
    /// Lower is served earlier.
    #[serde(default)]
    pub priority: i32,
    /// Of the transaction last received.
    #[serde(default)]
    pub digest: Digest,
}

/// Something asked of the source gateway once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub id: Uuid,
    pub what: Asked,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// Look at the whole mailbox now; answer with the last seq captured when the look, begun after this arrived, is in the journal.
    Barrier { mailbox: MailboxId },
    /// Send what the primary holds to `/link/v1/inventory/{id}`.
    Inventory {
        mailbox: MailboxId,
        bodies: bool,
        /// Digests of slices of messages instead of the messages.
        #[serde(default)]
        summary: bool,
        /// Only messages in these ranges; everything when there are none.
        #[serde(default)]
        only: Vec<FolderRange>,
    },
    /// Forget that these messages were captured and look at the whole mailbox: what the primary has is captured again. Answered like a
    /// barrier.
    Recapture { mailbox: MailboxId, folders: Vec<(FolderPath, UidSet)> },
    /// Fetch one message from the primary again and send it to `/link/v1/content/{id}`: what rests of it at the recovery site is damaged.
    /// Nothing about the mailbox changes.
    Content { mailbox: MailboxId, tenant: TenantId, path: FolderPath, uid: Uid, content: ContentRef },
    /// Try a server and say what it can do. The server may be unknown to [`Directives::servers`].
    Check { server: Server, address: Option<String> },
    /// Name the users a server serves, where it can tell.
    Discover { server: Server },
    /// Say how much these users of a server have.
    Measure { server: Server, addresses: Vec<String> },
}

/// UIDs of one folder, both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderRange {
    pub path: FolderPath,
    pub low: Uid,
    pub high: Uid,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub id: Uuid,
    pub outcome: Result<Reported, Trouble>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reported {
    Barrier {
        captured: Seq,
    },
    Inventory,
    Content,
    Check(ServerCheck),
    Discover {
        users: Vec<String>,
    },
    /// Each user asked for that could be measured in time, and those that could not be.
    Measured {
        sizes: Vec<MailboxSize>,
        refused: Vec<Unmeasured>,
    },
}

/// How much somebody has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxSize {
    pub address: String,
    pub folders: u64,
    pub messages: u64,
    /// Of large folders, from the sizes of some of their messages.
    pub bytes: u64,
}

/// Somebody who cannot be looked at, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmeasured {
    pub address: String,
    pub trouble: Trouble,
}

/// What a server can do, and what each thing means for mirroring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerCheck {
    pub capabilities: Vec<String>,
    pub findings: Vec<Finding>,
}

/// One line of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `ok`, `note`, `warning` or `failed`.
    pub level: String,
    pub name: String,
    pub meaning: String,
    /// What to do about it; empty when nothing is to be done.
    pub remedy: String,
}

/// One frame of what the recovery site holds of a mailbox after everything received has been applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    Start {
        received: Seq,
        epoch: Epoch,
        subscriptions: Vec<FolderPath>,
        /// Of the transaction last received.
        #[serde(default)]
        digest: Digest,
    },
    Folder {
        folder: FolderId,
        path: FolderPath,
        uid_validity: UidValidity,
        special_use: Vec<String>,
        selectable: bool,
        position: FolderPosition,
    },
    /// Messages of the folder named last.
    Messages(Vec<KnownMessage>),
    End,
}

/// One message as the recovery site knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownMessage {
    pub uid: Uid,
    pub flags: Vec<String>,
    pub content: ContentRef,
}

/// One frame of what the primary holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InventoryFrame {
    Start {
        subscriptions: Vec<FolderPath>,
    },
    Folder {
        path: FolderPath,
        special_use: Vec<String>,
        selectable: bool,
    },
    /// Messages of the folder named last, ascending by UID.
    Messages(Vec<InventoryMessage>),
    /// The same in short: so many messages of the folder named last from after the slice before (or from UID 1) up to this UID, and
    /// their digest by `replication::inventory::summary`.
    Slice {
        through: Uid,
        messages: u32,
        digest: Digest,
    },
    /// The list is whole.
    End,
}

/// One message as a server shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryMessage {
    pub uid: Uid,
    pub flags: Vec<String>,
    pub internal_date: String,
    pub size: u64,
    /// Of the whole message, when bodies were asked for.
    pub digest: Option<Digest>,
}
