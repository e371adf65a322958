//! Foreign bytes: whatever a server says ends in a value or an error, the same wherever the network cuts it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use understudy_protocol::{FolderPath, ModSeq, Uid, UidSet};

use crate::{
    Address, Append, BodySink, Capabilities, Command, ContentSource, FolderName, Login, Session,
    connect::{ask_for_tls, protected},
    conversation::Conversation,
    framer::Framer,
    naming::Naming,
    token::Tokens,
    utf7,
};

/// What these verbs answer depends on what has arrived when they look: hints are taken as they come.
const AS_IT_COMES: [&str; 3] = ["wait", "idle", "noop"];
/// Never over: what was said ends.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What a server says, in pieces of one size; what it is told goes nowhere.
#[derive(Debug)]
struct Speech {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
}

impl AsyncRead for Speech {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let end = self.bytes.len().min(self.at.saturating_add(self.piece.min(buffer.remaining())));
        buffer.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Speech {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Bodies that came; a chunk belongs to a body that began.
#[derive(Debug, Default)]
struct Bodies {
    came: Vec<(Uid, u64, Vec<u8>)>,
    open: bool,
    missing: Vec<Uid>,
}

impl BodySink for Bodies {
    fn start(&mut self, uid: Uid, size: u64) -> io::Result<()> {
        assert!(!self.open);
        self.open = true;
        self.came.push((uid, size, Vec::new()));
        Ok(())
    }
    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(self.open);
        self.came.last_mut().unwrap().2.extend_from_slice(bytes);
        Ok(())
    }
    fn end(&mut self) -> io::Result<()> {
        assert!(self.open);
        self.open = false;
        let (_, size, bytes) = self.came.last().unwrap();
        assert_eq!(*size, bytes.len() as u64);
        Ok(())
    }
    fn missing(&mut self, uid: Uid) {
        self.missing.push(uid);
    }
}

struct Xs;

impl ContentSource for Xs {
    async fn read(&mut self, _index: usize, _offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(b'x');
        Ok(buffer.len())
    }
}

/// One call with this server; what came of it, in words.
async fn call(verb: &str, capabilities: &str, bytes: &[u8], piece: usize) -> String {
    let speech = Speech { bytes: bytes.to_vec(), at: 0, piece };
    let user = || "ann".to_owned();
    match verb {
        // Greeting, capabilities, log-in, namespace, software.
        "open" => {
            let login = Login::Password { user: user(), password: "secret".to_owned().into() };
            return opened(Session::begin(Box::new(speech), false, &login).await);
        }
        "open-as" => {
            let password = "secret".to_owned().into();
            let login = Login::Authzid { authorize: user(), authenticate: user(), password };
            return opened(Session::begin(Box::new(speech), false, &login).await);
        }
        "starttls" => return tls_begins(speech).await,
        _ => {}
    }
    let mut session =
        Session::over(Conversation::new(Box::new(speech), Framer::new()), Capabilities::new(capabilities.split(' ')));
    let inbox = FolderName::from("INBOX");
    let uids = UidSet::range(Uid(1), Uid(5));
    match verb {
        "sweep" => format!("{:?}", session.sweep().await),
        "status" => format!("{:?}", session.status(&inbox).await),
        "examine" => format!("{:?}", session.examine(&inbox).await),
        "rows" => format!("{:?}", session.rows(&uids).await),
        "flags" => format!("{:?}", session.flags(&uids).await),
        "uids" => format!("{:?}", session.uids(Uid(1)).await),
        "changes" => format!("{:?}", session.changes(Uid(9), ModSeq(5)).await),
        "bodies" => {
            let mut bodies = Bodies::default();
            let outcome = session.bodies(&uids, &mut bodies).await;
            format!("{outcome:?} {bodies:?}")
        }
        "append" => {
            let one = Append { flags: vec![], internal_date: "17-Jul-1996 02:44:25 -0700".to_owned(), size: 5 };
            format!("{:?}", session.append_batch(&inbox, &[one.clone(), one], &mut Xs).await)
        }
        "run_all" => {
            let commands = [
                Command::StoreFlags { uids: uids.clone(), flags: vec!["\\Seen".to_owned()] },
                Command::Copy { uids: uids.clone(), to: inbox.clone() },
                Command::Expunge { uids },
            ];
            format!("{:?}", session.run_all(&commands).await)
        }
        "qresync" => format!("{:?}", session.enable_qresync().await),
        "create" => format!("{:?}", session.create(&inbox, &["sent".to_owned()]).await),
        "notify" => format!("{:?} {:?}", session.notify_all().await, session.conversation.take_noticed()),
        "wait" => format!("{:?}", session.wait_for_hint(PATIENCE).await),
        "idle" => format!("{:?}", session.idle(PATIENCE).await),
        "noop" => format!("{:?}", session.noop().await),
        _ => {
            let learnt = session.learn_namespace().await;
            opened(learnt.map(|()| session))
        }
    }
}

/// How STARTTLS went. It reads up to the server's OK and no further, wherever the network cuts; only whether what lies behind is refused at
/// once or by TLS depends on what has arrived by then.
async fn tls_begins(speech: Speech) -> String {
    let again = Speech { bytes: speech.bytes.clone(), ..speech };
    let agreed = ask_for_tls(speech).await;
    // Whatever follows: nobody here speaks TLS, so there must be no session.
    let address = Address::parse("imap://localhost", None).unwrap();
    let refusal = format!("{:?}", protected(&address, again).await.map(drop).unwrap_err());
    match agreed {
        Ok(gate) => {
            let at_once = !gate.ahead().is_empty();
            assert_eq!(refusal.contains("it sent more before TLS began"), at_once, "{refusal}");
            format!("TLS is to begin, {} octets follow", gate.ahead().len() + gate.stream.bytes.len() - gate.stream.at)
        }
        Err(error) => {
            let error = format!("{error:?}");
            assert_eq!(error, refusal);
            error
        }
    }
}

/// What was learnt before the first question.
fn opened(session: crate::Result<Session>) -> String {
    let learnt = session.map(|session| {
        (
            session.capabilities().iter().map(str::to_owned).collect::<Vec<_>>(),
            session.software().map(str::to_owned),
            session.naming,
        )
    });
    format!("{learnt:?}")
}

/// A file of the corpus: the call and what the server offers, then what it says.
#[test]
fn whatever_a_server_says_ends_in_a_value_or_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    understudy_fuzz::run("imap", |input| {
        let line = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
        let head = String::from_utf8_lossy(&input[..line]).into_owned();
        let (verb, capabilities) = head.split_once(' ').unwrap_or((&head, ""));
        let bytes = input.get(line + 1..).unwrap_or_default();
        let whole = runtime.block_on(call(verb, capabilities, bytes, usize::MAX));
        for piece in [1, 7].into_iter().filter(|_| !AS_IT_COMES.contains(&verb)) {
            let cut = runtime.block_on(call(verb, capabilities, bytes, piece));
            assert_eq!(whole, cut, "in pieces of {piece}");
        }
        // Other numbers are nothing new.
        whole.replace(|c: char| c.is_ascii_digit(), "").chars().take(300).collect::<String>()
    });
}

