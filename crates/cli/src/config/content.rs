//! The `[content]` table: where contents are kept, sealed with what, and for how long.
//!
//! Not here: reading the files it names (`running::content`).

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;

use super::{
    path,
    settings::{self, Settings},
};
use crate::duration::parse_duration;

const DEFAULT_KEEP: Duration = Duration::from_secs(30 * 24 * 3600);
const DEFAULT_SWEEP: Duration = Duration::from_secs(6 * 3600);
const DEFAULT_SCRUB: Duration = Duration::from_secs(30 * 24 * 3600);
/// In MB/s.
const DEFAULT_SCRUB_RATE: u64 = 8;

/// How contents are kept.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) bucket: Option<Bucket>,
    /// Holds the master keys; none to keep contents in the clear.
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) keep: Duration,
    pub(crate) sweep_every: Duration,
    pub(crate) scrub_every: Option<Duration>,
    /// In bytes a second.
    pub(crate) scrub_rate: u64,
}

/// An S3 bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) access_key: Option<String>,
    pub(crate) secret_key: SecretKey,
}

/// Where the secret key of a bucket comes from.
#[derive(Debug)]
pub(crate) enum SecretKey {
    /// From `AWS_…` variables, or the machine's own role.
    Environment,
    Given(SecretString),
    File(PathBuf),
}

impl Content {
    pub(super) fn secret_files(&self) -> impl Iterator<Item = PathBuf> {
        let secret_key = self.bucket.as_ref().and_then(|bucket| match &bucket.secret_key {
            SecretKey::File(path) => Some(path.clone()),
            SecretKey::Environment | SecretKey::Given(_) => None,
        });
        self.key_file.clone().into_iter().chain(secret_key)
    }
}

pub(super) fn content(settings: &mut Settings) -> Content {
    let duration = |key: &str| settings.text(key).and_then(|text| parse_duration(text).ok());
    let scrub_every = match settings.text("content.scrub") {
        Some(settings::OFF) => None,
        _ => Some(duration("content.scrub").unwrap_or(DEFAULT_SCRUB)),
    };
    let rate = settings.text("content.scrub_rate").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_SCRUB_RATE);
    Content {
        key_file: path(settings, "content.key_file"),
        keep: duration("content.keep").unwrap_or(DEFAULT_KEEP),
        sweep_every: duration("content.sweep").unwrap_or(DEFAULT_SWEEP),
        scrub_every,
        scrub_rate: rate.saturating_mul(1_000_000),
        bucket: bucket(settings),
    }
}

fn bucket(settings: &mut Settings) -> Option<Bucket> {
    let store = match settings.text("content.store") {
        None | Some("file") => {
            for key in ["content.endpoint", "content.region", "content.access_key", "content.secret_key_file"] {
                if let Some(origin) = settings.origin(key).cloned() {
                    let what = format!("\"{key}\" is set, and contents are kept in files");
                    settings.problem(Some(origin), what, "write `store = \"s3://BUCKET/PREFIX\"`, or leave it out");
                }
            }
            return None;
        }
        Some(store) => store.to_owned(),
    };
    let Some((name, prefix)) = store.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))
    else {
        let origin = settings.origin("content.store").cloned();
        let what = format!("\"content.store\" cannot be \"{store}\"");
        settings.problem(origin, what, "write \"file\", or \"s3://BUCKET/PREFIX\"");
        return None;
    };
    if name.is_empty() {
        let origin = settings.origin("content.store").cloned();
        settings.problem(origin, "\"content.store\" names no bucket", "write \"s3://BUCKET/PREFIX\"");
        return None;
    }
    let secret_key = match (settings.text("content.secret_key"), path(settings, "content.secret_key_file")) {
        (Some(key), _) => SecretKey::Given(SecretString::from(key)),
        (None, Some(path)) => SecretKey::File(path),
        (None, None) => SecretKey::Environment,
    };
    let text = |key: &str| settings.text(key).map(str::to_owned);
    Some(Bucket {
        name: name.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        endpoint: text("content.endpoint"),
        region: text("content.region"),
        access_key: text("content.access_key"),
        secret_key,
    })
}
