//! Fetches one message from the primary again, for a recovery site where what rests of it is damaged.
//!
//! In: where it was captured, and its digest. Out: its octets on the link, and whether they went.
//! Keeps true: nothing about the mailbox or its journal changes; another message under the same number is not sent.

use std::io::{self, SeekFrom};

use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};
use tokio_util::io::ReaderStream;
use understudy_database::source::Spooled;
use understudy_imap_session::{Address, Error, Login, Session};
use understudy_protocol::{
    ContentRef, FolderPath, Uid, UidSet,
    messages::{Assignment, Reported, Trouble},
    server::Server,
};
use understudy_replication::trouble::explain;
use uuid::Uuid;

use crate::{
    link::{Body, Link},
    spool::Spool,
};

/// Read and sent at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// What is asked for.
pub(crate) struct Wanted {
    pub(crate) path: FolderPath,
    pub(crate) uid: Uid,
    pub(crate) content: ContentRef,
}

/// Sends the message, if the primary still has it.
pub(crate) async fn send(
    spool: &Spool,
    link: &Link,
    id: Uuid,
    assignment: &Assignment,
    server: &Server,
    wanted: Wanted,
) -> Result<Reported, Trouble> {
    let fetched = fetch(spool, assignment, server, &wanted).await.map_err(|error| explain(&server.name, &error))?;
    let Some((offset, spooled)) = fetched else {
        return Err(Trouble {
            kind: "no_such_message".to_owned(),
            reason: format!("{} has no such message any more", server.name),
            remedy: "Nothing is to be done: a message that is gone there is removed from the standby too.".to_owned(),
            fault: false,
        });
    };
    let sent = async {
        let body = body(spool, &spooled, offset, wanted.content.size).await?;
        link.content(id, body).await
    };
    let sent = sent.await;
    if let Spooled::File(name) = spooled {
        spool.remove(&[name]);
    }
    sent.map(|()| Reported::Content).map_err(|error| Trouble {
        kind: "link".to_owned(),
        reason: format!("the message could not be sent: {error:#}"),
        remedy: "It is asked for again by itself.".to_owned(),
        fault: false,
    })
}

/// Where the message lies now; none when the primary has another one, or none, under that number.
async fn fetch(
    spool: &Spool,
    assignment: &Assignment,
    server: &Server,
    wanted: &Wanted,
) -> Result<Option<(u64, Spooled)>, Error> {
    let address = Address::parse(&server.imap, server.ca_file.clone())?;
    let login = Login::for_user(&server.login, &assignment.address).await?;
    let mut session = Session::open(&address, &login).await?;
    let name = session.name_for(&wanted.path);
    if session.examine(&name).await?.is_none() {
        return Ok(None);
    }
    let mut spooling = spool.begin();
    session.bodies(&UidSet::range(wanted.uid, wanted.uid), &mut spooling).await?;
    session.logout().await;
    let (contents, spooled) = spooling.finish().await.map_err(Error::Sink)?;
    match contents.first() {
        Some((content, offset)) if *content == wanted.content => Ok(Some((*offset, spooled))),
        _ => {
            if let Spooled::File(name) = spooled {
                spool.remove(&[name]);
            }
            Ok(None)
        }
    }
}

/// The octets as the body of a request. A file that is too short makes a body that is, and that is refused.
async fn body(spool: &Spool, spooled: &Spooled, offset: u64, size: u64) -> io::Result<Body> {
    match spooled {
        Spooled::Nothing => Ok(Body::default()),
        Spooled::Inline(bytes) => {
            let piece = usize::try_from(offset).ok().zip(usize::try_from(offset.saturating_add(size)).ok());
            let piece = piece.and_then(|(start, end)| bytes.get(start..end));
            Ok(piece.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec().into())
        }
        Spooled::File(name) => {
            let mut file = File::open(spool.path(name)).await?;
            file.seek(SeekFrom::Start(offset)).await?;
            Ok(Body::wrap_stream(ReaderStream::with_capacity(file.take(size), PIECE_BYTES)))
        }
    }
}
