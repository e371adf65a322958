//! From an address to a logged-in session: TCP, TLS, greeting, log-in, capabilities, namespace.
//!
//! async-imap leads the conversation up to the capabilities, over a [`Gate`] that hands it one whole line at a time. So it has
//! never read ahead when it is dropped, and our own layer goes on with the same stream; and what it makes of a line does not
//! depend on where the network cut it.
//! Keeps true: nothing is said without the protection that was asked for; the server is taken at its exact words; nothing said
//! before TLS is taken for an answer given within it.

use std::{
    fmt, io,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_imap::{Authenticator, Client};
use futures_util::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::io::poll_read_buf;
use tracing::debug;

use crate::{
    Address, Capabilities, Error, Level, Login, Result,
    address::{Protection, Trust},
    conversation::{Conversation, Transport},
    counted::Counted,
    framer::Framer,
    line::Line,
    naming::Naming,
    response::{Response, Tagged, Untagged, parse},
    select::Opened,
    token::Tokens,
};

/// Asks about a folder that nobody has, to see whether its name would do.
const DOTTED_QUESTION: &str = "STATUS \"understudy.a.name.with.dots\" (MESSAGES)";
/// From the first packet to the capabilities.
const OPENING: Duration = Duration::from_secs(30);
/// What a server may say up to its capabilities. 64 KiB.
const LONGEST_OPENING: usize = 64 << 10;

/// A logged-in conversation with one server.
///
/// A call that is dropped half-way, or fails otherwise than by the server's refusal, ends the session: every later call
/// fails with [`Error::Interrupted`]. [`Session::wait_for_hint`] alone may be dropped at any time.
#[derive(Debug)]
pub struct Session {
    pub(crate) conversation: Conversation,
    capabilities: Capabilities,
    /// The software's name and version, where the server says them.
    software: Option<String>,
    pub(crate) naming: Naming,
    /// Does the server answer X-GUID? Known once asked.
    pub(crate) guids: Option<bool>,
    pub(crate) qresync: bool,
    pub(crate) enabled: bool,
    pub(crate) opened: Option<Opened>,
    counted: Option<Counted>,
}

impl Session {
    /// Connects and logs in. Takes at most 30 seconds.
    pub async fn open(address: &Address, login: &Login) -> Result<Self> {
        timeout(OPENING, Box::pin(Self::open_in_time(address, login))).await.map_err(|_| Error::Timeout)?
    }

    async fn open_in_time(address: &Address, login: &Login) -> Result<Self> {
        let (stream, greeted) = connect(address).await?;
        let session = Self::begin(stream, greeted, login).await?;
        debug!(level = %session.level(), "Opened a session");
        Ok(session)
    }

    /// From the greeting, unless that was taken already, to the namespace.
    pub(crate) async fn begin(stream: Box<dyn Transport>, greeted: bool, login: &Login) -> Result<Self> {
        let mut gate = Gate::new(stream);
        // imap-proto is known to panic on remarks with non-ASCII text.
        let capabilities = AssertUnwindSafe(log_in(&mut gate, greeted, login)).catch_unwind().await;
        let capabilities = capabilities.map_err(|_| Error::Protocol("its greeting could not be read"))??;
        let mut session = Self::over(Conversation::new(gate.stream, gate.framer), capabilities);
        session.learn_namespace().await?;
        Ok(session)
    }

    /// A session over a conversation that is logged in.
    pub(crate) fn over(conversation: Conversation, capabilities: Capabilities) -> Self {
        Self {
            conversation,
            capabilities,
            software: None,
            naming: Naming::default(),
            guids: None,
            qresync: false,
            enabled: false,
            opened: None,
            counted: None,
        }
    }

    /// Counts this session, for as long as it lives, among those open on the server of this name.
    pub fn count_as(&mut self, server: &str) {
        self.counted = Some(Counted::with(server));
    }

    /// Pretends from now on that the server does not offer `names`. `X-GUID`, which no server announces, can be among them.
    pub fn mask(&mut self, names: &[String]) {
        self.capabilities = self.capabilities.masked(names);
        if names.iter().any(|name| name.eq_ignore_ascii_case("X-GUID")) {
            self.guids = Some(false);
        }
    }

    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What the server calls itself, as `Cyrus IMAPD 3.6.1`.
    #[must_use]
    pub fn software(&self) -> Option<&str> {
        self.software.as_deref()
    }

    #[must_use]
    pub fn level(&self) -> Level {
        self.capabilities.level()
    }

    /// How long the server may be silent while we wait for it, instead of 120 seconds.
    pub fn set_silence_limit(&mut self, limit: Duration) {
        self.conversation.set_silence(limit);
    }

    /// Turns on QRESYNC, or CONDSTORE where that is all there is. Once; later calls do nothing.
    pub async fn enable_qresync(&mut self) -> Result<()> {
        let extension = match self.level() {
            Level::NotifyQresync | Level::IdleQresync => "QRESYNC",
            Level::Condstore if self.offers("ENABLE") => "CONDSTORE",
            Level::Condstore | Level::None => return Ok(()),
        };
        if self.enabled {
            return Ok(());
        }
        let mut qresync = false;
        let line = Line::new(format!("ENABLE {extension}"));
        self.conversation
            .ask(line, &mut |_, untagged| {
                let Some(enabled) = untagged.data("ENABLED") else { return Ok(false) };
                qresync |= words(enabled.rest()).any(|word| word.eq_ignore_ascii_case("QRESYNC"));
                Ok(true)
            })
            .await?
            .ok("ENABLE")?;
        self.enabled = true;
        self.qresync = qresync;
        Ok(())
    }

    /// Says goodbye and closes. What the server says to it does not matter any more.
    pub async fn logout(mut self) {
        if !self.conversation.is_interrupted() {
            self.conversation.set_silence(Duration::from_secs(5));
            // BYE comes before the verdict and is an error everywhere else.
            let _ = self.conversation.run("LOGOUT", Line::new("LOGOUT")).await;
        }
        self.conversation.close().await;
    }

    pub(crate) fn offers(&self, name: &str) -> bool {
        self.capabilities.has(name)
    }

    /// Learns prefix and separator, and which software it is: some forbid characters in names, Dovecot some of its layouts. Without NAMESPACE, the
    /// separator comes from `LIST "" ""`.
    pub(crate) async fn learn_namespace(&mut self) -> Result<()> {
        let namespace = self.offers("NAMESPACE");
        let mut lines = vec![Line::new(if namespace { "NAMESPACE" } else { "LIST \"\" \"\"" })];
        lines.extend(self.offers("ID").then(|| Line::new("ID NIL")));
        let (mut learnt, mut software) = (None, None);
        let outcomes = self
            .conversation
            .ask_all(&lines, &mut |_, untagged| {
                if let Some(arguments) = untagged.data("NAMESPACE") {
                    learnt = Naming::read_namespace(arguments);
                    Ok(true)
                } else if let Some(arguments) = untagged.data("ID") {
                    software = read_id(arguments);
                    Ok(true)
                } else if let Some(mut arguments) = untagged.data("LIST")
                    && !namespace
                {
                    let separator = arguments.skip_value().and_then(|()| arguments.nil_or_string());
                    learnt = separator.map(|text| Naming::new(Vec::new(), text.and_then(|text| text.first().copied())));
                    Ok(true)
                } else {
                    Ok(false)
                }
            })
            .await?;
        // A server that does not want to say who it is may keep it.
        if let Some(outcome) = outcomes.into_iter().next() {
            outcome.ok(if namespace { "NAMESPACE" } else { "LIST" })?;
        }
        self.naming = learnt.unwrap_or_default();
        if let Some(software) = &software {
            self.naming.learn_software(software);
            if self.naming.dots_are_doubtful(software) {
                let outcome = self.conversation.ask(Line::new(DOTTED_QUESTION), &mut |_, _| Ok(false)).await?;
                // Dovecot 2.3.19: [CANNOT] where no name may hold a dot, no code where there merely is no such folder.
                if outcome.code_is(&["CANNOT"]) {
                    self.naming.forbid_dots();
                }
            }
        }
        self.software = software;
        Ok(())
    }
}

/// Name and version of `("name" "Cyrus IMAPD" "version" "3.6.1" …)` (RFC 2971 §3.3), as far as they are plain text.
fn read_id(mut arguments: Tokens<'_>) -> Option<String> {
    let mut said = [None, None];
    if !arguments.open() {
        return None;
    }
    while let Some(field) = arguments.string() {
        let value = arguments.nil_or_string()?;
        let slot = [&b"name"[..], b"version"].iter().position(|name| field.eq_ignore_ascii_case(name));
        if let (Some(slot), Some(value)) = (slot, value) {
            said[slot] = String::from_utf8(value.into_owned()).ok().filter(|text| !text.chars().any(char::is_control));
        }
    }
    let [name, version] = said;
    Some([Some(name?), version].into_iter().flatten().collect::<Vec<_>>().join(" "))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.split(|&byte| byte == b' ').filter_map(|word| std::str::from_utf8(word).ok()).filter(|word| !word.is_empty())
}

/// Is somebody there who would take a log-in? Connects, protects the connection, takes the greeting and says goodbye.
pub async fn knock(address: &Address) -> Result<()> {
    let (stream, greeted) = connect(address).await?;
    let mut gate = Gate::new(stream);
    let talk = async {
        let mut client = Client::new(&mut gate);
        if greeted { Ok(()) } else { greet(&mut client).await }
    };
    AssertUnwindSafe(talk).catch_unwind().await.map_err(|_| Error::Protocol("its greeting could not be read"))??;
    // Whether it hears this does not matter.
    let _ = gate.stream.write_all(b"bye LOGOUT\r\n").await;
    Ok(())
}

/// The certificate that the server shows for itself, in DER; none where the connection is not protected. One that is not trusted is an error.
pub async fn certificate(address: &Address) -> Result<Option<Vec<u8>>> {
    let shown = async {
        let tcp = reach(address).await?;
        let (trust, tcp) = match &address.protection {
            Protection::Tls(trust) => (trust, tcp),
            Protection::StartTls(trust) => (trust, start_tls(tcp).await?),
            Protection::Loopback => return Ok(None),
        };
        let stream = protect(address, trust, tcp).await?;
        let (_, state) = stream.get_ref();
        Ok(state.peer_certificates().and_then(<[_]>::first).map(|certificate| certificate.to_vec()))
    };
    timeout(OPENING, shown).await.map_err(|_| Error::Timeout)?
}

/// A stream with the protection that was asked for; whether the greeting was taken already.
async fn connect(address: &Address) -> Result<(Box<dyn Transport>, bool)> {
    protected(address, reach(address).await?).await
}

async fn reach(address: &Address) -> Result<TcpStream> {
    let unreachable = |source| Error::Unreachable { server: address.shown(), source };
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(unreachable)?;
    // Before TLS: commands go out in several small writes there, and with Nagle each would wait for a round trip.
    tcp.set_nodelay(true).map_err(unreachable)?;
    Ok(tcp)
}

/// The same over a stream that stands.
pub(crate) async fn protected<T: Transport + 'static>(address: &Address, tcp: T) -> Result<(Box<dyn Transport>, bool)> {
    Ok(match &address.protection {
        Protection::Tls(trust) => (Box::new(protect(address, trust, tcp).await?), false),
        Protection::Loopback => (Box::new(tcp), false),
        Protection::StartTls(trust) => {
            let tcp = start_tls(tcp).await?;
            (Box::new(protect(address, trust, tcp).await?), true)
        }
    })
}

