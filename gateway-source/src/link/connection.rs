//! One HTTP/2 connection to the recovery gateway, over TLS where the sites are paired.
//!
//! Keeps true: it counts as open only after a request was answered on it; whatever the other side does, a request ends.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{self, Poll, ready},
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
    header,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};
use understudy_pairing::{Identity, linked, recovery_name, why_refused};
use understudy_protocol::{codec, messages::GATEWAY_HEADER};
use uuid::Uuid;

use super::{
    NoRoom,
    body::{Body, Gated, Progress},
    limit::Limiter,
    meter::{Direction, Heard, Kind, Meter, Metered},
};

const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 24 << 20;
/// What HTTP/2 may hold of one body, and the kernel of all: little, so that a live change finds a short queue.
const SEND_BUFFER: usize = 64 << 10;
const UNSENT: u32 = 256 << 10;
/// How the kernel finds the rate of the line: by what arrives, not by what is lost.
const LOSS_TOLERANT: &[u8] = b"bbr";
/// The longest answer that is not a stream, in bytes.
const ANSWER: usize = 256 << 20;
/// How long an answer may keep us waiting once nothing moves any more, beyond what the request itself asks for.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long the reason for a broken connection may take to be known.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// TLS ended without saying so.
const CUT_OFF: &str = "the connection was cut off, by the other side or on the way";

/// The recovery gateway listens to another source gateway.
#[derive(Debug, thiserror::Error)]
#[error("the recovery gateway turned this source gateway away: {0}")]
pub(crate) struct TurnedAway(pub(super) String);

/// How this site proves who it is.
#[derive(Clone, Debug)]
pub(super) enum Proof {
    Secret(Arc<SecretString>),
    Certificate(Arc<Identity>),
}

/// What every connection of a gateway shares.
#[derive(Clone, Debug)]
pub(super) struct Common {
    /// This process life, named in every request.
    pub(super) gateway: Uuid,
    pub(super) meter: Meter,
    pub(super) limiter: Limiter,
}

/// How patient a connection is with the other side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) connect: Duration,
    /// An idle connection is tested this often, so that a half-open one is noticed, …
    pub(super) ping: Duration,
    /// … and given up when the test stays unanswered for so long.
    pub(super) silence: Duration,
}

/// Notes why TLS ended: HTTP/2 does not pass that on.
struct Noting<S> {
    stream: S,
    why: Arc<Mutex<Option<String>>>,
}

