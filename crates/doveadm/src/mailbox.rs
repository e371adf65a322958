//! Numbers of a mailbox that IMAP cannot set: `mailboxUpdate`.

use serde_json::{Map, Value};
use understudy_protocol::{ModSeq, Uid, UidValidity};

use crate::Call;

/// Raises numbers of one mailbox. The mailbox must be there; it may be open in sessions meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailboxUpdate {
    /// The user as the server's user database knows it.
    pub user: String,
    /// In UTF-8, with the server's separator: not as IMAP spells it.
    pub mailbox: String,
    /// To be set while the mailbox is empty: clients take every UID for another message afterwards.
    pub uid_validity: Option<UidValidity>,
    /// The next UID becomes this, unless it is higher already.
    pub min_next_uid: Option<Uid>,
    /// HIGHESTMODSEQ becomes this, unless it is higher already; the next change gets a higher one.
    pub min_highest_mod_seq: Option<ModSeq>,
}

impl MailboxUpdate {
    pub(crate) fn call(&self) -> Call {
        let mut parameters = Map::new();
        let mut put = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                parameters.insert(name.to_owned(), Value::String(value));
            }
        };
        put("user", Some(self.user.clone()));
        put("mailbox", Some(self.mailbox.clone()));
        put("uidValidity", self.uid_validity.map(|number| number.to_string()));
        put("minNextUid", self.min_next_uid.map(|number| number.to_string()));
        put("minHighestModseq", self.min_highest_mod_seq.map(|number| number.to_string()));
        Call::new("mailboxUpdate", Value::Object(parameters))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_parameter_is_a_string() {
        let update = MailboxUpdate {
            user: "ann@x.test".to_owned(),
            mailbox: "Entwürfe/A".to_owned(),
            uid_validity: Some(UidValidity(7)),
            min_next_uid: Some(Uid(50)),
            ..MailboxUpdate::default()
        };
        let expected = json!({ "user": "ann@x.test", "mailbox": "Entwürfe/A", "uidValidity": "7", "minNextUid": "50" });
        assert_eq!(update.call(), Call::new("mailboxUpdate", expected));
    }
}