async fn protect<T: Transport>(address: &Address, trust: &Trust, tcp: T) -> Result<TlsStream<T>> {
    let connector = TlsConnector::from(trust.config.clone());
    connector.connect(trust.name.clone(), tcp).await.map_err(|source| {
        let server = address.shown();
        let reason = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match reason {
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
                Error::Certificate { server, source }
            }
            _ => Error::Unreachable { server, source },
        }
    })
}

/// Greeting and STARTTLS on an unprotected stream. What came behind the server's OK by now is refused (RFC 9051 §11.2), and whatever
/// comes later goes to TLS, which refuses all but a handshake: none of it is ever read as IMAP.
async fn start_tls<T: Talk>(tcp: T) -> Result<T> {
    let gate = ask_for_tls(tcp).await?;
    if !gate.ahead().is_empty() {
        // Someone in between wants unprotected text to be read as the server's protected answer (CVE-2011-0411).
        return Err(Error::Protocol("it sent more before TLS began"));
    }
    Ok(gate.stream)
}

/// Up to the server's OK to STARTTLS, and not an octet further.
pub(crate) async fn ask_for_tls<T: Talk>(tcp: T) -> Result<Gate<T>> {
    let mut gate = Gate::new(tcp);
    let talk = async {
        let mut client = Client::new(&mut gate);
        greet(&mut client).await?;
        let offered = capabilities(&mut client).await?;
        if !offered.has("STARTTLS") {
            return Err(Error::Unsupported("STARTTLS"));
        }
        let done = client.run_command_and_check_ok("STARTTLS", None).await;
        done.map_err(|error| failed(error, "STARTTLS", client.get_ref()))
    };
    let talk = AssertUnwindSafe(talk).catch_unwind().await;
    talk.map_err(|_| Error::Protocol("its greeting could not be read"))??;
    Ok(gate)
}

