//! A server that says what a test wrote down.

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use understudy_imap_session::{Address, Error, Login, Session};

pub(crate) const CAPABILITIES: &str = "IMAP4rev1 AUTH=PLAIN ENABLE IDLE UNSELECT UIDPLUS LIST-EXTENDED CONDSTORE QRESYNC ESEARCH LIST-STATUS MOVE LITERAL+ NOTIFY SPECIAL-USE MULTIAPPEND NAMESPACE OBJECTID";

/// What a client must say (a part of one line), and what it is answered; `<tag>` stands for its tag.
pub(crate) type Step = (&'static str, Vec<u8>);

/// Instead of words: the server takes in everything until the client ends the connection.
pub(crate) const HEAR_OUT: &str = "\u{1}";

pub(crate) fn step(said: &'static str, answer: impl AsRef<[u8]>) -> Step {
    (said, answer.as_ref().to_vec())
}

/// A server for one connection.
pub(crate) struct Script {
    pub(crate) address: Address,
    /// Everything the client sent after its log-in, once the connection is over.
    pub(crate) heard: JoinHandle<Vec<u8>>,
}

impl Script {
    /// Logs anyone in, then follows `steps`; ends the connection after `cut` octets of answers.
    pub(crate) async fn serve(capabilities: &str, steps: Vec<Step>, cut: Option<usize>) -> Self {
        let offered = capabilities.to_owned();
        Self::listen(move |stream| async move {
            let mut stream = BufReader::new(stream);
            log_in(&mut stream, &offered).await;
            follow(&mut stream, steps, cut).await
        })
        .await
    }

    /// Logs anyone in, then does as `serve` does.
    pub(crate) async fn logged_in<F, R>(capabilities: &str, serve: F) -> Self
    where
        F: FnOnce(BufReader<TcpStream>) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let offered = capabilities.to_owned();
        Self::listen(move |stream| async move {
            let mut stream = BufReader::new(stream);
            log_in(&mut stream, &offered).await;
            serve(stream).await;
            Vec::new()
        })
        .await
    }

    /// Follows `steps` from the greeting on.
    pub(crate) async fn from_the_greeting(greeting: &'static str, steps: Vec<Step>) -> Self {
        Self::listen(move |stream| async move {
            let mut stream = BufReader::new(stream);
            stream.write_all(greeting.as_bytes()).await.expect("greeted");
            follow(&mut stream, steps, None).await
        })
        .await
    }

    pub(crate) async fn listen<F, R>(serve: F) -> Self
    where
        F: FnOnce(TcpStream) -> R + Send + 'static,
        R: Future<Output = Vec<u8>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let heard = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            serve(stream).await
        });
        let address = Address::parse(&format!("imap+insecure://127.0.0.1:{port}"), None).expect("an address");
        Self { address, heard }
    }

    pub(crate) async fn open(&self) -> Result<Session, Error> {
        let login = Login::Password { user: "ann".to_owned(), password: "secret".to_owned().into() };
        Session::open(&self.address, &login).await
    }
}

/// A session on a script that logs it in.
pub(crate) async fn session(steps: Vec<Step>) -> Session {
    Script::serve(CAPABILITIES, steps, None).await.open().await.expect("opened")
}

async fn log_in(stream: &mut BufReader<TcpStream>, offered: &str) {
    let namespace = if offered.contains("NAMESPACE") {
        step("NAMESPACE", "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n<tag> OK done\r\n")
    } else {
        step("LIST \"\" \"\"", "* LIST (\\Noselect) \"/\" \"\"\r\n<tag> OK done\r\n")
    };
    let capability = format!("* CAPABILITY {offered}\r\n<tag> OK done\r\n");
    let steps = vec![
        step("CAPABILITY", &capability),
        step("AUTHENTICATE PLAIN", "+ \r\n"),
        step("", "<tag> OK logged in\r\n"),
        step("CAPABILITY", &capability),
        namespace,
    ];
    stream.write_all(b"* OK ready\r\n").await.expect("greeted");
    follow(stream, steps, None).await;
}

async fn follow(stream: &mut BufReader<TcpStream>, steps: Vec<Step>, cut: Option<usize>) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut tag = String::new();
    let mut left = cut.unwrap_or(usize::MAX);
    for (said, answer) in steps {
        if said == HEAR_OUT {
            let _ = stream.read_to_end(&mut heard).await;
            return heard;
        }
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
            return heard;
        }
        heard.extend_from_slice(&line);
        let text = String::from_utf8_lossy(&line);
        assert!(text.contains(said), "the client said {text:?} instead of {said:?}");
        if let Some((first, _)) = text.split_once(' ')
            && !first.is_empty()
        {
            tag = first.to_owned();
        }
        let answer = replace_tag(&answer, &tag);
        let part = &answer[..answer.len().min(left)];
        left -= part.len();
        if stream.write_all(part).await.is_err() || part.len() < answer.len() {
            let _ = stream.shutdown().await;
            return heard;
        }
    }
    heard
}

fn replace_tag(answer: &[u8], tag: &str) -> Vec<u8> {
    const PLACE: &[u8] = b"<tag>";
    let mut out = Vec::with_capacity(answer.len());
    let mut rest = answer;
    while let Some(at) = rest.windows(PLACE.len()).position(|window| window == PLACE) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(tag.as_bytes());
        rest = &rest[at + PLACE.len()..];
    }
    out.extend_from_slice(rest);
    out
}
