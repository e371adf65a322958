//! Verifies one mailbox: what both sides hold, listed from the servers themselves, compared.
//!
//! Keeps true: verification reads only, and a listing that failed is an error, never a difference.

use std::{collections::BTreeMap, io};

use sqlx::PgPool;
use understudy_database::{
    journal::{self, Target},
    mirror::{self, MirrorMessage},
};
use understudy_imap_session::{Address, Error, Login, Session};
use understudy_protocol::{
    FolderPath, Uid,
    messages::{Asked, InventoryFrame, Trouble},
};
use understudy_replication::{
    inventory::{self, Frames},
    trouble::explain,
};

use crate::{
    compare::{Comparison, Holdings, compare},
    directives::DirectiveBoard,
};

/// Rows of the UID map read at once.
const SLICE: i64 = 10_000;

/// Compares both sides of a mailbox once. The caller has waited until what was captured is applied.
pub(crate) async fn verify(
    pool: &PgPool,
    board: &DirectiveBoard,
    target: &Target,
    bodies: bool,
) -> Result<Comparison, Trouble> {
    let (primary, standby) = tokio::try_join!(async { primary_holdings(board, target, bodies).await }, async {
        standby_holdings(target, bodies).await.map_err(|error| explain(&target.standby.name, &error))
    },)?;
    let mirror = uid_maps(pool, target).await.map_err(|error| internal(&error))?;
    Ok(compare(&primary, &standby, &mirror))
}

/// A failure that is nobody's fault outside.
pub(crate) fn internal(error: &dyn std::error::Error) -> Trouble {
    Trouble {
        kind: "internal".to_owned(),
        reason: format!("the recovery gateway could not: {error}"),
        remedy: "Try again; its log says more.".to_owned(),
        fault: false,
    }
}

async fn primary_holdings(board: &DirectiveBoard, target: &Target, bodies: bool) -> Result<Holdings, Trouble> {
    let mut question = board.ask(Asked::Inventory { mailbox: target.mailbox, bodies });
    let mut gathering = Gathering::default();
    while let Some(frame) = question.frames.recv().await {
        gathering.take(frame);
    }
    question.answer().await?;
    gathering.whole().ok_or_else(|| Trouble {
        kind: "link".to_owned(),
        reason: "the primary's list did not arrive whole".to_owned(),
        remedy: "Try again once the link is up.".to_owned(),
        fault: false,
    })
}

async fn standby_holdings(target: &Target, bodies: bool) -> Result<Holdings, Error> {
    let address = Address::parse(&target.standby.imap, target.standby.ca_file.clone())?;
    let login = Login::for_user(&target.standby.login, &target.address).await?;
    let mut session = Session::open(&address, &login).await?;
    let mut gathering = Gathering::default();
    inventory::list(&mut session, bodies, &mut gathering).await?;
    session.logout().await;
    gathering.whole().ok_or(Error::Protocol("the list ended early"))
}

async fn uid_maps(
    pool: &PgPool,
    target: &Target,
) -> understudy_database::Result<BTreeMap<FolderPath, Vec<MirrorMessage>>> {
    let mut maps = BTreeMap::new();
    for folder in mirror::folders(pool, target.mailbox).await? {
        let mut map = Vec::new();
        let mut after = Uid(0);
        loop {
            let slice = mirror::messages(pool, target.mailbox, folder.folder, after, SLICE).await?;
            let Some(last) = slice.last() else { break };
            after = last.uid;
            map.extend(slice);
        }
        maps.insert(folder.path, map);
    }
    Ok(maps)
}

/// Is there nothing left between what was received and what is applied?
pub(crate) async fn is_settled(pool: &PgPool, target: &Target) -> understudy_database::Result<bool> {
    let numbers = journal::numbers(pool, target.mailbox).await?;
    Ok(numbers.is_some_and(|numbers| numbers.received == numbers.applied))
}

/// Frames of an inventory, gathered.
#[derive(Default)]
struct Gathering {
    holdings: Holdings,
    current: Option<FolderPath>,
    ended: bool,
}

impl Gathering {
    fn take(&mut self, frame: InventoryFrame) {
        match frame {
            InventoryFrame::Start { subscriptions } => {
                self.holdings.subscriptions = subscriptions.into_iter().collect()
            }
            InventoryFrame::Folder { path, selectable, .. } => {
                self.current = selectable.then(|| path.clone());
                if selectable {
                    self.holdings.folders.insert(path, Vec::new());
                }
            }
            InventoryFrame::Messages(messages) => {
                if let Some(folder) = self.current.as_ref().and_then(|path| self.holdings.folders.get_mut(path)) {
                    folder.extend(messages);
                }
            }
            InventoryFrame::End => self.ended = true,
        }
    }

    fn whole(self) -> Option<Holdings> {
        self.ended.then_some(self.holdings)
    }
}

impl Frames for Gathering {
    async fn frame(&mut self, frame: InventoryFrame) -> io::Result<()> {
        self.take(frame);
        Ok(())
    }
}
