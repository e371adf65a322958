//! Values of `protocol` as columns, and back.

use understudy_protocol::{ContentRef, Digest, FolderPosition, ModSeq, Uid, UidSet, UidValidity};

use crate::{Error, Result};

/// A position from its columns.
pub(crate) fn position(uid_validity: i64, mod_seq: i64, uid_next: i64) -> Result<FolderPosition> {
    Ok(FolderPosition {
        uid_validity: self::uid_validity(uid_validity)?,
        mod_seq: ModSeq(mod_seq.try_into().map_err(|e| Error::unreadable("MODSEQ", e))?),
        uid_next: uid(uid_next)?,
        ..FolderPosition::default()
    })
}

/// A UIDVALIDITY from its column.
pub(crate) fn uid_validity(column: i64) -> Result<UidValidity> {
    Ok(UidValidity(column.try_into().map_err(|e| Error::unreadable("UIDVALIDITY", e))?))
}

/// A UID from its column.
pub(crate) fn uid(column: i64) -> Result<Uid> {
    Ok(Uid(column.try_into().map_err(|e| Error::unreadable("UID", e))?))
}

/// A MODSEQ as its column: 63 bits (RFC 7162 §3.1), so it fits.
pub(crate) fn mod_seq(mod_seq: ModSeq) -> i64 {
    size(mod_seq.0)
}

/// A count or a size as its column.
pub(crate) fn size(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A content reference from its columns.
pub(crate) fn content_ref(digest: &[u8], size: i64) -> Result<ContentRef> {
    Ok(ContentRef { digest: self::digest(digest)?, size: size.unsigned_abs() })
}

/// A digest from its column.
/// Empty while it is not known.
pub(crate) fn maybe_digest(column: &[u8]) -> Result<Digest> {
    if column.is_empty() { Ok(Digest::default()) } else { digest(column) }
}

pub(crate) fn digest(column: &[u8]) -> Result<Digest> {
    Digest::try_from(column).map_err(|e| Error::unreadable("digest", e))
}

/// Flags as one text, for `unnest`, which takes no arrays of arrays. A flag has no space (RFC 9051 §9, `flag`).
pub(crate) fn flags_text(flags: &[String]) -> String {
    flags.join(" ")
}

/// The ends of a set's ranges, for `unnest`.
pub(crate) fn ranges(uids: &UidSet) -> (Vec<i64>, Vec<i64>) {
    uids.ranges().map(|(low, high)| (i64::from(low.0), i64::from(high.0))).unzip()
}
