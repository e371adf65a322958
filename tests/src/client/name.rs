//! Folder names in modified UTF-7 (RFC 3501 §5.1.3).

use base64::Engine as _;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// What the server is told.
pub fn encode(name: &str) -> String {
    let mut encoded = String::new();
    let mut shifted: Vec<u8> = Vec::new();
    let flush = |shifted: &mut Vec<u8>, encoded: &mut String| {
        if !shifted.is_empty() {
            encoded.push('&');
            encoded.push_str(&BASE64.encode(std::mem::take(shifted)));
            encoded.push('-');
        }
    };
    for character in name.chars() {
        if matches!(character, ' '..='~') {
            flush(&mut shifted, &mut encoded);
            encoded.push(character);
            if character == '&' {
                encoded.push('-');
            }
        } else {
            let mut units = [0; 2];
            shifted.extend(character.encode_utf16(&mut units).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    flush(&mut shifted, &mut encoded);
    encoded
}

/// What people read; a name that is no proper modified UTF-7 stays as it is.
pub fn decode(name: &str) -> String {
    try_decode(name).unwrap_or_else(|| name.to_owned())
}

fn try_decode(name: &str) -> Option<String> {
    let mut decoded = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('&') {
        decoded.push_str(before);
        let (shifted, after) = after.split_once('-')?;
        rest = after;
        if shifted.is_empty() {
            decoded.push('&');
            continue;
        }
        let bytes = BASE64.decode(shifted).ok()?;
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        decoded.push_str(&String::from_utf16(&units).ok()?);
    }
    decoded.push_str(rest);
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (name, encoded) in [
            ("INBOX", "INBOX"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("R&D", "R&-D"),
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("😀", "&2D3eAA-"),
        ] {
            assert_eq!(encode(name), encoded);
            assert_eq!(decode(encoded), name);
        }
        assert_eq!(decode("broken&name"), "broken&name");
    }
}
