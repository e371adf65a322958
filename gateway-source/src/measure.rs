//! How much the users of a primary have, before anybody is protected: folders, messages, bytes. Reads only.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use understudy_imap_session::{Address, Error, Login, Session};
use understudy_protocol::{
    Uid, UidSet,
    messages::{MailboxSize, Reported, Unmeasured},
    server::Server,
};
use understudy_replication::trouble::explain;

/// Users looked at side by side.
const SIDE_BY_SIDE: usize = 4;
/// Of a folder, the sizes of so many messages are asked, spread over it.
const SAMPLE: u64 = 500;
/// Whoever was not looked at by then is left out.
const LONGEST: Duration = Duration::from_secs(40);

/// Looks at as many of these users as there is time for.
pub(crate) async fn measure(server: &Server, addresses: Vec<String>, mask: &[String]) -> Reported {
    let end = Instant::now() + LONGEST;
    let mut looks = stream::iter(addresses)
        .map(|address| async move {
            let size = tokio::time::timeout_at(end, size(server, &address, mask)).await.ok()?;
            Some(size.map_err(|error| Unmeasured { address, trouble: explain(&server.name, &error) }))
        })
        .buffered(SIDE_BY_SIDE);
    let (mut sizes, mut refused) = (Vec::new(), Vec::new());
    while let Some(look) = looks.next().await {
        match look {
            Some(Ok(size)) => sizes.push(size),
            Some(Err(unmeasured)) => refused.push(unmeasured),
            None => {}
        }
    }
    Reported::Measured { sizes, refused }
}

async fn size(server: &Server, address: &str, mask: &[String]) -> Result<MailboxSize, Error> {
    let at = Address::parse(&server.imap, server.ca_file.clone())?;
    let login = Login::for_user(&server.login, address).await?;
    let mut session = Session::open(&at, &login).await?;
    session.mask(mask);
    let mut size = MailboxSize { address: address.to_owned(), ..MailboxSize::default() };
    for folder in session.sweep().await?.folders.into_iter().filter(|folder| folder.selectable) {
        size.folders += 1;
        if folder.status.is_some_and(|status| status.messages == 0) || session.examine(&folder.name).await?.is_none() {
            continue;
        }
        let uids = session.uids(Uid(1)).await?;
        let step = uids.len().div_ceil(SAMPLE).max(1);
        let some: UidSet = uids.iter().step_by(usize::try_from(step).unwrap_or(usize::MAX)).collect();
        let rows = if some.is_empty() { Vec::new() } else { session.rows(&some).await? };
        let seen: u64 = rows.iter().map(|row| row.size).sum();
        size.messages += uids.len();
        size.bytes += seen * uids.len() / (rows.len() as u64).max(1);
    }
    session.logout().await;
    Ok(size)
}
