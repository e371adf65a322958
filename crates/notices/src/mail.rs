//! A message of the outbox as a mail.
//!
//! Keeps true: the same message is the same mail, byte for byte but for its boundary; nothing in it makes a header of its own.

use anyhow::Context;
use chrono::{DateTime, Utc};
use lettre::{
    Address, Message,
    message::{Mailbox, MultiPart, header},
};
use understudy_database::notice::Outgoing;

/// Says that no person wrote it, so that nobody answers with "out of office" (RFC 3834).
#[derive(Clone, Debug)]
struct AutoSubmitted;

impl header::Header for AutoSubmitted {
    fn name() -> header::HeaderName {
        header::HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> header::HeaderValue {
        header::HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// The mail to send.
pub(crate) fn mail(message: &Outgoing, sender: &Mailbox) -> anyhow::Result<Message> {
    let recipient: Address = message.recipient.parse().context("the recipient is no address")?;
    let id = format!("<{}@{}>", message.message_id.simple(), sender.email.domain());
    let at: DateTime<Utc> = message.created_at;
    Message::builder()
        .message_id(Some(id))
        .date(at.into())
        .from(sender.clone())
        .to(Mailbox::new(None, recipient))
        .header(AutoSubmitted)
        .subject(message.subject.clone())
        .multipart(MultiPart::alternative_plain_html(message.text.clone(), message.html.clone()))
        .context("the mail could not be put together")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(recipient: &str, subject: &str) -> Outgoing {
        Outgoing {
            message_id: uuid::Uuid::nil(),
            tenant_id: 1,
            topic: "fault".to_owned(),
            channel: "mail".to_owned(),
            recipient: recipient.to_owned(),
            subject: subject.to_owned(),
            text: "one\r\nBcc: two@example.org\r\n".to_owned(),
            html: "<p>one</p>".to_owned(),
            body: String::new(),
            created_at: DateTime::from_timestamp(1_700_000_000, 0).expect("a time"),
            attempts: 1,
        }
    }

    #[test]
    fn no_value_makes_a_header() {
        let sender: Mailbox = "Understudy <understudy@example.org>".parse().expect("an address");
        for subject in
            ["a\r\nBcc: all@example.org", "a\nBcc: all@example.org", "a\rBcc: all@example.org", "ä\r\n\r\nbody"]
        {
            let built = mail(&outgoing("ana@example.org", subject), &sender).expect("a mail");
            let bytes = built.formatted();
            let whole = String::from_utf8_lossy(&bytes);
            let (headers, _) = whole.split_once("\r\n\r\n").expect("a header");
            let names: Vec<&str> = headers
                .split("\r\n")
                .filter(|line| !line.starts_with([' ', '\t']))
                .filter_map(|line| line.split(':').next())
                .collect();
            assert!(!names.contains(&"Bcc") && names.contains(&"Auto-Submitted"), "{headers}");
            assert!(headers.contains("Message-ID: <00000000000000000000000000000000@example.org>"), "{headers}");
        }
        for recipient in
            ["ana@example.org\r\nBcc: all@example.org", "ana", "a@b>\r\nRCPT TO:<c@d", "\"a\r\n\"@example.org", ""]
        {
            assert!(mail(&outgoing(recipient, "a"), &sender).is_err(), "{recipient:?}");
        }
    }
}
