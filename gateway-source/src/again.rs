//! Fetches one message from the primary again, for a recovery site where what rests of it is damaged.
//!
//! In: where it was captured, and its digest. Out: its octets on the link, and whether they went.
//! Keeps true: nothing about the mailbox or its journal changes; another message under the same number is not sent.

use std::{fs::File, io, sync::Arc};

use bytes::Bytes;
use tokio::sync::mpsc;
use understudy_database::source::Spooled;
use understudy_imap_session::{Address, Error, Login, Session};
use understudy_protocol::{
    ContentRef, FolderPath, Uid, UidSet,
    messages::{Assignment, Reported, Trouble},
    server::Server,
};
use understudy_replication::{pack, trouble::explain};
use uuid::Uuid;

use crate::{
    link::{Body, Link},
    spool::Spool,
};

/// Read and sent at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces read ahead of the link.
const PIECES_AHEAD: usize = 4;

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
        let body = body(spool, &spooled, offset, wanted.content.size)?;
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

/// The octets as the body of a request.
fn body(spool: &Spool, spooled: &Spooled, offset: u64, size: u64) -> io::Result<Body> {
    let name = match spooled {
        Spooled::Nothing => return Ok(Body::default()),
        Spooled::Inline(bytes) => {
            let piece = usize::try_from(offset).ok().zip(usize::try_from(offset.saturating_add(size)).ok());
            let piece = piece.and_then(|(start, end)| bytes.get(start..end));
            return Ok(piece.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?.to_vec().into());
        }
        Spooled::File(name) => name,
    };
    let file = Arc::new(File::open(spool.path(name))?);
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut done = 0;
        while done < size {
            let room = usize::try_from(size - done).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let mut piece = vec![0; room];
            let read = match pack::read_at(&file, offset + done, &mut piece) {
                Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                read => read,
            };
            let read = match read {
                Ok(read) => read,
                Err(error) => {
                    // Breaks the request off: half a message must not look like a whole one.
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            };
            piece.truncate(read);
            done += read as u64;
            if sender.blocking_send(Ok(piece.into())).is_err() {
                return;
            }
        }
    });
    Ok(Body::wrap_stream(futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    })))
}
