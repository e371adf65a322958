//! Commands, each with what the server said to it.
//!
//! In: lines to send. Out: untagged data to whoever asked, and one verdict a line.
//! Keeps true: a command is over only with its tagged verdict. A call that is dropped, or fails otherwise than by a
//! tagged NO or BAD, leaves the conversation interrupted: nothing is ever said on it again.
//! While writing it reads, so a server that must be heard before it listens cannot block both sides.

use std::{fmt, future::poll_fn, io, pin::Pin, task::Poll, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::io::poll_read_buf;

use crate::{
    Code, Error, FolderName, Noticed, Result,
    framer::{Bodies, Frame, Framer},
    line::Line,
    response::{Remark, Response, Status, Tagged, Untagged, parse},
    token::number,
};

/// How long a server may take for its next octet, in either direction, while we wait for it. 120 s.
const SILENCE: Duration = Duration::from_secs(120);
/// Commands sent and not yet answered, at most.
const WINDOW_COMMANDS: usize = 64;
/// Octets of commands sent and not yet answered, at most, beyond the first command. 64 KiB.
const WINDOW_BYTES: usize = 64 << 10;
/// What an idle session keeps of its room for commands. 2 KiB.
const IDLE_BYTES: usize = 2 << 10;
/// Octets taken in while writing; a server that answers more before it reads on must wait. 16 MiB.
const READ_WHILE_WRITING: usize = 16 << 20;
/// Folder names remembered from pushes, at most; beyond them only the fact is kept.
const NOTICED_FOLDERS: usize = 1000;

/// What a conversation runs over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug> Transport for T {}

/// One server's side and ours.
#[derive(Debug)]
pub(crate) struct Conversation {
    stream: Box<dyn Transport>,
    framer: Framer,
    out: Vec<u8>,
    last_tag: u64,
    arrivals: u64,
    unfinished: bool,
    silence: Duration,
    noticed: Noticed,
    hint: bool,
}

/// The verdict on one command.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    pub(crate) code: Option<Code>,
    pub(crate) text: String,
    /// Verdicts count up as they arrive. Dovecot answers an EXPUNGE after the COPY that was sent after it.
    pub(crate) arrival: u64,
}

