//! Both gateways, the network between them, and time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
    ops::AddAssign,
};

use chrono::DateTime;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use understudy_protocol::{
    AddedMessage, Change, ContentRef, Digest, Direction, Epoch, FolderId, MailboxId, Position, Seq, Transaction, Uid,
    codec,
    messages::{Ack, Refusal},
};
use understudy_replication::shipping::{Answer, Held, Received, Verdict, heed, judge, must_rebuild};

/// How long things go wrong, in milliseconds; then the network heals, and all must become equal.
const TROUBLED: u64 = 20_000;
/// When it must be.
const END: u64 = 600_000;
/// The source gives a request up after this.
const PATIENCE: u64 = 1_000;
const BACKOFF: u64 = 100;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    /// The source's database is lost or replaced by an old copy, the recovery site's by an old copy.
    pub(crate) lost_databases: bool,
}

/// How often what happened, to know that a simulation simulates.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    received: u64,
    again: u64,
    gaps: u64,
    diverged: u64,
    strangers: u64,
    rebuilt: u64,
    late_answers: u64,
    crashes: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.again += other.again;
        self.gaps += other.gaps;
        self.diverged += other.diverged;
        self.strangers += other.strangers;
        self.rebuilt += other.rebuilt;
        self.late_answers += other.late_answers;
        self.crashes += other.crashes;
    }
}

impl Tally {
    pub(crate) fn assert_that_things_happened(&self, faults: Faults) {
        assert!(self.received > 0 && self.again > 0 && self.late_answers > 0 && self.crashes > 0, "{self:?}");
        let came_apart = self.rebuilt > 0 && self.diverged > 0 && self.strangers > 0 && self.gaps > 0;
        assert!(came_apart || !faults.lost_databases, "{self:?}");
    }
}

/// What the source gateway's disk holds.
#[derive(Debug, Clone, Default)]
struct SourceDisk {
    epoch: i64,
    captured: i64,
    dropped: i64,
    /// Transactions not dropped yet.
    rows: BTreeMap<i64, Transaction>,
    /// So many of the primary's messages have been captured.
    position: u32,
    /// Given up for what was received.
    distrusted: bool,
    /// Of the transaction last captured.
    digest: Digest,
}

/// What the recovery gateway's disk holds.
#[derive(Debug, Clone, Default)]
struct RecoveryDisk {
    epoch: i64,
    rows: Vec<Transaction>,
    contents: BTreeSet<Digest>,
}

impl RecoveryDisk {
    fn received(&self) -> i64 {
        self.rows.len() as i64
    }

    fn last(&self) -> Received {
        Received { seq: Seq(self.received()), digest: self.rows.last().map(digest).unwrap_or_default() }
    }

    /// So many of the primary's messages have been received.
    fn position(&self) -> u32 {
        self.rows.iter().map(|row| row.changes.len() as u32).sum()
    }
}

fn digest(transaction: &Transaction) -> Digest {
    Digest::of(&codec::encode(transaction).expect("a transaction can be written"))
}

/// What goes over the network.
#[derive(Debug, Clone)]
enum Letter {
    Shipment {
        request: u64,
        transactions: Vec<Transaction>,
        contents: BTreeSet<Digest>,
    },
    Shipped {
        request: u64,
        ack: Ack,
    },
    /// A heartbeat: what is received, please?
    Asked {
        request: u64,
    },
    Directives {
        request: u64,
        epoch: i64,
        received: Received,
    },
    /// On a new connection: what is received? Through `dropped` it had been when this was asked.
    Greets {
        dropped: i64,
    },
    Welcomes {
        dropped: i64,
        received: i64,
    },
    /// What is known of the mailbox, please?
    Known {
        request: u64,
    },
    Knows {
        request: u64,
        disk: RecoveryDisk,
    },
}

#[derive(Debug)]
enum Event {
    Primary,
    Capture,
    Ship,
    GiveUp {
        request: u64,
    },
    /// Comes in, if the process it was for still lives: a connection ends with either.
    Arrives {
        letter: Letter,
        life: u64,
    },
    SourceCrashes,
    RecoveryCrashes,
    SourceStarts,
    RecoveryStarts,
    /// The source makes its connection anew, until it has one with the recovery gateway that lives now.
    Connects,
    Cut {
        until: u64,
    },
    SourceDatabaseLost,
    RecoveryDatabaseRestored,
    NewEpoch,
    Copies,
    /// The recovery site's database is an old copy, and soon after the source's is one too, of another time.
    BothRestored,
    SourceDatabaseRestored,
}

