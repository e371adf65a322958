//! The sessions of one mailbox on its primary: one that waits for hints, one that opens folders while there is work.
//!
//! Keeps true: a hint only says "look now"; whatever it says besides is not used. The NOTIFY session never opens a
//! folder (Dovecot 2.3.19 then forgets every second event).

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::Instant,
};
use understudy_imap_session::{Address, Error, FolderName, Level, Login, Session, Sweep};

/// A reading session without work is closed after this; connections are dear on the primary.
const READER_IDLE: Duration = Duration::from_secs(20);
/// How long one IDLE lasts. RFC 2177 asks for less than 29 minutes; a NAT on the way may ask for much less.
const IDLE_LENGTH: Duration = Duration::from_secs(9 * 60);
/// After IDLE ended unasked, wait this long before beginning again.
const IDLE_AGAIN: Duration = Duration::from_secs(30);

/// How to open a session for this mailbox.
#[derive(Debug)]
pub(crate) struct Door {
    /// The primary's name.
    pub(crate) server: String,
    pub(crate) address: Address,
    pub(crate) login: Login,
    pub(crate) mask: Vec<String>,
    /// Shared by all mailboxes.
    pub(crate) logins: Arc<Semaphore>,
}

impl Door {
    /// A session that has enabled QRESYNC where offered.
    pub(crate) async fn open(&self) -> Result<Session, Error> {
        // The semaphore is never closed.
        let _permit = self.logins.acquire().await.ok();
        let mut session = Session::open(&self.address, &self.login).await?;
        session.count_as(&self.server);
        session.mask(&self.mask);
        session.enable_qresync().await?;
        metrics::counter!("understudy_imap_logins_total").increment(1);
        Ok(session)
    }
}

/// The session that opens folders; made when needed.
pub(crate) struct Reader {
    door: Arc<Door>,
    session: Option<Session>,
    level: Level,
    used: Instant,
}

impl Reader {
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    pub(crate) async fn session(&mut self) -> Result<&mut Session, Error> {
        self.used = Instant::now();
        let session = match self.session.take() {
            Some(session) => session,
            None => self.door.open().await?,
        };
        Ok(self.session.insert(session))
    }

    /// The session at hand is of no use any more; the next one is a new one.
    pub(crate) fn renew(&mut self) {
        self.session = None;
    }

    /// Lists all folders. A folder that is open would be listed as this session last saw it, so none is.
    pub(crate) async fn sweep(&mut self) -> Result<Sweep, Error> {
        let session = self.session().await?;
        session.unselect().await?;
        session.sweep().await
    }

    /// Lists all folders as a session sees them that begins now. Where Dovecot's list index was damaged (2.3.19, under quick
    /// changes of folders), sessions from before go on listing what was.
    pub(crate) async fn sweep_afresh(&mut self) -> Result<Sweep, Error> {
        if let Some(session) = self.session.take() {
            session.logout().await;
        }
        self.sweep().await
    }

    async fn close_if_idle(&mut self) {
        if self.used.elapsed() > READER_IDLE
            && let Some(session) = self.session.take()
        {
            session.logout().await;
        }
    }
}

/// What waits for hints.
enum Watch {
    /// Pushes for every folder; also lists them.
    Notify(Box<Session>),
    /// Pushes for INBOX; everything else by timer.
    Idle { hints: mpsc::Receiver<()>, task: JoinHandle<()> },
    /// Timers only.
    Nothing,
    /// Not yet: while the first full copy is made, one session lists and reads, and every look follows the last.
    Later,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Self::Idle { task, .. } = self {
            task.abort();
        }
    }
}

/// All sessions of one mailbox.
pub(crate) struct Sessions {
    pub(crate) reader: Reader,
    watch: Watch,
}