/// Whoever asked looks at untagged data: `true` when it was an answer, `false` when it came unasked.
/// The number is the index of the oldest command not yet answered.
pub(crate) type Listener<'a> = &'a mut (dyn FnMut(usize, &Untagged<'_>) -> Result<bool> + Send);

impl Outcome {
    fn new(tagged: &Tagged<'_>, arrival: u64) -> Self {
        Self { status: tagged.status, code: tagged.remark.code(), text: tagged.remark.text(), arrival }
    }

    /// OK, or the error that it is not.
    pub(crate) fn ok(self, command: &'static str) -> Result<Self> {
        match self.status {
            Status::Ok => Ok(self),
            Status::No => Err(Error::Refused { command, code: self.code, text: self.text, done: 0 }),
            Status::Bad => Err(Error::Bad { command, text: self.text }),
        }
    }

    pub(crate) fn code_is(&self, names: &[&str]) -> bool {
        self.code.as_ref().is_some_and(|code| names.contains(&code.name.as_str()))
    }
}

impl Conversation {
    /// Goes on over `stream`, with what was already read from it.
    pub(crate) fn new(stream: Box<dyn Transport>, framer: Framer) -> Self {
        Self {
            stream,
            framer,
            out: Vec::new(),
            last_tag: 0,
            arrivals: 0,
            unfinished: false,
            silence: SILENCE,
            noticed: Noticed::default(),
            hint: false,
        }
    }

    pub(crate) fn set_silence(&mut self, silence: Duration) {
        self.silence = silence;
    }

    /// Runs one command whose answer is only its verdict.
    pub(crate) async fn run(&mut self, command: &'static str, line: Line) -> Result<Outcome> {
        self.ask(line, &mut |_, _| Ok(false)).await?.ok(command)
    }

    /// Runs one command.
    pub(crate) async fn ask(&mut self, line: Line, on: Listener<'_>) -> Result<Outcome> {
        let mut outcomes = self.ask_all(std::slice::from_ref(&line), on).await?;
        outcomes.pop().ok_or(Error::Interrupted)
    }

    /// Runs commands without waiting for each, within the window; verdicts in the order of the lines.
    pub(crate) async fn ask_all(&mut self, lines: &[Line], on: Listener<'_>) -> Result<Vec<Outcome>> {
        self.begin()?;
        let first = self.last_tag + 1;
        let mut outcomes: Vec<Option<Outcome>> = vec![None; lines.len()];
        let (mut sent, mut oldest, mut in_flight) = (0, 0, 0);
        while oldest < lines.len() {
            while let Some(line) = lines.get(sent)
                && (sent == oldest
                    || (sent - oldest < WINDOW_COMMANDS
                        && in_flight + line.bytes().len() <= WINDOW_BYTES
                        && line.literals().is_empty()))
            {
                let tag = self.next_tag();
                self.out.extend_from_slice(format!("u{tag} ").as_bytes());
                in_flight += line.bytes().len();
                sent += 1;
                if !line.literals().is_empty() {
                    outcomes[sent - 1] = self.send_literals(line, tag, sent - 1, on).await?;
                    // Alone in flight: a synchronising literal waits for its turn and lets nobody pass.
                    break;
                }
                self.out.extend_from_slice(line.bytes());
                self.out.extend_from_slice(b"\r\n");
            }
            self.flush().await?;
            if outcomes[oldest].is_none() {
                let next = self.whole_response().await?;
                let (end, next) = next;
                match self.heard(end, oldest, on)? {
                    Heard::Verdict(tag, outcome) => {
                        let index = tag.checked_sub(first).and_then(|index| usize::try_from(index).ok());
                        let slot = index.filter(|&index| index < sent).and_then(|index| outcomes.get_mut(index));
                        match slot {
                            Some(slot @ None) => *slot = Some(outcome),
                            _ => return Err(Error::Protocol("it answered a command that was not waiting")),
                        }
                    }
                    Heard::Continue => return Err(Error::Protocol("it asked for more of a whole command")),
                    Heard::Other => {}
                }
                self.framer.consume(next);
            }
            while oldest < sent && outcomes[oldest].is_some() {
                in_flight -= lines[oldest].bytes().len();
                oldest += 1;
            }
        }
        self.finish();
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// Sends a line with literals, each when asked for. A verdict instead of the question ends the command.
    async fn send_literals(
        &mut self,
        line: &Line,
        tag: u64,
        index: usize,
        on: Listener<'_>,
    ) -> Result<Option<Outcome>> {
        let mut from = 0;
        for &literal in line.literals() {
            self.out.extend_from_slice(&line.bytes()[from..literal]);
            from = literal;
            self.flush().await?;
            if let Some(outcome) = self.wait_for_continue(tag, index, on).await? {
                return Ok(Some(outcome));
            }
        }
        self.out.extend_from_slice(&line.bytes()[from..]);
        self.out.extend_from_slice(b"\r\n");
        Ok(None)
    }

    /// Waits until the server asks for more of the command `tag`; a verdict on it instead is returned.
    pub(crate) async fn wait_for_continue(
        &mut self,
        tag: u64,
        index: usize,
        on: Listener<'_>,
    ) -> Result<Option<Outcome>> {
        loop {
            let (end, next) = self.whole_response().await?;
            let heard = self.heard(end, index, on)?;
            self.framer.consume(next);
            match heard {
                Heard::Continue => return Ok(None),
                Heard::Verdict(answered, outcome) if answered == tag => return Ok(Some(outcome)),
                Heard::Verdict(..) => return Err(Error::Protocol("it answered a command that was not waiting")),
                Heard::Other => {}
            }
        }
    }

    /// Waits for the verdict on `tag`.
    pub(crate) async fn wait_for_verdict(&mut self, tag: u64, on: Listener<'_>) -> Result<Outcome> {
        loop {
            if let Some(outcome) = self.wait_for_continue(tag, 0, on).await? {
                return Ok(outcome);
            }
            // A stray `+` after a literal that was not waited for: harmless, and some servers send it.
        }
    }

    /// Waits until something arrives, and takes in all of it; the verdict on `tag`, if it was among it.
    pub(crate) async fn first_verdict(&mut self, tag: u64) -> Result<Option<Outcome>> {
        self.whole_response().await?;
        self.verdict_already(tag, &mut |_, _| Ok(false))
    }

    /// The verdict on `tag`, if it has already arrived. Does not wait.
    pub(crate) fn verdict_already(&mut self, tag: u64, on: Listener<'_>) -> Result<Option<Outcome>> {
        while let Frame::Whole { end, next } = self.framer.frame(Bodies::Unexpected)? {
            let heard = self.heard(end, 0, on)?;
            self.framer.consume(next);
            match heard {
                Heard::Verdict(answered, outcome) if answered == tag => return Ok(Some(outcome)),
                Heard::Verdict(..) => return Err(Error::Protocol("it answered a command that was not waiting")),
                Heard::Continue | Heard::Other => {}
            }
        }
        Ok(None)
    }

    /// Takes every whole response that has arrived, as hints. Does not wait.
    pub(crate) fn take_pushes(&mut self) -> Result<()> {
        while let Frame::Whole { end, next } = self.framer.frame(Bodies::Unexpected)? {
            match self.heard(end, 0, &mut |_, _| Ok(false))? {
                Heard::Verdict(..) => return Err(Error::Protocol("it answered a command that was not waiting")),
                Heard::Continue | Heard::Other => {}
            }
            self.framer.consume(next);
        }
        Ok(())
    }

    /// Looks at the response in the first `end` octets.
    pub(crate) fn heard(&mut self, end: usize, index: usize, on: Listener<'_>) -> Result<Heard> {
        match parse(&self.framer.bytes()[..end]) {
            Response::Untagged(Untagged::Bye(remark)) => Err(self.goodbye(&remark)),
            Response::Untagged(untagged) => {
                if !on(index, &untagged)? {
                    notice(&mut self.noticed, &mut self.hint, &untagged);
                }
                Ok(Heard::Other)
            }
            Response::Tagged(tagged) => {
                let tag = tagged.tag.strip_prefix(b"u").and_then(number);
                let tag = tag.ok_or(Error::Protocol("it answered a command that was not waiting"))?;
                self.arrivals += 1;
                Ok(Heard::Verdict(tag, Outcome::new(&tagged, self.arrivals)))
            }
            Response::Continue => Ok(Heard::Continue),
            Response::Other => Ok(Heard::Other),
        }
    }

    fn goodbye(&self, remark: &Remark<'_>) -> Error {
        Error::Closed { text: Some(remark.text()).filter(|text| !text.is_empty()) }
    }

    /// Waits for a whole response; its end, and where the next one begins. Can be dropped and asked again.
    pub(crate) async fn whole_response(&mut self) -> Result<(usize, usize)> {
        loop {
            match self.frame(Bodies::Unexpected).await? {
                Frame::Whole { end, next } => return Ok((end, next)),
                Frame::Partial | Frame::Body { .. } => {}
            }
        }
    }

    /// Waits for a whole response or for a body to begin.
    pub(crate) async fn frame(&mut self, bodies: Bodies) -> Result<Frame> {
        loop {
            match self.framer.frame(bodies)? {
                Frame::Partial => self.fill().await?,
                frame => return Ok(frame),
            }
        }
    }

    /// Reads what has arrived; waits for the first octet. Dropping it loses nothing.
    pub(crate) async fn fill(&mut self) -> Result<()> {
        let silence = self.silence;
        timeout(silence, self.fill_without_deadline()).await.map_err(|_| Error::Timeout)?
    }

    /// Like [`Conversation::fill`], however long it takes.
    pub(crate) async fn fill_without_deadline(&mut self) -> Result<()> {
        let Self { stream, framer, .. } = self;
        let space = framer.space();
        match poll_fn(|cx| poll_read_buf(Pin::new(stream.as_mut()), cx, space)).await {
            Ok(0) => Err(Error::Closed { text: None }),
            Ok(count) => {
                framer.arrived(count);
                Ok(())
            }
            Err(error) => Err(broken(error)),
        }
    }

    /// Sends what waits to be sent.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        self.write(&out).await?;
        self.out = out;
        self.out.clear();
        Ok(())
    }

    /// Adds octets to what waits to be sent.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Writes all of `bytes`, reading meanwhile so that neither side waits for the other.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let silence = self.silence;
        let Self { stream, framer, .. } = self;
        let mut written = 0;
        let mut flushed = false;
        while !flushed {
            let step = poll_fn(|cx| {
                let stream = stream.as_mut();
                let progress = if written < bytes.len() {
                    Pin::new(&mut *stream).poll_write(cx, &bytes[written..]).map_ok(Step::Wrote)
                } else {
                    Pin::new(&mut *stream).poll_flush(cx).map_ok(|()| Step::Flushed)
                };
                if progress.is_ready() || framer.bytes().len() > READ_WHILE_WRITING {
                    return progress;
                }
                poll_read_buf(Pin::new(stream), cx, framer.space()).map_ok(Step::Read)
            });
            match timeout(silence, step).await.map_err(|_| Error::Timeout)?.map_err(broken)? {
                Step::Wrote(0) => return Err(Error::Broken(io::ErrorKind::WriteZero.into())),
                Step::Wrote(count) => written += count,
                Step::Read(0) => return Err(Error::Closed { text: None }),
                Step::Read(count) => framer.arrived(count),
                Step::Flushed => flushed = true,
            }
        }
        Ok(())
    }

    /// Takes what has arrived without waiting, so that a verdict can be seen before all is written.
    pub(crate) async fn peek(&mut self) -> Result<()> {
        let Self { stream, framer, .. } = self;
        let arrived = poll_fn(|cx| {
            Poll::Ready(match poll_read_buf(Pin::new(stream.as_mut()), cx, framer.space()) {
                Poll::Pending => None,
                Poll::Ready(read) => Some(read),
            })
        });
        match arrived.await {
            None => Ok(()),
            Some(Ok(0)) => Err(Error::Closed { text: None }),
            Some(Ok(count)) => {
                self.framer.arrived(count);
                Ok(())
            }
            Some(Err(error)) => Err(broken(error)),
        }
    }

    /// Starts something that must be finished.
    pub(crate) fn begin(&mut self) -> Result<()> {
        if self.unfinished {
            return Err(Error::Interrupted);
        }
        self.unfinished = true;
        Ok(())
    }

    /// Ends what [`Conversation::begin`] started.
    pub(crate) fn finish(&mut self) {
        self.unfinished = false;
        self.framer.shrink();
        if self.out.capacity() > IDLE_BYTES {
            self.out = Vec::new();
        }
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.unfinished
    }

    /// Ends the connection without a word.
    pub(crate) async fn close(&mut self) {
        self.unfinished = true;
        let shutdown = poll_fn(|cx| Pin::new(self.stream.as_mut()).poll_shutdown(cx));
        // The server notices at the latest when the socket is dropped.
        let _ = timeout(Duration::from_secs(1), shutdown).await;
        self.stream = Box::new(tokio::io::empty());
    }

    /// A number never used before on this connection.
    pub(crate) fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    pub(crate) fn framer(&mut self) -> &mut Framer {
        &mut self.framer
    }

    /// Has something come in unasked since this was last called?
    pub(crate) fn take_hint(&mut self) -> bool {
        std::mem::take(&mut self.hint)
    }

    pub(crate) fn take_noticed(&mut self) -> Noticed {
        self.hint = false;
        std::mem::take(&mut self.noticed)
    }

    /// Data that came unasked while a body streamed by.
    pub(crate) fn notice_something(&mut self) {
        self.noticed.something = true;
        self.hint = true;
    }
}

/// What a response was, once untagged data has been seen to.
#[derive(Debug)]
pub(crate) enum Heard {
    Verdict(u64, Outcome),
    Continue,
    Other,
}

enum Step {
    Wrote(usize),
    Flushed,
    Read(usize),
}

fn broken(error: io::Error) -> Error {
    match error.kind() {
        // TLS without a closing word; whatever was cut off has no tagged verdict and is an error anyway.
        io::ErrorKind::UnexpectedEof => Error::Closed { text: None },
        _ => Error::Broken(error),
    }
}

fn notice(noticed: &mut Noticed, hint: &mut bool, untagged: &Untagged<'_>) {
    const DATA: [&str; 9] =
        ["EXISTS", "EXPUNGE", "VANISHED", "FETCH", "STATUS", "LIST", "LSUB", "METADATA", "NOTIFICATIONOVERFLOW"];
    if untagged.code("NOTIFICATIONOVERFLOW").is_some() {
        noticed.overflowed = true;
    } else if !DATA.iter().any(|name| untagged.data(name).is_some()) && untagged.code("HIGHESTMODSEQ").is_none() {
        // Remarks such as Dovecot's `* OK Still here`, and what we do not know.
        return;
    }
    noticed.something = true;
    *hint = true;
    let name = if let Some(mut arguments) = untagged.data("STATUS") {
        arguments.string()
    } else if let Some(mut arguments) = untagged.data("LIST") {
        let attributes = arguments.skip_value();
        attributes.and_then(|()| arguments.skip_value()).and_then(|()| arguments.string())
    } else {
        None
    };
    if let Some(name) = name
        && noticed.folders.len() < NOTICED_FOLDERS
    {
        let name = FolderName::new(name.into_owned());
        if !noticed.folders.contains(&name) {
            noticed.folders.push(name);
        }
    }
}
