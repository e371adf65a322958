//! Looks at a mail server, quickly or thoroughly.
//!
//! Keeps true: nothing is changed but a message that the canary's owner allowed to be written, which is removed again; a refused
//! log-in says nothing about the server.

use std::{io, path::Path, time::Duration};

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{Instant, timeout},
};
use understudy_imap_session::{Address, Append, Command, ContentSource, Error, Login, Session, Verdict, knock};
use understudy_protocol::{
    FolderPath, Uid, UidSet,
    server::{Server, ServerRole},
};
use url::Url;

use crate::{
    decide::{Fence, Kept},
    verdict::{Kind, LOOK_TIMEOUT, Observation, Outcome},
};

/// A thorough look that takes longer has failed.
const DEEP_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest line of an LMTP server, in bytes; longer ones are not read to their end.
const LONGEST_REPLY: u64 = 64 << 10;

/// Connection, TLS, greeting.
pub async fn quick(server: &Server) -> Observation {
    let began = Instant::now();
    let looked = async { knock(&Address::parse(&server.imap, server.ca_file.clone())?).await };
    let outcome = match timeout(LOOK_TIMEOUT, looked).await {
        Ok(Ok(())) => Outcome::Good,
        Ok(Err(error)) => outcome(&error),
        Err(_) => Outcome::Bad(format!("no greeting within {} s", LOOK_TIMEOUT.as_secs())),
    };
    Observation { kind: Kind::Quick, outcome, took: began.elapsed() }
}

/// Log-in, a folder, a message; writing and delivery where that may be tried. `mailbox` is looked at where no canary is named.
pub async fn deep(server: &Server, mailbox: Option<&str>) -> Observation {
    let began = Instant::now();
    let outcome = match timeout(DEEP_TIMEOUT, Box::pin(looked(server, mailbox))).await {
        Ok(Ok(())) => Outcome::Good,
        Ok(Err(Failed::Imap(error))) => outcome(&error),
        Ok(Err(Failed::Other(why))) => Outcome::Bad(why),
        Err(_) => Outcome::Bad(format!("a thorough check was not done within {} s", DEEP_TIMEOUT.as_secs())),
    };
    Observation { kind: Kind::Deep, outcome, took: began.elapsed() }
}

enum Failed {
    Imap(Error),
    Other(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Imap(error)
    }
}

async fn looked(server: &Server, mailbox: Option<&str>) -> Result<(), Failed> {
    if let Some(lmtp) = &server.lmtp {
        lmtp_answers(lmtp).await.map_err(|error| Failed::Other(format!("LMTP: {error}")))?;
    }
    let canary = server.canary.as_ref();
    let Some(address) = canary.map(|canary| canary.address.as_str()).or(mailbox) else {
        return Ok(());
    };
    let writes = canary.is_some_and(|canary| canary.write);
    let config = server.return_login.as_ref().filter(|_| writes).unwrap_or(&server.login);
    let login = Login::for_user(config, address).await?;
    let mut session = Session::open(&Address::parse(&server.imap, server.ca_file.clone())?, &login).await?;
    session.set_silence_limit(DEEP_TIMEOUT);
    let inbox = session.name_for(&FolderPath::inbox());
    let opened = if writes { session.select(&inbox).await? } else { session.examine(&inbox).await? };
    let opened = opened.ok_or_else(|| Failed::Other("the INBOX is gone".to_owned()))?;
    if opened.uid_next > Uid(1) {
        session.flags(&UidSet::range(Uid(opened.uid_next.0 - 1), Uid(opened.uid_next.0 - 1))).await?;
    }
    if writes && (server.role == ServerRole::Standby || server.return_login.is_some()) {
        let canary = CanaryMessage::new(Utc::now());
        let message = Append {
            flags: vec!["\\Seen".to_owned()],
            internal_date: canary.internal_date.clone(),
            size: canary.text.len() as u64,
        };
        let mut text = canary;
        let appended = session.append_batch(&inbox, &[message], &mut text).await?;
        let uids: UidSet = appended.uids.into_iter().collect();
        if !uids.is_empty() {
            session.run_all(&[Command::Expunge { uids }]).await?;
        }
    }
    session.logout().await;
    Ok(())
}

/// What an error says of the server: one that answers is there, whatever it thinks of us.
fn outcome(error: &Error) -> Outcome {
    let why = || {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        text
    };
    match error {
        Error::LoginRefused { .. } | Error::NoSuchUser | Error::Unsupported(_) => Outcome::Unknown(why()),
        Error::Address { .. }
        | Error::CaFile { .. }
        | Error::PasswordFile { .. }
        | Error::LoginConfig { .. }
        | Error::UnsafeAddress { .. }
        | Error::NoPassword { .. } => Outcome::Unknown(why()),
        // Whoever shows a certificate is there; that it is the wrong one is for a person.
        Error::Certificate { .. } => Outcome::Unknown(why()),
        other if matches!(other.verdict(), Verdict::Reconcile) => Outcome::Unknown(why()),
        _ => Outcome::Bad(why()),
    }
}

/// A message that nobody is meant to read.
struct CanaryMessage {
    text: String,
    internal_date: String,
}

