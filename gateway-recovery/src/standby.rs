//! Sessions on standbys, kept for a while after their work is done.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use understudy_database::journal::Target;
use understudy_imap_session::{Address, Error, FolderName, Login, Selected, Session};
use understudy_protocol::{MailboxId, server::Server};

/// A session without work is closed after this.
const IDLE: Duration = Duration::from_secs(30);

/// A session on a standby that knows which folder is open.
pub(crate) struct Standby {
    session: Session,
    opened: Option<FolderName>,
    server: Server,
    address: String,
}

impl Standby {
    async fn open(target: &Target) -> Result<Self, Error> {
        let address = Address::parse(&target.standby.imap, target.standby.ca_file.clone())?;
        let login = Login::for_user(&target.standby.login, &target.address).await?;
        let session = Session::open(&address, &login).await?;
        if !session.capabilities().has("UIDPLUS") {
            return Err(Error::Unsupported("UIDPLUS"));
        }
        Ok(Self { session, opened: None, server: target.standby.clone(), address: target.address.clone() })
    }

    /// The session, for commands that need no open folder and open none.
    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Opens a folder for writing, unless it is open already; what it is like is told when it was opened now.
    pub(crate) async fn select(&mut self, name: &FolderName) -> Result<Option<Selected>, Error> {
        if self.opened.as_ref() == Some(name) {
            return Ok(None);
        }
        self.opened = None;
        let selected = self.session.select(name).await?;
        let selected = selected.ok_or(Error::Protocol("a folder of the mirror is gone from the standby"))?;
        self.opened = Some(name.clone());
        Ok(Some(selected))
    }

    /// Closes the open folder, so that it can be renamed or deleted.
    pub(crate) async fn close(&mut self) -> Result<(), Error> {
        if self.opened.take().is_some() {
            self.session.unselect().await?;
        }
        Ok(())
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
            // The server may have closed it meanwhile.
            && standby.session.noop().await.is_ok()
        {
            return Ok(standby);
        }
        Standby::open(target).await
    }

    /// Keeps a session for the next transaction.
    pub(crate) fn keep(&self, mailbox: MailboxId, standby: Standby) {
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
