//! Opening a folder, and what the server says of it then.

use understudy_protocol::{ModSeq, Uid, UidValidity};

use crate::{
    Error, FolderName, Result, Session,
    line::Line,
    response::{Status, Untagged},
    token::{Token, Tokens, number},
};

/// What a server says when a folder is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    pub uid_validity: UidValidity,
    pub uid_next: Uid,
    /// HIGHESTMODSEQ; 0 where the server keeps none.
    pub mod_seq: ModSeq,
    pub exists: u32,
    /// `None` when the server did not say: then all flags are permanent (RFC 3501 §6.3.1).
    pub permanent_flags: Option<Vec<String>>,
    /// MAILBOXID (RFC 8474 §4.2), where the server says it here.
    pub identity: Option<String>,
    pub read_only: bool,
}

/// The folder that is open.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    name: FolderName,
    read_only: bool,
    /// When it was opened.
    pub(crate) exists: u32,
}

#[derive(Debug, Default)]
struct Said {
    uid_validity: Option<UidValidity>,
    uid_next: Option<Uid>,
    mod_seq: Option<ModSeq>,
    exists: Option<u32>,
    permanent_flags: Option<Vec<String>>,
    identity: Option<String>,
}

impl Said {
    fn heard(&mut self, untagged: &Untagged<'_>) -> bool {
        let number32 = |digits: &[u8]| number(digits).and_then(|value| u32::try_from(value).ok());
        if let Untagged::Data { number: Some(count), name, .. } = untagged
            && name.eq_ignore_ascii_case(b"EXISTS")
        {
            self.exists = Some(*count);
        } else if let Some(digits) = untagged.code("UIDVALIDITY") {
            self.uid_validity = number32(digits).map(UidValidity);
        } else if let Some(digits) = untagged.code("UIDNEXT") {
            self.uid_next = number32(digits).map(Uid);
        } else if let Some(digits) = untagged.code("HIGHESTMODSEQ") {
            self.mod_seq = number(digits).map(ModSeq);
        } else if let Some(flags) = untagged.code("PERMANENTFLAGS") {
            let flags = Tokens::new(flags).filter_map(|token| match token {
                Token::Atom(flag) => Some(String::from_utf8_lossy(flag).into_owned()),
                _ => None,
            });
            self.permanent_flags = Some(flags.collect());
        } else if let Some(identity) = untagged.code("MAILBOXID") {
            let identity = identity.trim_ascii().strip_prefix(b"(").and_then(|text| text.strip_suffix(b")"));
            self.identity = identity.map(|text| String::from_utf8_lossy(text).into_owned());
        } else {
            return untagged.data("FLAGS").is_some() || untagged.data("RECENT").is_some();
        }
        true
    }
}

impl Session {
    /// Opens a folder to read; changes nothing, not even `\Recent`. `None` when there is no such folder.
    pub async fn examine(&mut self, name: &FolderName) -> Result<Option<Selected>> {
        self.open_folder("EXAMINE", name).await
    }

    /// Opens a folder to write. `None` when there is no such folder.
    pub async fn select(&mut self, name: &FolderName) -> Result<Option<Selected>> {
        self.open_folder("SELECT", name).await
    }

    /// Closes the open folder and expunges nothing.
    pub async fn unselect(&mut self) -> Result<()> {
        let Some(opened) = self.opened.clone() else { return Ok(()) };
        if self.offers("UNSELECT") {
            self.conversation.run("UNSELECT", Line::new("UNSELECT")).await?;
        } else {
            // RFC 3501 §6.4.2: CLOSE expunges, unless the folder is open to read only.
            if !opened.read_only && self.examine(&opened.name).await?.is_none() {
                return Ok(());
            }
            self.conversation.run("CLOSE", Line::new("CLOSE")).await?;
        }
        self.opened = None;
        Ok(())
    }

    async fn open_folder(&mut self, command: &'static str, name: &FolderName) -> Result<Option<Selected>> {
        let mut line = Line::new(command).name(name);
        // Once enabled it need not be asked for (RFC 7162 §3.1.8).
        if !self.enabled && self.offers("CONDSTORE") {
            line = line.text(" (CONDSTORE)");
        }
        let mut said = Said::default();
        // RFC 9051 §6.3.2: whatever comes of it, the folder open before is closed.
        self.opened = None;
        let outcome = self.conversation.ask(line, &mut |_, untagged| Ok(said.heard(untagged))).await?;
        if outcome.status == Status::No {
            return self.missing_or(outcome, command, name).await;
        }
        let read_only = command == "EXAMINE" || outcome.code_is(&["READ-ONLY"]);
        outcome.ok(command)?;
        let exists = said.exists.ok_or(Error::Protocol("it did not say how many messages a folder holds"))?;
        let uid_validity = said.uid_validity.ok_or(Error::Protocol("it keeps no UIDVALIDITY"))?;
        self.opened = Some(Opened { name: name.clone(), read_only, exists });
        let uid_next = match said.uid_next {
            Some(uid_next) => uid_next,
            // Old servers do not say.
            None => Uid(self.uids(Uid(1)).await?.ranges().last().map_or(1, |(_, high)| high.0.saturating_add(1))),
        };
        Ok(Some(Selected {
            uid_validity,
            uid_next,
            mod_seq: said.mod_seq.unwrap_or_default(),
            exists,
            permanent_flags: said.permanent_flags,
            identity: said.identity,
            read_only,
        }))
    }
}