impl CanaryMessage {
    fn new(now: DateTime<Utc>) -> Self {
        let text = format!(
            "From: understudy@localhost\r\nTo: canary@localhost\r\nSubject: Understudy looks whether this server works\r\n\
             Date: {}\r\nMessage-ID: <{}.canary@understudy>\r\n\r\nThis message is removed as soon as it was written.\r\n",
            now.to_rfc2822(),
            now.timestamp_micros()
        );
        Self { text, internal_date: now.format("%d-%b-%Y %H:%M:%S +0000").to_string() }
    }
}

impl ContentSource for CanaryMessage {
    async fn read(&mut self, _index: usize, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.text.as_bytes().get(at..)).unwrap_or_default();
        let taken = rest.len().min(buf.len());
        buf[..taken].copy_from_slice(&rest[..taken]);
        Ok(taken)
    }
}

/// Does it greet and say what it can?
async fn lmtp_answers(url: &str) -> io::Result<()> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let parsed = Url::parse(url).map_err(|_| wrong("its address is no URL"))?;
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let stream = TcpStream::connect((host, parsed.port().unwrap_or(24))).await?;
    if parsed.scheme().starts_with("lmtps") {
        // That something listens has to do where it begins with TLS.
        return Ok(());
    }
    let mut stream = BufReader::new(stream);
    expect(&mut stream, "220").await?;
    stream.write_all(b"LHLO understudy.invalid\r\n").await?;
    expect(&mut stream, "250").await?;
    let _ = stream.write_all(b"QUIT\r\n").await;
    Ok(())
}

/// Reads a reply, with all its lines.
async fn expect(stream: &mut BufReader<TcpStream>, code: &str) -> io::Result<()> {
    let mut total = 0;
    loop {
        let mut line = String::new();
        let read = stream.read_line(&mut line).await?;
        total += read as u64;
        if read == 0 || total > LONGEST_REPLY {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !line.starts_with(code) {
            return Err(io::Error::other(format!("it said {}", line.trim_end())));
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(());
        }
    }
}

/// Do users reach a primary past the front doors? The canary's own log-in is tried there, and at the door, where it must work.
pub async fn fence(primary: &Server, door: Option<&str>) -> Fence {
    let name = &primary.name;
    let unknown = |why: String| Fence::Unknown(why);
    let canary = primary.canary.as_ref().and_then(|canary| Some((&canary.address, canary.password_file.as_deref()?)));
    let Some((address, password)) = canary else {
        return unknown(format!(
            "nobody has tried whether users reach {name} past the front doors: it has no canary with a password"
        ));
    };
    let Some(door) = door else {
        return unknown(format!(
            "nobody has tried whether users reach {name} past the front doors: no front door's `imap` is configured"
        ));
    };
    if let Err(why) = log_in(door, primary.ca_file.as_deref(), address, password).await {
        return unknown(format!("the canary of {name} does not get in at the front door: {why}"));
    }
    match log_in(&primary.imap, primary.ca_file.as_deref(), address, password).await {
        Ok(()) => Fence::Open(format!(
            "users reach {name} past the front doors: its canary was let in there, so nobody could keep them from writing to both sides"
        )),
        Err(Why::Refused) => Fence::Holds(Kept::ByAddress),
        Err(Why::Other(why)) => {
            unknown(format!("{name} did not say whether it lets users in past the front doors: {why}"))
        }
    }
}

/// Does the primary do as it is told, should it ask at each log-in whether the user is its own now? It was told before that the canary
/// is elsewhere (`is_away`), or that it is there.
pub async fn lease(primary: &Server, is_away: bool) -> Result<bool, String> {
    let canary = primary.canary.as_ref().and_then(|canary| Some((&canary.address, canary.password_file.as_deref()?)));
    let Some((address, password)) = canary else {
        return Err(format!("{} has no canary with a password", primary.name));
    };
    match log_in(&primary.imap, primary.ca_file.as_deref(), address, password).await {
        Ok(()) => Ok(!is_away),
        Err(Why::Refused) => Ok(is_away),
        Err(Why::Other(why)) => Err(why),
    }
}

enum Why {
    Refused,
    Other(String),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refused => "the log-in is refused",
            Self::Other(why) => why,
        })
    }
}

/// Logs a user in with the password of its own.
async fn log_in(url: &str, ca_file: Option<&Path>, address: &str, password_file: &Path) -> Result<(), Why> {
    let tried = async {
        let text = tokio::fs::read_to_string(password_file).await;
        let text = text.map_err(|source| Error::PasswordFile { path: password_file.to_owned(), source })?;
        let password = SecretString::from(text.lines().next().unwrap_or_default());
        let login = Login::Password { user: address.to_owned(), password };
        let session = Session::open(&Address::parse(url, ca_file.map(Path::to_path_buf))?, &login).await?;
        session.logout().await;
        Ok::<(), Error>(())
    };
    match timeout(DEEP_TIMEOUT, Box::pin(tried)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Error::LoginRefused { .. } | Error::NoSuchUser)) => Err(Why::Refused),
        Ok(Err(error)) => Err(Why::Other(error.to_string())),
        Err(_) => Err(Why::Other("it did not answer in time".to_owned())),
    }
}