async fn log_in(gate: &mut Gate<Box<dyn Transport>>, greeted: bool, login: &Login) -> Result<Capabilities> {
    let mut client = Client::new(&mut *gate);
    if !greeted {
        greet(&mut client).await?;
    }
    let offered = capabilities(&mut client).await?;
    let session = if offered.has("AUTH=PLAIN") {
        client.authenticate("PLAIN", Plain(login.plain())).await
    } else {
        match login {
            _ if offered.has("LOGINDISABLED") => return Err(Error::Unsupported("AUTH=PLAIN")),
            Login::Authzid { .. } => return Err(Error::Unsupported("AUTH=PLAIN")),
            Login::Password { user, password } => client.login(user, password.expose_secret()).await,
        }
    };
    let mut session = match session {
        Ok(session) => session,
        Err((error, client)) => return Err(refused(error, client.get_ref())),
    };
    // What is offered before log-in is not what is offered after.
    session.get_mut().said.clear();
    let asked = session.run_command_and_check_ok("CAPABILITY").await;
    let gate = session.get_ref();
    asked.map_err(|error| failed(error, "CAPABILITY", gate))?;
    gate.capabilities().ok_or(Error::Protocol("it does not say what it offers"))
}

/// Takes the greeting.
async fn greet<T: Talk>(client: &mut Client<&mut Gate<T>>) -> Result<()> {
    let greeting = client.read_response().await;
    let gate = client.get_ref();
    let line = gate.lines().next().unwrap_or_default();
    let word = line.strip_prefix(b"* ").and_then(|rest| rest.split(|&byte| byte == b' ').next()).unwrap_or_default();
    match greeting {
        _ if word.eq_ignore_ascii_case(b"BYE") => Err(gate.end()),
        Ok(None) => Err(Error::Closed { text: None }),
        Err(error) => Err(gate.failure(error)),
        Ok(Some(_)) if word.eq_ignore_ascii_case(b"OK") => Ok(()),
        // PREAUTH would be somebody else's mailbox.
        Ok(Some(_)) => Err(Error::Protocol("it did not greet as a server that wants a log-in")),
    }
}