impl Sessions {
    /// Logs in. Who wants to be told of changes in every folder calls [`Self::arm`], and looks after that.
    pub(crate) async fn open(door: Door) -> Result<Self, Error> {
        let door = Arc::new(door);
        let session = door.open().await?;
        let level = session.level();
        let idle = session.capabilities().has("IDLE");
        let reader = Reader { door: door.clone(), session: Some(session), level, used: Instant::now() };
        let watch = match level {
            Level::NotifyQresync => Watch::Later,
            _ if idle => watch_inbox(door),
            _ => Watch::Nothing,
        };
        Ok(Self { reader, watch })
    }

    /// Watches from now on with the session that has read so far: another log-in would cost the primary more. Answers
    /// whether that is news: what happened before must be looked for once more.
    pub(crate) async fn arm(&mut self) -> Result<bool, Error> {
        if !matches!(self.watch, Watch::Later) {
            return Ok(false);
        }
        let mut session = match self.reader.session.take() {
            Some(session) => session,
            None => self.reader.door.open().await?,
        };
        session.unselect().await?;
        session.notify_all().await?;
        self.watch = Watch::Notify(Box::new(session));
        Ok(true)
    }

    /// Lists all folders.
    pub(crate) async fn sweep(&mut self) -> Result<Sweep, Error> {
        match &mut self.watch {
            Watch::Notify(session) => session.sweep().await,
            _ => self.reader.sweep().await,
        }
    }

    /// Waits for a hint, at most `pause`. Cancel-safe.
    pub(crate) async fn wait(&mut self, pause: Duration) -> Result<bool, Error> {
        self.reader.close_if_idle().await;
        match &mut self.watch {
            Watch::Notify(session) => session.wait_for_hint(pause).await,
            Watch::Idle { hints, .. } => {
                Ok(tokio::time::timeout(pause, hints.recv()).await.is_ok_and(|hint| hint.is_some()))
            }
            Watch::Nothing | Watch::Later => {
                tokio::time::sleep(pause).await;
                Ok(false)
            }
        }
    }

    /// Asks whether anything happened. `None`: this server can only tell by a sweep.
    pub(crate) async fn ask(&mut self) -> Result<Option<bool>, Error> {
        match &mut self.watch {
            // Also wakes a NOTIFY that went deaf (measured: after a rotation of Dovecot's list index log).
            Watch::Notify(session) => {
                let noticed = session.noop().await?;
                if noticed.overflowed {
                    // RFC 5465 §5.8: the server gave up telling us; ask it to begin again.
                    session.notify_all().await?;
                }
                Ok(Some(noticed.something))
            }
            _ => Ok(None),
        }
    }
}

/// Idles on INBOX with sessions of its own, and passes each wake-up on.
fn watch_inbox(door: Arc<Door>) -> Watch {
    let (sender, hints) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        // Failing here costs speed, not correctness: the timers go on meanwhile.
        loop {
            let ended = idle_on_inbox(&door, &sender).await;
            if let Err(error) = ended {
                tracing::debug!(error = %error, "IDLE ended; beginning again");
            }
            tokio::time::sleep(IDLE_AGAIN).await;
        }
    });
    Watch::Idle { hints, task }
}

/// Until the session ends, or INBOX has been quiet for so long that it may be another one by now: a session that idles on
/// a folder that was renamed or deleted under it hears nothing any more.
async fn idle_on_inbox(door: &Door, hints: &mpsc::Sender<()>) -> Result<(), Error> {
    let mut session = door.open().await?;
    let inbox: FolderName = session.name_for(&understudy_protocol::FolderPath::inbox());
    let mut opened = session.examine(&inbox).await?;
    while let Some(before) = opened {
        while session.idle(IDLE_LENGTH).await? {
            // A full channel already says "look".
            let _ = hints.try_send(());
        }
        opened = session.examine(&inbox).await?;
        if opened.as_ref().is_some_and(|now| now.uid_validity != before.uid_validity) {
            let _ = hints.try_send(());
        }
    }
    Ok(())
}
