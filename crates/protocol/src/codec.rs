//! Bytes and values of the link.
//!
//! A body is a row of frames: a four-byte big-endian length, then that many bytes of MessagePack with field names.
//! Names make the next version's additions readable by this one (unknown fields are passed over, missing ones default).
//! Raw content follows its frame without one of its own.

use serde::{Serialize, de::DeserializeOwned};

/// The longest frame taken: a transaction's changes, without content. 64 MiB.
pub const MAX_FRAME_BYTES: usize = 64 << 20;

/// What can be wrong with foreign bytes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("a frame of {length} bytes is longer than the {MAX_FRAME_BYTES} allowed")]
    TooLong { length: usize },
    #[error("the bytes end inside a frame")]
    Truncated,
    #[error("a frame could not be read")]
    Malformed(#[source] rmp_serde::decode::Error),
    #[error("a value could not be written")]
    Unwritable(#[from] rmp_serde::encode::Error),
}

/// One value as bytes, without a length.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    Ok(rmp_serde::to_vec_named(value)?)
}

/// One value from exactly these bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    rmp_serde::from_slice(bytes).map_err(CodecError::Malformed)
}

/// One value as a frame, appended to `out`.
pub fn encode_frame<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    rmp_serde::encode::write_named(out, value)?;
    let length = out.len() - start - 4;
    if length > MAX_FRAME_BYTES {
        out.truncate(start);
        return Err(CodecError::TooLong { length });
    }
    let header = u32::try_from(length).map_err(|_| CodecError::TooLong { length })?.to_be_bytes();
    out[start..start + 4].copy_from_slice(&header);
    Ok(())
}

/// The frame at the start of `bytes` and how many bytes it took; `None` when more must arrive first.
pub fn decode_frame<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<(T, usize)>, CodecError> {
    let Some(header) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*header) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(CodecError::TooLong { length });
    }
    match bytes.get(4..4 + length) {
        Some(body) => Ok(Some((decode(body)?, 4 + length))),
        None => Ok(None),
    }
}

/// Every frame of a complete body.
pub fn decode_frames<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<Vec<T>, CodecError> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let (value, taken) = decode_frame(bytes)?.ok_or(CodecError::Truncated)?;
        values.push(value);
        bytes = &bytes[taken..];
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::*;

    fn sample() -> Transaction {
        Transaction {
            mailbox: MailboxId(7),
            direction: Direction::Outbound,
            seq: Seq(3),
            epoch: Epoch(1),
            seed: false,
            previous: Digest::of(b"two"),
            captured_at: Utc::now(),
            changes: vec![
                Change::FolderCreated {
                    folder: FolderId(1),
                    path: FolderPath::inbox(),
                    uid_validity: UidValidity(9),
                    special_use: vec![],
                    selectable: true,
                },
                Change::MessageAdded(AddedMessage {
                    folder: FolderId(1),
                    uid: Uid(4),
                    flags: vec!["\\Seen".into()],
                    internal_date: "17-Jul-1996 02:44:25 -0700".into(),
                    content: ContentRef { digest: Digest::of(b"x"), size: 1 },
                }),
            ],
            position: Position { folders: [(FolderId(1), FolderPosition::default())].into() },
        }
    }

    #[test]
    fn a_frame_comes_back_and_says_how_long_it_was() {
        let mut bytes = Vec::new();
        encode_frame(&sample(), &mut bytes).expect("encodes");
        for cut in 0..bytes.len() {
            assert!(decode_frame::<Transaction>(&bytes[..cut]).expect("no error").is_none());
        }
        let (back, taken) = decode_frame::<Transaction>(&bytes).expect("decodes").expect("whole");
        assert_eq!(taken, bytes.len());
        assert_eq!(back.changes, sample().changes);
    }

    #[test]
    fn too_long_and_truncated_are_refused() {
        assert!(matches!(decode_frame::<Transaction>(&[255; 8]), Err(CodecError::TooLong { .. })));
        assert!(matches!(decode_frames::<Transaction>(&[0, 0, 0, 9, 1]), Err(CodecError::Truncated)));
        assert!(matches!(decode::<Transaction>(&[0xc1]), Err(CodecError::Malformed(_))));
    }
}
