//! The content store: packs of many contents, files or objects of a bucket, indexed in the database.
//!
//! Keeps true: a content is in the index only after its pack is durable; what is read has the length that was promised.
//! A pack's tail that no row names is left by a crash, and cleared away by the sweep.

mod mend;
mod packs;
mod reading;
mod receiving;
mod scrub;
mod seal;
mod sweep;
mod whole;

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::{Notify, OwnedRwLockReadGuard, RwLock};
use understudy_database::{content, event};
use understudy_protocol::{Digest, TenantId, messages::Trouble};
use understudy_replication::pack::{self, PackWriter};

pub(crate) use mend::Mender;
pub use packs::BucketConfig;
pub(crate) use reading::{Contents, Missing};
pub(crate) use receiving::Receiving;
pub(crate) use scrub::Scrubber;
pub use seal::{BadKeys, MasterKeys};
pub(crate) use sweep::Sweeper as ContentSweeper;

use packs::Packs;
use seal::DataKey;

/// A pack is closed when it has grown past this, in bytes.
const PACK_BYTES: u64 = 64 << 20;
/// There is room again when nothing has been refused for so long; a source gateway tries again every few seconds.
const ROOM_AGAIN: Duration = Duration::from_secs(15);
/// Packs kept open for the next shipment.
const OPEN_PACKS: usize = 8;

/// Where and how contents are kept.
#[derive(Clone, Debug)]
pub struct ContentConfig {
    /// Packs that are files lie here; what becomes an object waits here on its way.
    pub folder: PathBuf,
    /// New contents go there instead.
    pub bucket: Option<BucketConfig>,
    /// Contents are sealed with keys that these wrap; none to keep them in the clear.
    pub keys: Option<MasterKeys>,
    /// How long a content stays after the last that named it has gone.
    pub keep: Duration,
    /// How often what nobody names is looked for.
    pub sweep_every: Duration,
    /// How often every content is read and compared; none for never.
    pub scrub_every: Option<Duration>,
    /// How fast, in bytes a second.
    pub scrub_rate: u64,
}

impl ContentConfig {
    /// Files below this folder, in the clear.
    #[must_use]
    pub fn files(folder: PathBuf) -> Self {
        Self {
            folder,
            bucket: None,
            keys: None,
            keep: Duration::from_secs(30 * 24 * 3600),
            sweep_every: Duration::from_secs(6 * 3600),
            scrub_every: None,
            scrub_rate: 8_000_000,
        }
    }
}

/// The content store. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    config: ContentConfig,
    packs: Packs,
    /// A spool folder whose files can be read here: they need not be sent.
    shared_spool: Option<PathBuf>,
    /// Its files become packs by a link.
    links: bool,
    open: Mutex<Vec<(PackWriter, String)>>,
    keys: Mutex<HashMap<i64, Arc<DataKey>>>,
    /// The key that a tenant's contents are sealed with from now on.
    newest: tokio::sync::Mutex<HashMap<TenantId, (i64, Arc<DataKey>)>>,
    /// Something was found to be damaged.
    damage: Notify,
    /// The last shipment found no room, as far as is known.
    refusing: AtomicBool,
    refused_at: Mutex<Option<Instant>>,
    /// Parts of shipments that broke off are being made durable.
    keeping: Arc<RwLock<()>>,
}