impl<S> Noting<S> {
    fn note(&self, error: &io::Error) {
        let cut_off = || (error.kind() == io::ErrorKind::UnexpectedEof).then_some(CUT_OFF);
        if let Some(said) = why_refused(error).or_else(cut_off) {
            self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| said.to_owned());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        Poll::Ready(read.inspect_err(|error| self.note(error)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// An open connection.
pub(super) struct Connection {
    pub(super) url: String,
    sender: SendRequest<Gated>,
    common: Common,
    proof: Proof,
    base: String,
    heard: Arc<Heard>,
    round_trip_micros: AtomicU64,
    /// Cancelled when it has ended, whoever ended it.
    pub(super) ended: CancellationToken,
    why: Arc<Mutex<Option<String>>>,
    _end: DropGuard,
}

impl Connection {
    /// Connects, proves who we are, and waits for a first answer.
    pub(super) async fn open(url: &str, proof: &Proof, common: &Common, manner: Manner) -> anyhow::Result<Self> {
        let opening = Self::try_open(url, proof, common, manner);
        let opened = tokio::time::timeout(manner.connect, opening).await;
        opened.with_context(|| format!("{url} did not answer within {} s", manner.connect.as_secs_f32()))?
    }

    async fn try_open(url: &str, proof: &Proof, common: &Common, manner: Manner) -> anyhow::Result<Self> {
        let (host, port) = address(url)?;
        let reach = || format!("could not reach {url}");
        let stream = TcpStream::connect((host.as_str(), port)).await.with_context(reach)?;
        stream.set_nodelay(true).with_context(reach)?;
        if matches!(proof, Proof::Secret(_)) {
            stays_here(url, stream.peer_addr().with_context(reach)?.ip())?;
        }
        let socket = socket2::SockRef::from(&stream);
        // Where the system does not know it, queues are longer.
        let _ = socket.set_tcp_notsent_lowat(UNSENT);
        // A packet lost on a long line does not say that the line is full. Where the system does not offer it, its own choice stays.
        let _ = socket.set_tcp_congestion(LOSS_TOLERANT);
        let (heard, why) = (Heard::new(), Arc::new(Mutex::new(None)));
        let metered = Metered::new(stream, common.meter.clone(), common.limiter.clone(), heard.clone());
        let stream: Box<dyn Duplex> = match proof {
            Proof::Secret(_) => Box::new(metered),
            Proof::Certificate(identity) => {
                let connector = TlsConnector::from(linked(identity)?);
                let stream = connector.connect(recovery_name(), metered).await;
                Box::new(Noting { stream: stream.map_err(|error| refused(url, error.into()))?, why: why.clone() })
            }
        };
        let handshake = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(manner.ping)
            .keep_alive_timeout(manner.silence)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream));
        let (sender, driver) = handshake.await.map_err(|error| refused(url, error.into()))?;
        let (ended, cut) = (CancellationToken::new(), CancellationToken::new());
        let driving = (ended.clone(), cut.clone(), why.clone(), common.limiter.clone(), url.to_owned());
        tokio::spawn(async move {
            let (ended, cut, why, limiter, url) = driving;
            let error = tokio::select! {
                () = cut.cancelled() => None,
                outcome = driver => outcome.err(),
            };
            let mut why = why.lock().unwrap_or_else(PoisonError::into_inner);
            *why = match why.take() {
                // TLS knows better.
                Some(said) => Some(format!("{url}: {said}")),
                None => error.map(|error| format!("{:#}", refused(&url, error.into()))),
            };
            drop(why);
            limiter.forget_promises();
            ended.cancel();
        });
        let scheme = if matches!(proof, Proof::Secret(_)) { "http" } else { "https" };
        let base = format!("{scheme}://{}", authority(&host, port));
        let connection = Self {
            url: url.to_owned(),
            sender,
            common: common.clone(),
            proof: proof.clone(),
            base,
            heard,
            round_trip_micros: AtomicU64::new(0),
            ended,
            why,
            _end: cut.drop_guard(),
        };
        connection.ping().await?;
        Ok(connection)
    }

    /// One round trip.
    pub(super) async fn ping(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let answer = self.post("ping", Body::default(), Kind::Control, Duration::ZERO).await?;
        answer.discard().await?;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.round_trip_micros.store(micros, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn round_trip_ms(&self) -> f64 {
        self.round_trip_micros.load(Ordering::Relaxed) as f64 / 1000.0
    }

    /// For how long nothing has come.
    pub(super) fn silence(&self) -> Duration {
        self.heard.silence()
    }

    /// Why a request failed: what ended the connection says more than what became of the request.
    async fn explained(&self, error: hyper::Error) -> anyhow::Error {
        let _ = tokio::time::timeout(LAST_WORDS, self.ended.cancelled()).await;
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        why.map_or_else(|| refused(&self.url, error.into()), anyhow::Error::msg)
    }

    /// Why it ended.
    pub(super) fn why(&self) -> String {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        why.unwrap_or_else(|| format!("{} closed the connection", self.url))
    }

    /// Sends a request; waits for the head of its answer for as long as something moves, and for `held` beyond.
    pub(super) async fn post(&self, route: &str, body: Body, kind: Kind, held: Duration) -> anyhow::Result<Answer> {
        let progress = Progress::default();
        let body = Gated::new(body, kind, self.common.limiter.clone(), self.common.meter.clone(), progress.clone());
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/link/v1/{route}", self.base))
            .header(GATEWAY_HEADER, self.common.gateway.to_string());
        if let Proof::Secret(secret) = &self.proof {
            let mut token = header::HeaderValue::from_str(&format!("Bearer {}", secret.expose_secret()))
                .context("the link secret has characters that HTTP does not carry")?;
            token.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.body(body).context("could not put a request together")?;
        let mut sender = self.sender.clone();
        let answering = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let standstill = async {
            let mut seen = progress.pieces();
            loop {
                tokio::time::sleep(PATIENCE + held).await;
                let now = progress.pieces();
                if now.is_some() && now == seen {
                    return;
                }
                seen = now;
            }
        };
        let response = tokio::select! {
            response = answering => match response {
                Ok(response) => response,
                Err(error) => return Err(self.explained(error).await),
            },
            // Its last words may still be under way to whoever asks why.
            () = self.ended.cancelled() => anyhow::bail!("{}", self.why()),
            () = standstill => anyhow::bail!("{} did not answer {route} in time", self.url),
        };
        let answer =
            Answer { response, kind, meter: self.common.meter.clone(), ended: self.ended.clone(), _open: None };
        let status = answer.response.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = answer.bytes().await.unwrap_or_default();
        if status == StatusCode::INSUFFICIENT_STORAGE
            && let Ok(trouble) = codec::decode(&said)
        {
            return Err(NoRoom(trouble).into());
        }
        let said = String::from_utf8_lossy(&said).into_owned();
        match status {
            StatusCode::UNAUTHORIZED => anyhow::bail!("the recovery gateway does not know our link secret"),
            StatusCode::FORBIDDEN => Err(TurnedAway(said).into()),
            _ => anyhow::bail!("the recovery gateway answered {status}: {said}"),
        }
    }
}

/// The head of an answer, and what comes after it.
pub(super) struct Answer {
    response: Response<Incoming>,
    kind: Kind,
    meter: Meter,
    ended: CancellationToken,
    /// A connection that was replaced lives as long as the last answer on it.
    _open: Option<Arc<Connection>>,
}

impl Answer {
    pub(super) fn keeping(self, open: Arc<Connection>) -> Self {
        Self { _open: Some(open), ..self }
    }

    /// The next piece; none at its end.
    pub(super) async fn chunk(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let frame = tokio::select! {
                frame = tokio::time::timeout(PATIENCE, self.response.body_mut().frame()) => frame,
                () = self.ended.cancelled() => anyhow::bail!("the answer broke off: the connection ended"),
            };
            let Some(frame) = frame.context("the answer stood still")? else { return Ok(None) };
            if let Ok(piece) = frame.context("the answer broke off")?.into_data() {
                self.meter.body(Direction::In, self.kind, piece.len());
                return Ok(Some(piece));
            }
        }
    }

    /// All of it.
    pub(super) async fn bytes(mut self) -> anyhow::Result<Bytes> {
        let mut whole = bytes::BytesMut::new();
        while let Some(piece) = self.chunk().await? {
            anyhow::ensure!(whole.len() + piece.len() <= ANSWER, "the answer is longer than {ANSWER} bytes");
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    async fn discard(mut self) -> anyhow::Result<()> {
        while self.chunk().await?.is_some() {}
        Ok(())
    }
}

/// What went wrong, in words for a person where TLS said why.
fn refused(url: &str, error: Box<dyn std::error::Error + Send + Sync>) -> anyhow::Error {
    match why_refused(error.as_ref()) {
        Some(why) => anyhow::anyhow!("{url}: {why}"),
        None => anyhow::Error::from_boxed(error).context(format!("the connection to {url} broke")),
    }
}

/// In clear text nothing leaves this machine, wherever a name leads.
fn stays_here(url: &str, peer: IpAddr) -> anyhow::Result<()> {
    anyhow::ensure!(
        peer.to_canonical().is_loopback(),
        "{url} is {peer}, which is not this machine, and the link would be in clear text: pair the sites instead \
         (`understudy link join`)"
    );
    Ok(())
}

fn address(url: &str) -> anyhow::Result<(String, u16)> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or(url);
    let rest = rest.split('/').next().unwrap_or(rest);
    let default = 8443;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') && (!host.contains(':') || host.ends_with(']')) => {
            (host, port.parse().with_context(|| format!("{url} has no usable port"))?)
        }
        _ => (rest, default),
    };
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_stays_on_this_machine() {
        let stays = |peer: &str| stays_here("http://localhost:8443", peer.parse().unwrap());
        assert!(["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"].iter().all(|peer| stays(peer).is_ok()));
        assert!(["192.0.2.9", "2001:db8::1", "0.0.0.0", "::ffff:10.0.0.1"].iter().all(|peer| stays(peer).is_err()));
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let read = |url| address(url).unwrap();
        assert_eq!(read("https://dr.example.org:9443"), ("dr.example.org".to_owned(), 9443));
        assert_eq!(read("https://dr.example.org/"), ("dr.example.org".to_owned(), 8443));
        assert_eq!(read("http://[::1]:80"), ("::1".to_owned(), 80));
        assert_eq!(read("https://[2001:db8::1]"), ("2001:db8::1".to_owned(), 8443));
        assert_eq!(authority("::1", 80), "[::1]:80");
        assert!(address("https://a:b").is_err());
    }
}