#[test]
fn any_folder_name_is_a_path_and_back() {
    let namings = [
        Naming::new(Vec::new(), Some(b'/')),
        Naming::new(b"INBOX.".to_vec(), Some(b'.')),
        Naming::new(Vec::new(), None),
    ];
    understudy_fuzz::run("names", |input| {
        let text = utf7::decode(input);
        if let Some(text) = &text {
            assert_eq!(utf7::decode(utf7::encode(text).as_bytes()).as_ref(), Some(text));
        }
        let mut found = Vec::new();
        for naming in &namings {
            if let Some(path) = naming.path(input) {
                let (mut learnt, name) = (naming.clone(), FolderName::new(input));
                learnt.learn(&path, &name);
                assert!(learnt.name(&path) == name || path.is_inbox(), "{path:?}");
                found.push(path.depth());
            }
            // Any path at all has a name that reads as that path.
            let components: Vec<String> =
                input.split(|&byte| byte == b'\n').map(|part| String::from_utf8_lossy(part).into_owned()).collect();
            if components.iter().all(|component| !component.is_empty()) {
                let path = FolderPath::new(components);
                let name = naming.name(&path);
                assert_eq!(naming.path(name.as_bytes()), Some(path), "{name:?}");
            }
        }
        let mut tokens = Tokens::new(input);
        while tokens.skip_value().is_some() {}
        (text.is_some(), found)
    });
}