impl Store {
    pub(crate) async fn open(
        pool: PgPool,
        config: ContentConfig,
        shared_spool: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let packs = Packs::open(&config.folder, config.bucket.as_ref())?;
        let mut links = config.keys.is_none() && !packs.writes_objects();
        if let Some(spool) = &shared_spool {
            pack::create_folder(spool)?;
            // A link cannot cross file systems; then files are copied.
            links &= fs::metadata(spool)?.dev() == fs::metadata(packs.folder())?.dev();
        }
        let keys = unwrap_keys(&pool, config.keys.as_ref()).await?;
        let place = config.bucket.as_ref().map(|bucket| format!("s3://{}/{}", bucket.bucket, bucket.prefix));
        content::opened(&pool, place.as_deref().unwrap_or("file"), config.keys.is_some()).await?;
        let shared = Shared {
            pool,
            config,
            packs,
            shared_spool,
            links,
            open: Mutex::default(),
            keys: Mutex::new(keys),
            newest: tokio::sync::Mutex::default(),
            damage: Notify::new(),
            // A former life may have said so: the first shipment tells.
            refusing: AtomicBool::new(true),
            refused_at: Mutex::default(),
            keeping: Arc::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Can a source gateway hand its spool files over by name?
    pub(crate) fn takes_over(&self) -> bool {
        self.shared.shared_spool.is_some()
    }

    /// For how long a content stays after the last that named it has gone.
    pub(crate) fn keeps(&self) -> Duration {
        self.shared.config.keep
    }

    /// Parts of a shipment that broke off are being made durable until this is dropped. None while somebody waits for others.
    pub(crate) fn keeping(&self) -> Option<OwnedRwLockReadGuard<()>> {
        self.shared.keeping.clone().try_read_owned().ok()
    }

    /// Waits until what broke off before is made durable: whoever comes again asks for it at once.
    pub(crate) async fn kept(&self) {
        drop(self.shared.keeping.write().await);
    }

    /// The key that a tenant's contents are sealed with; none where they rest in the clear.
    async fn sealing_key(&self, tenant: TenantId) -> anyhow::Result<Option<(i64, Arc<DataKey>)>> {
        let Some(masters) = &self.shared.config.keys else { return Ok(None) };
        let mut newest = self.shared.newest.lock().await;
        if let Some(known) = newest.get(&tenant) {
            return Ok(Some(known.clone()));
        }
        let key = match content::newest_key(&self.shared.pool, tenant).await? {
            Some(kept) => (kept.key, self.opening_key(kept.key)?),
            None => {
                let (key, wrapped) = masters.make(tenant)?;
                let number = content::add_key(&self.shared.pool, tenant, masters.current(), &wrapped).await?;
                let key = Arc::new(key);
                self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(number, key.clone());
                (number, key)
            }
        };
        newest.insert(tenant, key.clone());
        Ok(Some(key))
    }

    fn opening_key(&self, key: i64) -> anyhow::Result<Arc<DataKey>> {
        let keys = self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(&key).cloned().with_context(|| format!("the content store has no key {key}"))
    }

    /// A pack that nobody else writes to meanwhile.
    fn take_pack(&self) -> io::Result<(PackWriter, String)> {
        let open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).pop();
        open.map_or_else(|| self.shared.packs.create(), Ok)
    }

    fn give_back(&self, pack: PackWriter, name: String) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if pack.offset() < PACK_BYTES && open.len() < OPEN_PACKS && !self.shared.packs.writes_objects() {
            open.push((pack, name));
        } else {
            self.shared.packs.release(&name);
        }
    }

    /// What was taken in says whether there is room: people are told when that changes.
    pub(crate) async fn note_room(&self, trouble: Option<&Trouble>) {
        if trouble.is_some() {
            *self.shared.refused_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        } else {
            // Something small may fit where the rest does not: believed once nothing was refused for a while.
            let refused_at = *self.shared.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
            let lately = refused_at.is_some_and(|at| at.elapsed() < ROOM_AGAIN);
            if lately || !self.shared.refusing.load(Ordering::Relaxed) {
                return;
            }
        }
        self.shared.refusing.store(trouble.is_some(), Ordering::Relaxed);
        let noted = async {
            if content::refusing(&self.shared.pool, trouble).await? {
                match trouble {
                    Some(trouble) => {
                        tracing::error!(
                            kind = trouble.kind,
                            "Nothing can be taken in: {}. {}",
                            trouble.reason,
                            trouble.remedy
                        );
                    }
                    None => tracing::info!("There is room again: shipments are taken in"),
                }
                let (kind, detail) = match trouble {
                    Some(trouble) => (
                        "disk_full",
                        json!({ "name": trouble.kind, "reason": trouble.reason, "remedy": trouble.remedy }),
                    ),
                    None => ("disk_room", json!({})),
                };
                event::record(&self.shared.pool, kind, None, None, &detail).await?;
            }
            understudy_database::Result::<()>::Ok(())
        };
        // A database without room cannot be written to either; the answer to the source gateway says it all the same.
        if let Err(error) = noted.await {
            tracing::warn!(error = %error, "Could not note whether there is room");
        }
        metrics::gauge!("understudy_content_store_refusing").set(if trouble.is_some() { 1.0 } else { 0.0 });
    }