async fn capabilities<T: Talk>(client: &mut Client<&mut Gate<T>>) -> Result<Capabilities> {
    let asked = client.run_command_and_check_ok("CAPABILITY", None).await;
    let gate = client.get_ref();
    asked.map_err(|error| failed(error, "CAPABILITY", gate))?;
    gate.capabilities().ok_or(Error::Protocol("it does not say what it offers"))
}

/// The credentials; sent once, whatever the challenge.
struct Plain(SecretString);

impl Authenticator for Plain {
    type Response = Vec<u8>;

    fn process(&mut self, _challenge: &[u8]) -> Vec<u8> {
        self.0.expose_secret().as_bytes().to_vec()
    }
}

/// Why a command before the log-in failed.
fn failed<T: Talk>(error: async_imap::error::Error, command: &'static str, gate: &Gate<T>) -> Error {
    match (error, gate.verdict()) {
        (async_imap::error::Error::No(_), Some(tagged)) => {
            Error::Refused { command, code: tagged.remark.code(), text: tagged.remark.text(), done: 0 }
        }
        (async_imap::error::Error::Bad(_), Some(tagged)) => Error::Bad { command, text: tagged.remark.text() },
        (async_imap::error::Error::Io(error), _) => gate.failure(error),
        (async_imap::error::Error::ConnectionLost, _) => gate.end(),
        _ => Error::Protocol("its greeting could not be read"),
    }
}

