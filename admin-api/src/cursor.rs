//! Lists by cursor: a page, and an opaque word that says where the next one begins.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::error::{ApiError, Kind, Result};

/// How many items a page has unless `?limit=` says.
const DEFAULT_LIMIT: i64 = 100;
/// The longest page.
const LONGEST_PAGE: i64 = 1000;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Where to go on, for `?after=`; null at the end.
    pub(crate) next: Option<String>,
}

impl<T> Page<T> {
    /// A page of rows fetched with one more than `limit`, each shown by `show`; `key` says where a row stands.
    pub(crate) fn of<R, K: Serialize>(
        mut rows: Vec<R>,
        limit: i64,
        key: impl Fn(&R) -> K,
        show: impl FnMut(R) -> T,
    ) -> Self {
        let limit = usize::try_from(limit).unwrap_or_default();
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|last| encode(&key(last)));
        Self { items: rows.into_iter().map(show).collect(), next }
    }
}

/// The length of a page asked for.
pub(crate) fn limit(asked: Option<i64>) -> Result<i64> {
    match asked {
        None => Ok(DEFAULT_LIMIT),
        Some(limit @ 1..=LONGEST_PAGE) => Ok(limit),
        Some(limit) => Err(ApiError::new(
            Kind::Malformed,
            format!("limit={limit} is out of range"),
            format!("ask for 1 to {LONGEST_PAGE} items and go on with `after`"),
        )),
    }
}

fn encode(key: &impl Serialize) -> String {
    let json = serde_json::to_vec(key).expect("cursor keys are text and numbers");
    BASE64_URL_SAFE_NO_PAD.encode(json)
}

/// What a cursor says.
pub(crate) fn decode<K: DeserializeOwned>(cursor: Option<&str>) -> Result<Option<K>> {
    let Some(cursor) = cursor.filter(|cursor| !cursor.is_empty()) else { return Ok(None) };
    let key = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|json| serde_json::from_slice(&json).ok());
    match key {
        Some(key) => Ok(Some(key)),
        None => Err(ApiError::new(
            Kind::Malformed,
            "`after` is no cursor of this list",
            "use `next` of the page before as it came, or leave `after` out to begin",
        )),
    }
}