    /// A content is no longer what it was.
    async fn damaged(&self, tenant: TenantId, place: &content::Place, how: &str) {
        let noted = async {
            let whose = content::damaged(&self.shared.pool, tenant, place).await?;
            if whose.is_empty() {
                return understudy_database::Result::<()>::Ok(());
            }
            metrics::counter!("understudy_content_damaged_total").increment(1);
            tracing::error!(content.digest = %place.content.digest, pack = place.pack, "A content in the store is damaged");
            let mut named = Vec::new();
            for digest in whose {
                named.extend(content::naming(&self.shared.pool, tenant, digest).await?);
            }
            let mut mailboxes: Vec<_> = named.iter().map(|named| named.mailbox).collect();
            mailboxes.sort_unstable();
            mailboxes.dedup();
            let detail = json!({
                "digest": place.content.digest,
                "bytes": place.content.size,
                "pack": place.pack,
                "offset": place.offset,
                "reason": how,
                "messages": named.len(),
                "remedy": "It is fetched again by itself, from the standby or from the primary. Look at the disk it lay on.",
            });
            event::record(&self.shared.pool, "content_damaged", None, None, &detail).await?;
            for mailbox in mailboxes {
                event::record(&self.shared.pool, "content_damaged", Some(mailbox), None, &detail).await?;
            }
            Ok(())
        };
        if let Err(error) = noted.await {
            tracing::warn!(error = %error, "Could not note a damaged content");
        }
        self.shared.damage.notify_one();
    }
}

/// Opens every data key, and has those that another master key wraps wrapped by the one in use.
async fn unwrap_keys(pool: &PgPool, masters: Option<&MasterKeys>) -> anyhow::Result<HashMap<i64, Arc<DataKey>>> {
    let mut keys = HashMap::new();
    for kept in content::keys(pool).await? {
        let masters = masters.context(
            "contents are encrypted, and no key is configured: set `key_file` under [content] to the file with the master key",
        )?;
        let (key, rewrapped) = masters.unwrap(&kept).with_context(|| {
            format!(
                "the key file lacks the master key {}, or it was damaged: put it back below the new one",
                kept.master
            )
        })?;
        if let Some(wrapped) = rewrapped {
            content::rewrap(pool, kept.key, masters.current(), &wrapped).await?;
            tracing::info!(tenant.id = %kept.tenant, "Another master key wraps the content key {} now", kept.key);
        }
        keys.insert(kept.key, Arc::new(key));
    }
    Ok(keys)
}

/// No room, in an error from here or from the database.
pub(crate) fn no_room(error: &io::Error) -> Option<Trouble> {
    let full =
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge);
    full.then(|| Trouble {
        kind: "content_store_full".to_owned(),
        reason: format!("The recovery site's content store has no room: {error}"),
        remedy: "Make room on the disk that holds its folder `content`, or raise the bucket's quota; then it goes on by itself. \
                 Nothing is lost meanwhile: what is not acknowledged stays in the source gateway's journal."
            .to_owned(),
        fault: true,
    })
}

/// No room in the database, where an error says so.
pub(crate) fn database_full(error: &(dyn std::error::Error + 'static)) -> Option<Trouble> {
    let mut next = Some(error);
    while let Some(cause) = next {
        let code = cause.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        // 53100: disk_full.
        if code.and_then(|error| error.code()).is_some_and(|code| code == "53100") {
            return Some(Trouble {
                kind: "database_full".to_owned(),
                reason: format!("The recovery site's database has no room: {cause}"),
                remedy: "Make room on the disk that holds the database; then it goes on by itself. Nothing is lost meanwhile: what is \
                         not acknowledged stays in the source gateway's journal."
                    .to_owned(),
                fault: true,
            });
        }
        next = cause.source();
    }
    None
}

/// A digest for `Debug` and logs.
fn wanted(digests: &[understudy_protocol::ContentRef]) -> Vec<Digest> {
    digests.iter().map(|content| content.digest).collect()
}
