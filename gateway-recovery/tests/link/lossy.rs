//! Random shipments over a link that loses, doubles, reorders and cuts.

use std::{collections::BTreeMap, io, time::Duration};

use futures_util::{future::join_all, stream};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use understudy_protocol::{
    Change, MailboxId, Transaction,
    messages::{Refusal, Shipped},
};

use crate::{
    shipment::{Cargo, transaction},
    site::{Site, streamed},
};

const ROUNDS: usize = 40;
const MAILBOXES: usize = 3;
const TRANSACTIONS: i64 = 15;

/// What a source gateway has captured, and what it was told is safe.
struct Source {
    contents: Vec<Vec<u8>>,
    captured: BTreeMap<MailboxId, Vec<Transaction>>,
    acknowledged: BTreeMap<MailboxId, i64>,
}

impl Source {
    async fn new(site: &Site, random: &mut StdRng) -> Self {
        // A few are written past the gateway's buffer.
        let size = |random: &mut StdRng, at| if at % 8 == 7 { 300 << 10 } else { random.random_range(0..3000) };
        let contents: Vec<Vec<u8>> = (0..24)
            .map(|at| {
                let mut content = vec![0; size(random, at)];
                random.fill(&mut content[..]);
                content
            })
            .collect();
        let mut captured = BTreeMap::new();
        for at in 0..MAILBOXES {
            let mailbox = site.protect(&format!("user{at}@example.org")).await;
            let transactions = (1..=TRANSACTIONS).map(|seq| {
                let count = random.random_range(0..4);
                let named: Vec<&[u8]> =
                    (0..count).map(|_| &*contents[random.random_range(0..contents.len())]).collect();
                transaction(mailbox, seq, &named)
            });
            captured.insert(mailbox, transactions.collect());
        }
        let acknowledged = captured.keys().map(|&mailbox| (mailbox, 0)).collect();
        Self { contents, captured, acknowledged }
    }

    fn content(&self, change: &Change) -> Option<&Vec<u8>> {
        let Change::MessageAdded(added) = change else { return None };
        self.contents.iter().find(|content| crate::shipment::content_ref(content) == added.content)
    }

    fn load(&self, mut cargo: Cargo, transaction: &Transaction, with_contents: bool) -> Cargo {
        if with_contents {
            for content in transaction.changes.iter().filter_map(|change| self.content(change)) {
                cargo = cargo.content(content);
            }
        }
        cargo.transaction(transaction)
    }

    /// Something around what is wanted next, in order or not, with its contents or not.
    fn shipment(&self, random: &mut StdRng) -> Cargo {
        let mut chosen = Vec::new();
        for (mailbox, transactions) in &self.captured {
            let first = (self.acknowledged[mailbox] + random.random_range(-2..=2)).clamp(0, TRANSACTIONS - 1);
            let from = usize::try_from(first).unwrap();
            chosen.extend(transactions[from..].iter().take(random.random_range(0..4)));
        }
        if random.random_bool(0.3) {
            chosen.shuffle(random);
        }
        if random.random_bool(0.2) {
            chosen.extend(chosen.clone());
        }
        let forgetful = random.random_bool(0.2);
        let with_contents = |random: &mut StdRng| !forgetful || random.random_bool(0.5);
        chosen.into_iter().fold(Cargo::default(), |cargo, transaction| {
            let with_contents = with_contents(random);
            self.load(cargo, transaction, with_contents)
        })
    }

    fn hear(&mut self, shipped: &Shipped) {
        for ack in &shipped.acks {
            let acknowledged = self.acknowledged.get_mut(&ack.mailbox).unwrap();
            assert!((0..=TRANSACTIONS).contains(&ack.received.0), "{ack:?}");
            let expected = [None, Some(Refusal::Gap)].contains(&ack.refused)
                || matches!(ack.refused, Some(Refusal::LacksContent { .. }));
            assert!(expected, "{ack:?}");
            *acknowledged = ack.received.0.max(*acknowledged);
        }
    }

