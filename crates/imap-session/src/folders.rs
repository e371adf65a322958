//! Creating, renaming, deleting and subscribing folders.
//!
//! Keeps true: each may run twice with the same result.

use std::time::Duration;

use understudy_protocol::FolderPath;

use crate::{
    Error, FolderName, Result, Session, conversation::Outcome, line::Line, response::Status, sweep::canonical,
};

/// After it, a server's clock shows another second than before.
const NEXT_SECOND: Duration = Duration::from_millis(1_050);

impl Session {
    /// How this server would spell `path`: namespace prefix, separator, modified UTF-7.
    ///
    /// A component's separator or control character becomes `=XX`, its code in two upper-case hex digits; a `=` that
    /// would read as the beginning of such an escape becomes `=3D`. Listing the name gives `path` back. A name listed
    /// by a sweep of this session is returned exactly as it was listed.
    #[must_use]
    pub fn name_for(&self, path: &FolderPath) -> FolderName {
        self.naming.name(path)
    }

    /// Creates a folder, with its special use where the server takes one. One that exists already is fine, and gets it too.
    pub async fn create(&mut self, name: &FolderName, special_use: &[String]) -> Result<()> {
        let uses: Vec<String> = special_use
            .iter()
            .filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            .map(|name| format!("\\{name}"))
            .collect();
        if self.offers("CREATE-SPECIAL-USE") && !uses.is_empty() {
            let line = Line::new("CREATE").name(name).text(&format!(" (USE ({}))", uses.join(" ")));
            // RFC 6154 §3: [USEATTR] when the server will not have that use there. The folder matters more.
            if self.verdict(line).await?.status == Status::Ok {
                return Ok(());
            }
        }
        let outcome = self.verdict(Line::new("CREATE").name(name)).await?;
        let refused = match outcome.clone().ok("CREATE") {
            Err(error @ Error::Refused { .. }) => error,
            other => return other.map(drop),
        };
        if outcome.code_is(&["ALREADYEXISTS"]) || self.is_listed(name).await? {
            if !uses.is_empty() {
                self.set_special_uses(name, special_use).await?;
            }
            return Ok(());
        }
        Err(refused)
    }

    /// Gives a folder exactly these special uses (RFC 6154 §5.3). Answers whether the server did: it need not let anyone.
    pub async fn set_special_uses(&mut self, name: &FolderName, special_use: &[String]) -> Result<bool> {
        if !self.offers("METADATA") {
            return Ok(false);
        }
        let uses: Vec<String> = special_use
            .iter()
            .filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            .map(|name| format!("\\\\{name}"))
            .collect();
        let value = if uses.is_empty() { "NIL".to_owned() } else { format!("\"{}\"", uses.join(" ")) };
        let line = Line::new("SETMETADATA").name(name).text(&format!(" (/private/specialuse {value})"));
        Ok(self.verdict(line).await?.status == Status::Ok)
    }

    /// Renames a folder; those below go with it.
    pub async fn rename(&mut self, from: &FolderName, to: &FolderName) -> Result<()> {
        self.verdict_unguarded(Line::new("RENAME").name(from).name(to), from).await?.ok("RENAME").map(drop)
    }

    /// Deletes a folder. One that is not there is fine.
    ///
    /// Cyrus (3.6, `delete_mode: delayed`) keeps what is deleted under a name that ends in the second, and refuses, without a
    /// code, a name's second deletion within one: so a refusal without a code is asked about again in the next second.
    pub async fn delete(&mut self, name: &FolderName) -> Result<()> {
        match self.delete_once(name).await {
            Err(Error::Refused { code: None, .. }) => {
                tokio::time::sleep(NEXT_SECOND).await;
                self.delete_once(name).await
            }
            outcome => outcome,
        }
    }

    async fn delete_once(&mut self, name: &FolderName) -> Result<()> {
        let outcome = self.verdict_unguarded(Line::new("DELETE").name(name), name).await?;
        if outcome.status == Status::No {
            return self.missing_or::<()>(outcome, "DELETE", name).await.map(drop);
        }
        outcome.ok("DELETE").map(drop)
    }