/// What the source is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Down,
    /// It asked for directives.
    Asking(u64),
    /// It asked what is known.
    Rebuilding(u64),
    /// It shipped.
    Shipping(u64),
    /// It has opened its journal and may ship.
    Open,
}

pub(crate) struct World {
    random: StdRng,
    faults: Faults,
    now: u64,
    count: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: HashMap<u64, Event>,
    cut_until: u64,
    /// Messages on the primary; each is one of a few contents.
    primary: Vec<Digest>,
    source: SourceDisk,
    source_copy: SourceDisk,
    doing: Doing,
    requests: u64,
    recovery: RecoveryDisk,
    recovery_copy: RecoveryDisk,
    recovery_is_up: bool,
    /// Of the recovery gateway; what was sent to an earlier one does not come in any more.
    life: u64,
    /// The one that the source is connected with.
    connected: u64,
    /// The highest number the source was told is safe.
    acknowledged: i64,
    tally: Tally,
    /// Says every event, for a seed that is looked at alone.
    traced: bool,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            faults,
            now: 0,
            count: 0,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            cut_until: 0,
            primary: Vec::new(),
            source: SourceDisk { epoch: 1, ..SourceDisk::default() },
            source_copy: SourceDisk { epoch: 1, ..SourceDisk::default() },
            doing: Doing::Nothing,
            requests: 0,
            recovery: RecoveryDisk { epoch: 1, ..RecoveryDisk::default() },
            recovery_copy: RecoveryDisk { epoch: 1, ..RecoveryDisk::default() },
            recovery_is_up: true,
            life: 0,
            connected: 0,
            acknowledged: 0,
            tally: Tally::default(),
            traced: std::env::var_os("UNDERSTUDY_SEED").is_some(),
        };
        world.after(0, Event::Primary);
        world.after(0, Event::Capture);
        world.after(0, Event::SourceStarts);
        world.plan_mishaps();
        world
    }

    /// Crashes, cuts and losses, at random times.
    fn plan_mishaps(&mut self) {
        let most = if self.faults.lost_databases { 12 } else { 6 };
        for _ in 0..self.random.random_range(0..most) {
            let at = self.random.random_range(0..TROUBLED);
            let lasting = self.random.random_range(1..4_000);
            let kinds = if self.faults.lost_databases { 8 } else { 3 };
            let event = match self.random.random_range(0..kinds) {
                0 => Event::SourceCrashes,
                1 => Event::RecoveryCrashes,
                2 => Event::Cut { until: at + lasting },
                3 => Event::SourceDatabaseLost,
                4 => Event::RecoveryDatabaseRestored,
                5 => Event::NewEpoch,
                6 => Event::BothRestored,
                _ => Event::Copies,
            };
            self.after(at, event);
        }
    }

    fn after(&mut self, pause: u64, event: Event) {
        self.count += 1;
        self.queue.push(Reverse((self.now + pause, self.count)));
        self.events.insert(self.count, event);
    }

    fn is_troubled(&self) -> bool {
        self.now < TROUBLED
    }

    /// Runs to the end; everything must have arrived.
    pub(crate) fn live(mut self) -> Tally {
        while let Some(Reverse((at, number))) = self.queue.pop() {
            self.now = at;
            let Some(event) = self.events.remove(&number) else { continue };
            if self.traced {
                eprintln!("{at} {event:?}; {:?}", self.doing);
            }
            let is_idle = matches!(event, Event::Primary | Event::GiveUp { .. });
            self.happen(event);
            if !is_idle {
                self.check();
            }
            if !self.is_troubled() && self.is_settled() {
                break;
            }
            assert!(self.now < END, "it does not settle: {:?} {:?} {:?}", self.doing, self.source, self.recovery);
        }
        assert!(self.is_settled(), "it stopped: {:?} {:?}", self.doing, self.source);
        self.tally
    }

    fn is_settled(&self) -> bool {
        self.recovery.position() as usize == self.primary.len() && self.source.rows.is_empty()
    }

    /// What must hold at any moment.
    fn check(&self) {
        let mut position = 0;
        let mut known = BTreeSet::new();
        for (at, row) in self.recovery.rows.iter().enumerate() {
            assert_eq!(row.seq, Seq(at as i64 + 1), "contiguous");
            for change in &row.changes {
                let Change::MessageAdded(added) = change else { unreachable!("only additions") };
                position += 1;
                assert_eq!(added.uid, Uid(position), "nothing lost, doubled or reordered");
                assert_eq!(added.content.digest, self.primary[position as usize - 1]);
                assert!(self.recovery.contents.contains(&added.content.digest), "its content is there");
                known.insert(added.content.digest);
            }
        }
        assert!(self.acknowledged <= self.recovery.received(), "acknowledged is durable");
        if !self.faults.lost_databases {
            assert!(self.recovery.received() <= self.source.captured, "received was captured");
            assert!(self.source.dropped <= self.recovery.received(), "dropped was received");
        }
        let waiting: Vec<i64> = self.source.rows.keys().copied().collect();
        assert_eq!(waiting, (self.source.dropped + 1..=self.source.captured).collect::<Vec<_>>(), "the source's rows");
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Primary => {
                if self.is_troubled() {
                    self.primary.push(Digest::of(&[self.random.random_range(0..40)]));
                    let pause = self.random.random_range(1..800);
                    self.after(pause, Event::Primary);
                }
            }
            Event::Capture => {
                self.capture();
                let pause = self.random.random_range(1..500);
                self.after(pause, Event::Capture);
            }
            Event::Ship => self.ship(),
            Event::GiveUp { request } => {
                let waited = [Doing::Shipping(request), Doing::Asking(request), Doing::Rebuilding(request)];
                if self.doing == waited[0] {
                    self.doing = Doing::Open;
                    self.after(BACKOFF, Event::Ship);
                } else if waited.contains(&self.doing) {
                    self.ask();
                }
            }
            Event::Arrives { letter, life } => {
                if life == self.life {
                    self.arrives(letter);
                }
            }
            Event::SourceCrashes => {
                self.tally.crashes += 1;
                self.doing = Doing::Down;
                let pause = self.random.random_range(1..2_000);
                self.after(pause, Event::SourceStarts);
            }
            Event::SourceStarts => self.ask(),
            Event::RecoveryCrashes => {
                self.tally.crashes += 1;
                self.recovery_is_up = false;
                self.life += 1;
                let pause = self.random.random_range(1..2_000);
                self.after(pause, Event::RecoveryStarts);
            }
            Event::RecoveryStarts => {
                self.recovery_is_up = true;
                self.after(0, Event::Connects);
            }
            Event::Connects => {
                if self.connected != self.life {
                    self.send(Letter::Greets { dropped: self.source.dropped });
                    self.after(PATIENCE, Event::Connects);
                }
            }
            Event::Cut { until } => self.cut_until = until,
            Event::SourceDatabaseLost => {
                self.source = if self.random.random() { SourceDisk::default() } else { self.source_copy.clone() };
                self.happen(Event::SourceCrashes);
            }
            Event::RecoveryDatabaseRestored => {
                self.recovery = self.recovery_copy.clone();
                self.acknowledged = self.acknowledged.min(self.recovery.received());
                self.happen(Event::RecoveryCrashes);
            }
            Event::NewEpoch => self.recovery.epoch += 1,
            Event::Copies => {
                // Each site has its own times for that.
                if self.random.random_ratio(2, 3) {
                    self.source_copy = self.source.clone();
                }
                if self.random.random_ratio(2, 3) {
                    self.recovery_copy = self.recovery.clone();
                }
            }
            Event::BothRestored => {
                self.happen(Event::RecoveryDatabaseRestored);
                let pause = self.random.random_range(1..6_000);
                self.after(pause, Event::SourceDatabaseRestored);
            }
            Event::SourceDatabaseRestored => {
                self.source = self.source_copy.clone();
                self.happen(Event::SourceCrashes);
            }
        }
    }

    /// The next look: what is new on the primary becomes a transaction.
    fn capture(&mut self) {
        let is_open = matches!(self.doing, Doing::Open | Doing::Shipping(_));
        let new = self.primary.len() as u32 - self.source.position.min(self.primary.len() as u32);
        if !is_open || new == 0 {
            return;
        }
        let taken = self.random.random_range(1..=new);
        let changes = (self.source.position..self.source.position + taken).map(|at| {
            Change::MessageAdded(AddedMessage {
                folder: FolderId(1),
                uid: Uid(at + 1),
                flags: Vec::new(),
                internal_date: String::new(),
                content: ContentRef { digest: self.primary[at as usize], size: 1 },
            })
        });
        let transaction = Transaction {
            mailbox: MailboxId(1),
            direction: Direction::Outbound,
            seq: Seq(self.source.captured + 1),
            epoch: Epoch(self.source.epoch),
            seed: false,
            captured_at: DateTime::UNIX_EPOCH,
            changes: changes.collect(),
            position: Position::default(),
            previous: self.source.digest,
        };
        self.source.digest = digest(&transaction);
        self.source.captured += 1;
        self.source.position += taken;
        self.source.rows.insert(self.source.captured, transaction);
        self.after(0, Event::Ship);
    }

    /// Contents that the source sends along: what it has not captured before.
    fn fresh_contents(&self, transactions: &[Transaction]) -> BTreeSet<Digest> {
        let uids = transactions.iter().flat_map(|transaction| &transaction.changes).map(|change| match change {
            Change::MessageAdded(added) => (added.uid.0 as usize - 1, added.content.digest),
            _ => unreachable!("only additions"),
        });
        uids.filter(|(at, digest)| !self.primary[..*at].contains(digest)).map(|(_, digest)| digest).collect()
    }

    fn ship(&mut self) {
        if self.doing != Doing::Open || self.source.rows.is_empty() {
            return;
        }
        let count = self.random.random_range(1..=4);
        let transactions: Vec<Transaction> = self.source.rows.values().take(count).cloned().collect();
        let contents = self.fresh_contents(&transactions);
        let request = self.request();
        self.doing = Doing::Shipping(request);
        self.send(Letter::Shipment { request, transactions, contents });
    }

    /// Asks for directives: how far is it received, in which epoch?
    fn ask(&mut self) {
        let request = self.request();
        self.doing = Doing::Asking(request);
        self.send(Letter::Asked { request });
    }

    fn request(&mut self) -> u64 {
        self.requests += 1;
        let request = self.requests;
        self.after(PATIENCE, Event::GiveUp { request });
        request
    }

    /// The network: loses, doubles, delays; late letters overtake and are overtaken.
    fn send(&mut self, letter: Letter) {
        let bad = self.is_troubled();
        if self.now < self.cut_until || !self.recovery_is_up || (bad && self.random.random_ratio(1, 8)) {
            return;
        }
        let copies = if bad && self.random.random_ratio(1, 8) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = bad && self.random.random_ratio(1, 10);
            let delay = if slow { self.random.random_range(0..8_000) } else { self.random.random_range(1..60) };
            self.after(delay, Event::Arrives { letter: letter.clone(), life: self.life });
        }
    }

    fn arrives(&mut self, letter: Letter) {
        match letter {
            Letter::Shipment { request, transactions, contents } if self.recovery_is_up => {
                let ack = self.receive(&transactions, &contents);
                // It may crash between the commit and the answer.
                if self.is_troubled() && self.random.random_ratio(1, 40) {
                    return self.happen(Event::RecoveryCrashes);
                }
                self.send(Letter::Shipped { request, ack });
            }
            Letter::Asked { request } if self.recovery_is_up => {
                let (epoch, received) = (self.recovery.epoch, self.recovery.last());
                self.send(Letter::Directives { request, epoch, received });
            }
            Letter::Greets { dropped } if self.recovery_is_up => {
                self.send(Letter::Welcomes { dropped, received: self.recovery.received() });
            }
            // A tail that begins compares; one that goes on would only find out with its next transaction.
            Letter::Welcomes { dropped, received } if self.doing != Doing::Down => {
                self.connected = self.life;
                if received < dropped && matches!(self.doing, Doing::Open | Doing::Shipping(_)) {
                    self.ask();
                }
            }
            Letter::Known { request } if self.recovery_is_up => {
                let disk = self.recovery.clone();
                self.send(Letter::Knows { request, disk });
            }
            Letter::Shipped { request, ack } if self.doing == Doing::Shipping(request) => self.shipped(&ack),
            Letter::Directives { request, epoch, received } if self.doing == Doing::Asking(request) => {
                self.open(epoch, received);
            }
            Letter::Knows { request, disk } if self.doing == Doing::Rebuilding(request) => self.rebuild(&disk),
            _ => self.tally.late_answers += 1,
        }
    }

    /// The recovery gateway takes in a shipment: one SQL transaction, as `ingest::receive_mailbox` does.
    fn receive(&mut self, transactions: &[Transaction], contents: &BTreeSet<Digest>) -> Ack {
        let mut disk = self.recovery.clone();
        disk.contents.extend(contents);
        let mut refused = None;
        for transaction in transactions {
            match judge(Epoch(disk.epoch), disk.last(), transaction) {
                Verdict::Next => {
                    let lacking: Vec<Digest> =
                        self.named(transaction).filter(|digest| !disk.contents.contains(digest)).collect();
                    if lacking.is_empty() {
                        self.tally.received += 1;
                        disk.rows.push(transaction.clone());
                    } else {
                        refused = Some(Refusal::LacksContent { digests: lacking });
                    }
                }
                Verdict::Again => {
                    self.tally.again += 1;
                    if disk.rows[transaction.seq.0 as usize - 1] != *transaction {
                        self.tally.diverged += 1;
                        refused = Some(Refusal::Diverged);
                    }
                }
                Verdict::Refused(refusal) => {
                    self.tally.gaps += u64::from(refusal == Refusal::Gap);
                    // Its number fits and what came before it does not.
                    self.tally.strangers += u64::from(refusal == Refusal::Diverged);
                    refused = Some(refusal);
                }
            }
            if refused.is_some() {
                break;
            }
        }
        self.recovery = disk;
        let received = Seq(self.recovery.received());
        Ack { mailbox: MailboxId(1), received, applied: received, refused }
    }

    fn named<'t>(&self, transaction: &'t Transaction) -> impl Iterator<Item = Digest> + use<'t> {
        transaction.changes.iter().filter_map(|change| match change {
            Change::MessageAdded(added) => Some(added.content.digest),
            _ => None,
        })
    }

    /// The source hears what became of its shipment.
    fn shipped(&mut self, ack: &Ack) {
        match heed(ack) {
            Answer::Received(received) => {
                self.doing = Doing::Open;
                self.acknowledged = self.acknowledged.max(received.0.min(self.recovery.received()));
                assert!(
                    self.faults.lost_databases || received.0 <= self.recovery.received(),
                    "acknowledged is durable"
                );
                self.source.rows.retain(|seq, _| *seq > received.0);
                self.source.dropped = self.source.dropped.max(received.0.min(self.source.captured));
                self.after(0, Event::Ship);
            }
            Answer::Unwanted => unreachable!("it is protected"),
            Answer::Disputed { received, diverged } => {
                if diverged {
                    self.source.distrusted = true;
                }
                // A new epoch comes with the next directives.
                if matches!(ack.refused, Some(Refusal::Epoch { .. })) {
                    self.ask()
                } else {
                    self.open(self.source.epoch, Received { seq: received, digest: Digest::default() })
                }
            }
        }
    }

    /// Opens the journal, as `Mailbox::open` does.
    fn open(&mut self, epoch: i64, received: Received) {
        let held = Held {
            epoch: Epoch(self.source.epoch),
            captured: Seq(if self.source.distrusted { -1 } else { self.source.captured }),
            dropped: Seq(if self.source.distrusted { -1 } else { self.source.dropped }),
            digest: if self.source.distrusted { Digest::default() } else { self.source.digest },
        };
        if must_rebuild(held, Epoch(epoch), Some(received)) {
            let request = self.request();
            self.doing = Doing::Rebuilding(request);
            self.send(Letter::Known { request });
        } else {
            self.doing = Doing::Open;
            self.after(BACKOFF, Event::Ship);
        }
    }

    fn rebuild(&mut self, disk: &RecoveryDisk) {
        self.tally.rebuilt += 1;
        self.source = SourceDisk {
            epoch: disk.epoch,
            captured: disk.received(),
            dropped: disk.received(),
            rows: BTreeMap::new(),
            position: disk.position(),
            distrusted: false,
            digest: disk.last().digest,
        };
        self.doing = Doing::Open;
    }
}
