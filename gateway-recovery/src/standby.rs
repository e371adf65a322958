//! Sessions on standbys, kept for a while after their work is done.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use understudy_database::journal::Target;
use understudy_doveadm::Doveadm;
use understudy_imap_session::{Address, Error, FolderName, Login, Selected, Session};
use understudy_protocol::{
    MailboxId,
    messages::Finding,
    server::{LoginConfig, Server},
};

/// What is said of opening a folder that is not there.
pub(crate) const GONE: &str = "a folder of the mirror is gone from the standby";
/// A session without work is closed after this.
const IDLE: Duration = Duration::from_secs(30);

/// The way to set numbers that IMAP cannot: UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ.
#[derive(Clone)]
pub(crate) enum Manage {
    /// The standby offers none.
    No,
    Yes(Doveadm),
    /// It cannot be used, and why.
    Broken(String),
}

impl Manage {
    async fn open(server: &Server) -> Self {
        let Some(manage) = &server.manage else { return Self::No };
        match Doveadm::open(&manage.doveadm, &manage.key_file, server.ca_file.as_deref()).await {
            Ok(doveadm) => Self::Yes(doveadm),
            Err(error) => {
                let trouble = error.trouble(&server.name);
                tracing::warn!(
                    server.name = server.name,
                    kind = trouble.kind,
                    "The management interface cannot be used"
                );
                Self::Broken(format!("{}. {}", trouble.reason, trouble.remedy))
            }
        }
    }
}

/// A session on a standby that knows which folder is open.
pub(crate) struct Standby {
    session: Session,
    manage: Manage,
    opened: Option<FolderName>,
    /// Of a person: each is a fresh start, with keys read anew.
    attempt: i32,
    /// To be opened anew for the next work.
    expired: bool,
    server: Server,
    address: String,
}

impl Standby {
    async fn open(target: &Target) -> Result<Self, Error> {
        let mut standby = Self::at(&target.standby, &target.standby.login, &target.address).await?;
        if !standby.session.capabilities().has("UIDPLUS") {
            return Err(Error::Unsupported("UIDPLUS"));
        }
        standby.attempt = target.attempt;
        Ok(standby)
    }

    /// A session on any server, with any of its log-ins.
    pub(crate) async fn at(server: &Server, login: &LoginConfig, address: &str) -> Result<Self, Error> {
        let at = Address::parse(&server.imap, server.ca_file.clone())?;
        let login = Login::for_user(login, address).await?;
        let mut session = Session::open(&at, &login).await?;
        session.count_as(&server.name);
        let manage = Manage::open(server).await;
        Ok(Self {
            session,
            manage,
            opened: None,
            attempt: 0,
            expired: false,
            server: server.clone(),
            address: address.to_owned(),
        })
    }

    /// Opens a folder to read what is there now; changes nothing. `None` when it is gone.
    pub(crate) async fn examine(&mut self, name: &FolderName) -> Result<Option<Selected>, Error> {
        self.opened = None;
        self.session.examine(name).await
    }

    /// Says goodbye.
    pub(crate) async fn log_out(self) {
        self.session.logout().await;
    }

    /// The session, for commands that need no open folder and open none.
    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The server's management interface.
    pub(crate) fn manage(&self) -> &Manage {
        &self.manage
    }

    /// Is not kept for later: its key or its address may have been corrected meanwhile.
    pub(crate) fn expire(&mut self) {
        self.expired = true;
    }

    /// Closes the open folder if it is this one.
    pub(crate) async fn close_if(&mut self, name: &FolderName) -> Result<(), Error> {
        if self.opened.as_ref() == Some(name) { self.close().await } else { Ok(()) }
    }

    /// Opens a folder for writing, unless it is open already; what it is like is told when it was opened now.
    pub(crate) async fn select(&mut self, name: &FolderName) -> Result<Option<Selected>, Error> {
        if self.opened.as_ref() == Some(name) {
            return Ok(None);
        }
        self.opened = None;
        let selected = self.session.select(name).await?;
        let selected = selected.ok_or(Error::Protocol(GONE))?;
        self.opened = Some(name.clone());
        Ok(Some(selected))
    }

    /// Closes the open folder, so that it can be renamed or deleted.
    pub(crate) async fn close(&mut self) -> Result<(), Error> {
        self.opened = None;
        self.session.unselect().await
    }
}

/// Sessions waiting for their mailbox's next transaction.
#[derive(Default)]
pub(crate) struct Standbys {
    idle: Mutex<HashMap<MailboxId, (Standby, Instant)>>,
}

impl Standbys {
    /// A session for this mailbox: the one kept, or a new one.
    pub(crate) async fn open(&self, target: &Target) -> Result<Standby, Error> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(&target.mailbox);
        if let Some((mut standby, _)) = kept
            && standby.server == target.standby
            && standby.address == target.address
            && standby.attempt == target.attempt
            // The server may have closed it meanwhile.
            && standby.session.noop().await.is_ok()
        {
            return Ok(standby);
        }
        Standby::open(target).await
    }

    /// Keeps a session for the next transaction, without an open folder: where a user deletes it meanwhile and makes it anew, Dovecot
    /// 2.3.19 takes the new one's index for a damaged one at our next command ("indexid changed"), and the mail in it is gone.
    pub(crate) async fn keep(&self, mailbox: MailboxId, mut standby: Standby) {
        if standby.expired || standby.close().await.is_err() {
            return;
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).insert(mailbox, (standby, Instant::now()));
    }

    /// Ends sessions that had no work for a while.
    pub(crate) async fn close_idle(&self) {
        self.close(IDLE).await;
    }

    pub(crate) async fn close_all(&self) {
        self.close(Duration::ZERO).await;
    }

    async fn close(&self, after: Duration) {
        let old: Vec<Standby> = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.extract_if(|_, (_, since)| since.elapsed() >= after).map(|(_, (standby, _))| standby).collect()
        };
        for standby in old {
            standby.session.logout().await;
        }
    }
}

/// Tells whether a standby's management interface answers, and what that means.
pub(crate) async fn check_manage(server: &Server) -> Finding {
    let finding = |level: &str, meaning: &str, remedy: &str| Finding {
        level: level.to_owned(),
        name: "doveadm".to_owned(),
        meaning: meaning.to_owned(),
        remedy: remedy.to_owned(),
    };
    let Some(manage) = &server.manage else {
        return finding(
            "note",
            "no management interface is named: folders get UIDs of the standby's own, so mail programs download messages \
             again when they come to it",
            "For a Dovecot standby, name its doveadm HTTP API with --doveadm and --doveadm-key-file.",
        );
    };
    let asked = async {
        let doveadm = Doveadm::open(&manage.doveadm, &manage.key_file, server.ca_file.as_deref()).await?;
        doveadm.commands().await
    };
    match asked.await {
        Ok(commands) if commands.iter().any(|command| command == "mailboxUpdate") => finding(
            "ok",
            "the management interface answers: folders get the primary's UIDVALIDITY and UIDs, so mail programs notice no \
             change of side",
            "",
        ),
        Ok(_) => finding(
            "failed",
            "the management interface answers, but offers no `mailboxUpdate`: UIDs cannot be kept",
            "Use a Dovecot 2.3 as the standby, or leave `manage` out.",
        ),
        Err(error) => {
            let trouble = error.trouble(&server.name);
            finding("failed", &format!("{}: UIDs cannot be kept", trouble.reason), &trouble.remedy)
        }
    }
}