/// Why the log-in failed. RFC 5530 §3.
fn refused<T: Talk>(error: async_imap::error::Error, gate: &Gate<T>) -> Error {
    if !matches!(error, async_imap::error::Error::No(_)) {
        return failed(error, "the log-in", gate);
    }
    let Some(tagged) = gate.verdict() else { return gate.end() };
    let (code, text) = (tagged.remark.code(), tagged.remark.text());
    let lower = text.to_ascii_lowercase();
    match code.as_ref().map(|code| code.name.as_str()) {
        Some("UNAVAILABLE" | "INUSE" | "LIMIT" | "SERVERBUG") => Error::LoginUnavailable,
        Some("NONEXISTENT") => Error::NoSuchUser,
        _ if ["unknown user", "no such user", "user unknown", "user doesn't exist"]
            .iter()
            .any(|t| lower.contains(t)) =>
        {
            Error::NoSuchUser
        }
        _ => Error::LoginRefused { code, text },
    }
}

pub(crate) trait Talk: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> Talk for T {}

/// A stream that gives out one line at a time, once it is whole, and remembers what the server said. async-imap gives up at the first
/// octet it does not like; the server's own words are then looked for in whole lines, not in what had arrived.
pub(crate) struct Gate<T> {
    pub(crate) stream: T,
    framer: Framer,
    said: Vec<u8>,
}

impl<T: Talk> Gate<T> {
    fn new(stream: T) -> Self {
        Self { stream, framer: Framer::new(), said: Vec::new() }
    }

    /// What has arrived and was not given out.
    pub(crate) fn ahead(&self) -> &[u8] {
        self.framer.bytes()
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.said.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end)
    }

    /// What the server last said it offers.
    fn capabilities(&self) -> Option<Capabilities> {
        let mut last = None;
        for line in self.lines() {
            if let Response::Untagged(untagged) = parse(line)
                && let Some(arguments) = untagged.data("CAPABILITY")
            {
                last = Some(Capabilities::new(words(arguments.rest())));
            }
        }
        last
    }

    fn verdict(&self) -> Option<Tagged<'_>> {
        self.lines()
            .filter_map(|line| match parse(line) {
                Response::Tagged(tagged) => Some(tagged),
                _ => None,
            })
            .last()
    }

    /// The connection is over; in the server's words, if it had any.
    fn end(&self) -> Error {
        let text = self.lines().find_map(|line| match parse(line) {
            Response::Untagged(Untagged::Bye(remark)) => Some(remark.text()),
            _ => None,
        });
        Error::Closed { text }
    }

    fn failure(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.end(),
            // async-imap's own errors, which quote what they could not read.
            io::ErrorKind::Other => Error::Protocol("its greeting could not be read"),
            _ => Error::Broken(error),
        }
    }
}

/// Without the credentials that pass through.
impl<T> fmt::Debug for Gate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl<T: Talk> AsyncRead for Gate<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, framer, said } = self.get_mut();
        let length = loop {
            let bytes = framer.bytes();
            let line = memchr::memchr(b'\n', bytes).map(|end| end + 1);
            if said.len() + line.unwrap_or(bytes.len()) > LONGEST_OPENING {
                return Poll::Ready(Err(io::Error::other("too much")));
            }
            if let Some(line) = line {
                break line;
            }
            // At the end, a line that will never be whole.
            if ready!(poll_read_buf(Pin::new(&mut *stream), cx, framer.space()))? == 0 {
                break framer.bytes().len();
            }
        };
        let line = &framer.bytes()[..length.min(out.remaining())];
        out.put_slice(line);
        said.extend_from_slice(line);
        let count = line.len();
        framer.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<T: Talk> AsyncWrite for Gate<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