    /// Fails the test unless the gateway holds what it acknowledged, and nothing else than was sent.
    async fn assert_held(&self, site: &Site) {
        for (&mailbox, transactions) in &self.captured {
            let received = site.received(mailbox).await.0;
            assert!(received >= self.acknowledged[&mailbox], "acknowledged and not there: {mailbox}");
            for (seq, held) in site.journal(mailbox).await {
                let sent = &transactions[usize::try_from(seq - 1).unwrap()];
                assert_eq!(held, *sent);
                for change in &sent.changes {
                    let Change::MessageAdded(added) = change else { continue };
                    let kept = site.content(added.content.digest).await;
                    assert_eq!(
                        kept.as_ref(),
                        self.content(change),
                        "{mailbox} {seq} names a content that is not there"
                    );
                }
            }
        }
    }
}

/// What the link does to a shipment.
enum Fate {
    Arrives,
    /// It seems to end here.
    Ends(usize),
    /// The connection breaks here.
    Breaks(usize),
    /// The answer is not waited for.
    Unheard(Duration),
}

impl Fate {
    fn of(length: usize, random: &mut StdRng) -> Self {
        match random.random_range(0..10) {
            0 => Self::Ends(random.random_range(0..=length)),
            1 | 2 => Self::Breaks(random.random_range(0..=length)),
            3 | 4 => Self::Unheard(Duration::from_micros(random.random_range(0..20_000))),
            _ => Self::Arrives,
        }
    }
}

/// Cuts bytes into pieces of random lengths.
fn pieces(mut bytes: Vec<u8>, random: &mut StdRng) -> Vec<io::Result<Vec<u8>>> {
    let mut pieces = Vec::new();
    let longest = [40, 3000, 100_000][random.random_range(0..3)].max(bytes.len() / 50);
    while !bytes.is_empty() {
        let rest = bytes.split_off(random.random_range(1..=longest).min(bytes.len()));
        pieces.push(Ok(std::mem::replace(&mut bytes, rest)));
    }
    pieces
}

/// Ships; the answer, when one is heard.
async fn ship(site: &Site, mut cargo: Cargo, fate: Fate, mut random: StdRng) -> Option<Shipped> {
    let mut patience = Duration::MAX;
    let mut broken = None;
    match fate {
        Fate::Arrives => {}
        Fate::Ends(at) => cargo.bytes.truncate(at),
        Fate::Breaks(at) => {
            cargo.bytes.truncate(at);
            broken = Some(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
        }
        Fate::Unheard(after) => patience = after,
    }
    let body = streamed(stream::iter(pieces(cargo.bytes, &mut random).into_iter().chain(broken)));
    let answer = tokio::time::timeout(patience, site.try_post("ship", body)).await.ok()??;
    (answer.status.as_u16() == 200).then(|| answer.value())
}

async fn survive(seed: u64) {
    println!("UNDERSTUDY_SEED={seed}");
    let random = &mut StdRng::seed_from_u64(seed);
    let mut site = Site::start().await;
    let mut source = Source::new(&site, random).await;
    for round in 0..ROUNDS {
        let shipments = (0..random.random_range(1..=3)).map(|_| {
            let cargo = source.shipment(random);
            let fate = Fate::of(cargo.bytes.len(), random);
            ship(&site, cargo, fate, StdRng::from_rng(random))
        });
        for shipped in join_all(shipments).await.into_iter().flatten() {
            source.hear(&shipped);
        }
        if round % 10 == 9 {
            if random.random_bool(0.5) {
                site.restart().await;
            }
            source.assert_held(&site).await;
        }
    }
    // At last the link is sound.
    for (mailbox, transactions) in source.captured.clone() {
        let rest = transactions[usize::try_from(source.acknowledged[&mailbox]).unwrap()..]
            .iter()
            .fold(Cargo::default(), |cargo, transaction| source.load(cargo, transaction, true));
        source.hear(&site.ship(rest).await);
    }
    assert!(source.acknowledged.values().all(|&seq| seq == TRANSACTIONS), "{:?}", source.acknowledged);
    source.assert_held(&site).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_is_what_was_acknowledged_whatever_the_link_does() {
    match std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => survive(seed).await,
        None => {
            let seeds = if std::env::var_os("UNDERSTUDY_LONG").is_some() { 200 } else { 4 };
            for seed in 0..seeds {
                survive(seed).await;
            }
        }
    }
}
