//! Answers to what the recovery site asks about a primary: what it holds, what it can do.

use std::{io, path::Path};

use bytes::Bytes;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use understudy_database::source;
use understudy_doveadm::Doveadm;
use understudy_imap_session::{Address, Error, Login, Session};
use understudy_protocol::{
    FolderPath, MailboxId, UidSet, codec,
    messages::{Assignment, InventoryFrame, Reported, Trouble},
    server::{LoginMethod, Server},
};
use understudy_replication::{
    inventory::{self, Frames, Wanted},
    trouble::explain,
};
use uuid::Uuid;

use crate::link::{Body, Link};

pub(crate) use understudy_replication::check::check;

/// Frames listed ahead of the link.
const FRAMES_AHEAD: usize = 4;

/// Sends what the primary holds of a mailbox.
pub(crate) async fn inventory(
    pool: &PgPool,
    link: &Link,
    id: Uuid,
    assignment: &Assignment,
    server: &Server,
    mut wanted: Wanted,
) -> Result<Reported, Trouble> {
    wanted.unreadable = unreadable(pool, assignment.mailbox).await.map_err(|error| Trouble {
        kind: "internal".to_owned(),
        reason: format!("the source gateway's database did not answer: {error}"),
        remedy: "Try again; the log of the source gateway says more.".to_owned(),
        fault: false,
    })?;
    let wanted = &wanted;
    let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
    let stream = ReceiverStream::new(receiver);
    let listing = async {
        let listed = list(assignment, server, wanted, Sender(sender.clone())).await;
        if listed.is_err() {
            // Breaks the request off: half a list must not look like a whole one.
            let _ = sender.send(Err(io::Error::other("the listing failed"))).await;
        }
        drop(sender);
        listed
    };
    let (listed, sent) = tokio::join!(listing, link.inventory(id, Body::wrap_stream(stream)));
    listed.map_err(|error| explain(&server.name, &error))?;
    sent.map_err(|error| Trouble {
        kind: "link".to_owned(),
        reason: format!("the list could not be sent: {error:#}"),
        remedy: "Try again once the link is up.".to_owned(),
        fault: false,
    })?;
    Ok(Reported::Inventory)
}

/// What the primary could not give when it was last asked: asking again would end the listing.
async fn unreadable(pool: &PgPool, mailbox: MailboxId) -> understudy_database::Result<Vec<(FolderPath, UidSet)>> {
    let messages = source::unreadable(pool, mailbox).await?;
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let folders = source::folders(pool, mailbox).await?;
    let path = |id| folders.iter().find(|folder| folder.folder == id).map(|folder| folder.path.clone());
    Ok(messages.into_iter().filter_map(|m| Some((path(m.folder)?, UidSet::range(m.uid, m.uid)))).collect())
}

async fn list(assignment: &Assignment, server: &Server, wanted: &Wanted, mut out: Sender) -> Result<(), Error> {
    let address = Address::parse(&server.imap, server.ca_file.clone())?;
    let login = Login::for_user(&server.login, &assignment.address).await?;
    let mut session = Session::open(&address, &login).await?;
    inventory::list(&mut session, wanted, &mut out).await?;
    session.logout().await;
    Ok(())
}

struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Frames for Sender {
    async fn frame(&mut self, frame: InventoryFrame) -> io::Result<()> {
        let mut bytes = Vec::new();
        codec::encode_frame(&frame, &mut bytes).map_err(io::Error::other)?;
        self.0.send(Ok(bytes.into())).await.map_err(|_| io::Error::other("the recovery gateway stopped listening"))
    }
}

/// The users a primary serves, where its management interface or the file of log-ins tells.
pub(crate) async fn discover(server: &Server) -> Result<Reported, Trouble> {
    let users = match (&server.manage, server.login.method, &server.login.password_file) {
        (Some(manage), ..) => {
            let listed = async {
                Doveadm::open(&manage.doveadm, &manage.key_file, server.ca_file.as_deref()).await?.users().await
            };
            listed.await.map_err(|error| Trouble {
                // Nobody asks again by itself.
                remedy: error.remedy().unwrap_or("Ask again once it answers.").to_owned(),
                ..error.trouble(&server.name)
            })?
        }
        (None, LoginMethod::Each, Some(file)) => named_in(file).await?,
        _ => {
            return Err(cannot_discover(
                format!("{} cannot tell its users over IMAP", server.name),
                format!(
                    "Give a list: `understudy mailbox protect --from-file USERS.csv`. Or, of a Dovecot, name its management \
                     interface: `understudy server change {} --doveadm URL --doveadm-key-file FILE`.",
                    server.name
                ),
            ));
        }
    };
    Ok(Reported::Discover { users })
}

/// Whom a file of log-ins names.
async fn named_in(file: &Path) -> Result<Vec<String>, Trouble> {
    let text = tokio::fs::read_to_string(file).await.map_err(|error| {
        cannot_discover(
            format!("{} could not be read: {error}", file.display()),
            "Make the file readable for the source gateway.".to_owned(),
        )
    })?;
    Ok(text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
}

fn cannot_discover(reason: String, remedy: String) -> Trouble {
    Trouble { kind: "cannot_discover".to_owned(), reason, remedy, fault: false }
}
