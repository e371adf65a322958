//! Recognises one mail that was delivered twice: a server took it and the mail exchanger did not hear so, because the server died or hung
//! in that moment; then it was delivered again, to the other side. The two copies differ only in what the delivery wrote above.
//!
//! In: a message in pieces. Out: the digest of what the exchanger handed over, where one can tell.
//! Keeps true: what has no line of a queue below those of its delivery is no delivery, and nothing is said of it.

use understudy_protocol::Digest;

/// Headers above the exchanger's own line that are longer are not looked through.
const LONGEST: usize = 64 << 10;
/// What a delivery writes above, besides its own `Received:`.
const OF_DELIVERY: [&str; 3] = ["return-path", "delivered-to", "x-original-to"];

/// Takes in a message.
#[derive(Default)]
pub(super) struct Delivery {
    /// What is not looked through yet.
    head: Vec<u8>,
    hasher: Option<blake3::Hasher>,
    is_other: bool,
}

impl Delivery {
    pub(super) fn update(&mut self, piece: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(piece);
        } else if !self.is_other {
            self.head.extend_from_slice(piece);
            self.look();
        }
    }

    /// The digest from the exchanger's line on.
    pub(super) fn finish(&self) -> Option<Digest> {
        self.hasher.as_ref().map(|hasher| hasher.finalize().into())
    }

    fn look(&mut self) {
        while let Some(end) = end_of_field(&self.head) {
            let field = String::from_utf8_lossy(&self.head[..end]).to_ascii_lowercase();
            let field = field.split_whitespace().collect::<Vec<_>>().join(" ");
            let (name, value) = field.split_once(':').unwrap_or_default();
            if OF_DELIVERY.contains(&name) || name == "received" && value.contains(" with lmtp") {
                self.head.drain(..end);
            } else if name == "received" && value.contains(" id ") {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&self.head);
                (self.hasher, self.head) = (Some(hasher), Vec::new());
                return;
            } else {
                (self.is_other, self.head) = (true, Vec::new());
                return;
            }
        }
        if self.head.len() > LONGEST {
            (self.is_other, self.head) = (true, Vec::new());
        }
    }
}

/// Where the first field of a header ends, with its continued lines; `None` while that cannot be said.
fn end_of_field(head: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let end = from + head[from..].iter().position(|&byte| byte == b'\n')? + 1;
        match head.get(end)? {
            b' ' | b'\t' => from = end,
            _ => return Some(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(message: &str) -> Option<Digest> {
        let whole = {
            let mut delivery = Delivery::default();
            delivery.update(message.as_bytes());
            delivery.finish()
        };
        for cut in 0..message.len() {
            let mut delivery = Delivery::default();
            delivery.update(&message.as_bytes()[..cut]);
            delivery.update(&message.as_bytes()[cut..]);
            assert_eq!(delivery.finish(), whole, "cut at {cut}");
        }
        whole
    }

    const QUEUED: &str = "Received: from a.example (a.example [192.0.2.1])\r\n\tby mx.example.org (Postfix) with ESMTPS id 4XyZ\r\n\tfor \
                          <ana@example.org>; Sun, 22 Nov 2026 20:00:00 +0000\r\nSubject: x\r\n\r\nText.\r\n";

    fn delivered(server: &str, id: &str) -> String {
        format!(
            "Return-Path: <a@a.example>\r\nDelivered-To: ana\r\nReceived: from imap-1 ([192.0.2.9])\r\n\tby {server} with LMTP\r\n\tid {id}\r\n\t\
             (envelope-from <a@a.example>)\r\n\tfor <ana>; Sun, 22 Nov 2026 20:00:01 +0000\r\n{QUEUED}"
        )
    }

    #[test]
    fn two_deliveries_of_one_mail_are_the_same() {
        let first = of(&delivered("mail-a", "1"));
        assert!(first.is_some() && first == of(&delivered("dr-1", "2")));
        assert_eq!(first, of(QUEUED));
        assert_ne!(first, of(&delivered("dr-1", "2").replace("4XyZ", "4XyA")));
        assert_ne!(first, of(&delivered("dr-1", "2").replace("Text", "Other text")));
    }

    #[test]
    fn what_no_exchanger_handed_over_is_no_delivery() {
        for other in
            ["", "Subject: x\r\n\r\nText.\r\n", "no header", "Received: by hand\r\n\r\n", "Return-Path: <>\r\n\r\nText"]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
