//! Modified UTF-7, the encoding of folder names (RFC 3501 §5.1.3).

use base64::{
    Engine as _,
    alphabet::IMAP_MUTF7,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::RequireNone);
const ENGINE: GeneralPurpose = GeneralPurpose::new(&IMAP_MUTF7, CONFIG);

/// `text` in modified UTF-7.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut shifted: Vec<u8> = Vec::new();
    for c in text.chars() {
        if matches!(c, ' '..='~') {
            leave_shift(&mut shifted, &mut out);
            out.push(c);
            if c == '&' {
                out.push('-');
            }
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                shifted.extend_from_slice(&unit.to_be_bytes());
            }
        }
    }
    leave_shift(&mut shifted, &mut out);
    out
}

fn leave_shift(shifted: &mut Vec<u8>, out: &mut String) {
    if !shifted.is_empty() {
        out.push('&');
        ENGINE.encode_string(&*shifted, out);
        out.push('-');
        shifted.clear();
    }
}

/// The text that modified UTF-7 `bytes` stand for; `None` when they are not that.
pub(crate) fn decode(bytes: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'&' => {
                let end = memchr::memchr(b'-', rest)?;
                if end == 0 {
                    out.push('&');
                } else {
                    let octets = ENGINE.decode(&rest[..end]).ok()?;
                    let (pairs, odd) = octets.as_chunks::<2>();
                    if !odd.is_empty() {
                        return None;
                    }
                    let units = pairs.iter().map(|&pair| u16::from_be_bytes(pair));
                    for c in char::decode_utf16(units) {
                        out.push(c.ok()?);
                    }
                }
                rest = &rest[end + 1..];
            }
            0x20..=0x7e => out.push(char::from(byte)),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, encoded: &str) {
        assert_eq!(encode(text), encoded);
        assert_eq!(decode(encoded.as_bytes()).as_deref(), Some(text));
    }

    #[test]
    fn text_comes_back() {
        check("", "");
        check("INBOX", "INBOX");
        check("A&B", "A&-B");
        check("Entwürfe", "Entw&APw-rfe");
        check("台北/日本語", "&U,BTFw-/&ZeVnLIqe-");
        check("☺!", "&Jjo-!");
        check("a😀b", "a&2D3eAA-b");
        check("\u{1}x\u{7f}", "&AAE-x&AH8-");
    }

    #[test]
    fn every_character_comes_back() {
        for c in (0..=0x10_ffff).step_by(37).filter_map(char::from_u32) {
            let text = format!("a{c}&{c}{c}");
            assert_eq!(decode(encode(&text).as_bytes()), Some(text));
        }
    }

    #[test]
    fn what_is_not_modified_utf7_is_refused() {
        for bytes in [&b"a&b"[..], b"&", b"&A-", b"&AB-", b"\xc3\xa9", b"&2D0-", b"a\tb", b"&====-"] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