    pub async fn subscribe(&mut self, name: &FolderName) -> Result<()> {
        self.verdict(Line::new("SUBSCRIBE").name(name)).await?.ok("SUBSCRIBE").map(drop)
    }

    /// Removes a subscription. One that is not there is fine.
    pub async fn unsubscribe(&mut self, name: &FolderName) -> Result<()> {
        let outcome = self.verdict(Line::new("UNSUBSCRIBE").name(name)).await?;
        if outcome.status == Status::No && !self.is_subscribed(name).await? {
            return Ok(());
        }
        outcome.ok("UNSUBSCRIBE").map(drop)
    }

    /// A refusal: `None` when the reason is that there is no such folder, else the error.
    ///
    /// Only some servers say [NONEXISTENT]. A bare NO may as well be a passing failure, and to a mirror that must not
    /// look like a deleted folder: so the server is asked whether it lists the name.
    pub(crate) async fn missing_or<T>(
        &mut self,
        outcome: Outcome,
        command: &'static str,
        name: &FolderName,
    ) -> Result<Option<T>> {
        let missing = match &outcome.code {
            Some(_) if outcome.code_is(&["NONEXISTENT", "TRYCREATE"]) => true,
            Some(_) => false,
            // A level that only holds others is no folder that could be opened or counted.
            None => !self.lists(name, &["\\NonExistent", "\\Noselect"]).await?,
        };
        if missing { Ok(None) } else { outcome.ok(command).map(|_| None) }
    }

    /// Cyrus deletes no folder that has a special use, and moves it below no other. The use is an annotation there (RFC 6154
    /// §4): it is taken off, and the command repeated.
    async fn verdict_unguarded(&mut self, line: Line, name: &FolderName) -> Result<Outcome> {
        let outcome = self.verdict(line.clone()).await?;
        let guarded = outcome.status == Status::No && outcome.text.contains("SPECIAL-USE");
        if guarded && self.set_special_uses(name, &[]).await? { self.verdict(line).await } else { Ok(outcome) }
    }

    async fn verdict(&mut self, line: Line) -> Result<Outcome> {
        self.conversation.ask(line, &mut |_, _| Ok(false)).await
    }

    /// Is there anything of this name, be it only a level that holds other folders?
    pub async fn is_listed(&mut self, name: &FolderName) -> Result<bool> {
        self.lists(name, &["\\NonExistent"]).await
    }

    async fn lists(&mut self, name: &FolderName, unless: &[&str]) -> Result<bool> {
        self.answers_with(Line::new("LIST \"\"").name(name), "LIST", name, unless).await
    }

    async fn is_subscribed(&mut self, name: &FolderName) -> Result<bool> {
        self.answers_with(Line::new("LSUB \"\"").name(name), "LSUB", name, &["\\NonExistent"]).await
    }

    /// Does a listing hold exactly this name, without any of these attributes? A name with wildcards lists others too.
    async fn answers_with(
        &mut self,
        line: Line,
        answer: &'static str,
        name: &FolderName,
        unless: &[&str],
    ) -> Result<bool> {
        let wanted = canonical(name.as_bytes());
        let mut found = false;
        let outcome = self
            .conversation
            .ask(line, &mut |_, said| {
                let Some(mut arguments) = said.data(answer) else { return Ok(false) };
                let attributes = arguments;
                let listed =
                    arguments.skip_value().and_then(|()| arguments.skip_value()).and_then(|()| arguments.string());
                let is_one = |a: &[u8]| unless.iter().any(|attribute| a.eq_ignore_ascii_case(attribute.as_bytes()));
                let gone = attributes
                    .take_while(|token| *token != crate::token::Token::Close)
                    .any(|token| matches!(token, crate::token::Token::Atom(a) if is_one(a)));
                found |= !gone && listed.is_some_and(|listed| canonical(&listed) == wanted);
                Ok(true)
            })
            .await?;
        outcome.ok(answer)?;
        Ok(found)
    }
}
