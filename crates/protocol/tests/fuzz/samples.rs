//! One of each of what goes over the link: the corpus of the fuzzed messages.

use serde::Serialize;
use understudy_protocol::{
    AddedMessage, Change, ContentRef, Digest, Direction, Epoch, FolderId, FolderPath, FolderPosition, MailboxId,
    PartKey, Position, Seq, TenantId, Transaction, Uid, UidValidity,
    codec::{encode, encode_frame},
    messages::{
        Ack, Asked, Assignment, Directives, Finding, FolderRange, Heartbeat, Hello, InventoryFrame, InventoryMessage,
        Known, KnownMessage, Lacks, LinkReport, Look, LookOutcome, MailboxReport, PathReport, Refusal, Report,
        Reported, Request, SeedProgress, ServerCheck, Shipment, Shipped, Trouble, Unproven, Unreadable, Welcome,
        WireBytes,
    },
    server::{LoginConfig, LoginMethod, Server, ServerRole},
};
use uuid::Uuid;

const MAILBOX: MailboxId = MailboxId(7);

fn content() -> ContentRef {
    ContentRef { digest: Digest::of(b"hello"), size: 5 }
}

fn transaction() -> Transaction {
    let folder = FolderId(1);
    Transaction {
        mailbox: MAILBOX,
        direction: Direction::Outbound,
        seq: Seq(3),
        epoch: Epoch(1),
        seed: false,
        previous: Digest::of(b"two"),
        captured_at: chrono::DateTime::UNIX_EPOCH,
        changes: vec![
            Change::FolderCreated {
                folder,
                path: FolderPath::inbox(),
                uid_validity: UidValidity(9),
                special_use: vec!["sent".to_owned()],
                selectable: true,
            },
            Change::FolderRenamed { folder, path: FolderPath::new(vec!["a".to_owned(), "b".to_owned()]) },
            Change::MessageAdded(AddedMessage {
                folder,
                uid: Uid(4),
                flags: vec!["\\Seen".to_owned()],
                internal_date: "17-Jul-1996 02:44:25 -0700".to_owned(),
                content: content(),
            }),
            Change::FlagsSet { folder, uids: "1,5:9".parse().unwrap(), flags: vec![] },
            Change::MessagesExpunged { folder, uids: "2:4294967295".parse().unwrap() },
            Change::SubscriptionChanged { path: FolderPath::inbox(), subscribed: true },
            Change::FolderDeleted { folder },
        ],
        position: Position { folders: [(folder, FolderPosition::default())].into() },
    }
}

fn path() -> FolderPath {
    FolderPath::new(vec!["Work".to_owned(), "März".to_owned()])
}

fn trouble() -> Trouble {
    Trouble {
        kind: "login_refused".to_owned(),
        reason: "It says no.".to_owned(),
        remedy: "Ask.".to_owned(),
        fault: true,
    }
}

fn shipment() -> Vec<u8> {
    framed(&[
        Shipment::Content(content()),
        Shipment::Part(content()),
        Shipment::Skeleton { content: content(), recipe: vec![0, 5] },
        Shipment::Handed { file: "spool-1".to_owned(), contents: vec![(content(), 17)] },
        Shipment::Transaction(encode(&transaction()).unwrap()),
    ])
}

fn shipped() -> Shipped {
    let ack = |refused| Ack { mailbox: MAILBOX, received: Seq(3), applied: Seq(2), refused };
    let refusals = [
        Refusal::Gap,
        Refusal::Epoch { current: Epoch(2) },
        Refusal::UnknownMailbox,
        Refusal::LacksContent { digests: vec![Digest::of(b"x")] },
        Refusal::Direction,
        Refusal::Diverged,
    ];
    Shipped { acks: refusals.into_iter().map(Some).chain([None]).map(ack).collect(), unseen: false }
}

fn welcome() -> Welcome {
    Welcome {
        link_version: 1,
        product_version: "0.1.0".to_owned(),
        hands_over: true,
        takes_parts: true,
        keeps_seconds: 3600,
    }
}

fn heartbeat() -> Heartbeat {
    let look = |outcome| Look { server: "mail-a".to_owned(), deep: true, outcome, seconds: 0.25 };
    Heartbeat {
        gateway: Uuid::from_u128(1),
        sent_at: chrono::DateTime::UNIX_EPOCH,
        wait_ms: 10_000,
        seen_version: 3,
        mailboxes: vec![mailbox_report()],
        unproven: vec![Unproven { mailbox: MAILBOX, seconds: 61, place: "primary".to_owned() }],
        looks: vec![
            look(LookOutcome::Good),
            look(LookOutcome::Bad("no".to_owned())),
            look(LookOutcome::Unknown("why".to_owned())),
        ],
        link: Some(LinkReport {
            paths: vec![PathReport {
                url: "https://192.0.2.1:8025".to_owned(),
                state: "down".to_owned(),
                reason: Some("timed out".to_owned()),
                since: chrono::DateTime::UNIX_EPOCH,
                round_trip_ms: Some(1.5),
            }],
            bytes: vec![WireBytes { direction: "out".to_owned(), kind: "live".to_owned(), bytes: 99 }],
        }),
    }
}

fn mailbox_report() -> MailboxReport {
    let unreadable =
        Unreadable { folder: FolderId(1), path: path(), uid: Uid(4), size: 0, reason: "It says no.".to_owned() };
    MailboxReport {
        mailbox: MAILBOX,
        captured: Seq(3),
        capability: "condstore".to_owned(),
        progress: SeedProgress { messages_done: 1, messages_total: 2, bytes_done: 3, bytes_total: 0 },
        seeded: false,
        swept_at: Some(chrono::DateTime::UNIX_EPOCH),
        trouble: Some(trouble()),
        unreadable: Some(vec![unreadable]),
    }
}

fn server() -> Server {
    Server {
        name: "mail-a".to_owned(),
        role: ServerRole::Primary,
        imap: "imaps://192.0.2.2".to_owned(),
        ca_file: None,
        login: LoginConfig {
            method: LoginMethod::Master,
            user: Some("understudy".to_owned()),
            password_file: Some("password".into()),
            form: None,
        },
        return_login: None,
        lmtp: None,
        submission: None,
        manage: None,
        canary: None,
    }
}

fn asked() -> Vec<Asked> {
    let only = vec![FolderRange { path: path(), low: Uid(1), high: Uid(u32::MAX) }];
    vec![
        Asked::Barrier { mailbox: MAILBOX },
        Asked::Inventory { mailbox: MAILBOX, bodies: true, summary: true, only },
        Asked::Recapture { mailbox: MAILBOX, folders: vec![(path(), "1:4,9".parse().unwrap())] },
        Asked::Content { mailbox: MAILBOX, tenant: TenantId(1), path: path(), uid: Uid(4), content: content() },
        Asked::Check { server: server(), address: Some("ann@example.org".to_owned()) },
        Asked::Discover { server: server() },
        Asked::Measure { server: server(), addresses: vec!["ann@example.org".to_owned()] },
    ]
}

fn directives() -> Directives {
    let assignment = Assignment {
        mailbox: MAILBOX,
        tenant: TenantId(1),
        address: "ann@example.org".to_owned(),
        server: "mail-a".to_owned(),
        epoch: Epoch(1),
        paused: false,
        attempt: 1,
        received: Seq(3),
        applied: Seq(2),
        priority: 10,
        digest: Digest::of(b"three"),
    };
    let requests = asked().into_iter().map(|what| Request { id: Uuid::from_u128(2), what });
    let key = PartKey::new([7; 32]);
    Directives {
        version: 4,
        servers: vec![server()],
        mailboxes: vec![assignment],
        requests: requests.collect(),
        part_keys: vec![(TenantId(1), key)],
        ..Directives::default()
    }
}

fn report(outcome: Result<Reported, Trouble>) -> Report {
    Report { id: Uuid::from_u128(2), outcome }
}

fn check() -> ServerCheck {
    let finding = Finding {
        level: "note".to_owned(),
        name: "NOTIFY".to_owned(),
        meaning: "It tells.".to_owned(),
        remedy: String::new(),
    };
    ServerCheck { capabilities: vec!["IMAP4rev1".to_owned()], findings: vec![finding] }
}

fn known() -> Vec<u8> {
    let start =
        Known::Start { received: Seq(3), epoch: Epoch(1), subscriptions: vec![path()], digest: Digest::of(b"three") };
    let folder = Known::Folder {
        folder: FolderId(1),
        path: path(),
        uid_validity: UidValidity(9),
        special_use: vec!["sent".to_owned()],
        selectable: true,
        position: FolderPosition::default(),
    };
    let message = KnownMessage { uid: Uid(4), flags: vec!["\\Seen".to_owned()], content: content() };
    framed(&[start, folder, Known::Messages(vec![message]), Known::End])
}

fn inventory() -> Vec<u8> {
    let message = InventoryMessage {
        uid: Uid(4),
        flags: vec!["\\Seen".to_owned()],
        internal_date: "17-Jul-1996 02:44:25 -0700".to_owned(),
        size: 5,
        digest: Some(content().digest),
    };
    framed(&[
        InventoryFrame::Start { subscriptions: vec![path()] },
        InventoryFrame::Folder { path: path(), special_use: vec!["sent".to_owned()], selectable: true },
        InventoryFrame::Messages(vec![message]),
        InventoryFrame::Slice { through: Uid(9), messages: 3, digest: Digest::of(b"slice") },
        InventoryFrame::End,
    ])
}

fn framed(frames: &[impl Serialize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        encode_frame(frame, &mut bytes).unwrap();
    }
    bytes
}

fn one(kind: u8, value: &impl Serialize) -> Vec<u8> {
    [vec![kind], encode(value).unwrap()].concat()
}

/// The corpus by name of file.
pub(super) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let hello = Hello {
        link_version: 1,
        gateway: Uuid::from_u128(1),
        installation: Uuid::from_u128(3),
        product_version: "0.1.0".to_owned(),
    };
    let lacks = Lacks { tenant: TenantId(1), parts: vec![Digest::of(b"x"), Digest::of(b"y")] };
    let discovered = Reported::Discover { users: vec!["ann".to_owned()] };
    let [_, inventory_asked, ..] = &asked()[..] else { unreachable!("six can be asked") };
    vec![
        ("transaction", one(b't', &transaction())),
        ("hello", one(b'h', &hello)),
        ("welcome", one(b'w', &welcome())),
        ("heartbeat", one(b'b', &heartbeat())),
        ("directives", one(b'd', &Directives::default())),
        ("directives-full", one(b'd', &directives())),
        ("report", one(b'r', &report(Ok(Reported::Check(check()))))),
        ("report-barrier", one(b'r', &report(Ok(Reported::Barrier { captured: Seq(3) })))),
        ("report-discover", one(b'r', &report(Ok(discovered)))),
        ("report-trouble", one(b'r', &report(Err(trouble())))),
        ("mailbox-report", one(b'm', &mailbox_report())),
        ("shipped", one(b'a', &shipped())),
        ("asked", one(b'o', inventory_asked)),
        ("lacks", one(b'l', &lacks)),
        ("shipment", [b"s".to_vec(), shipment()].concat()),
        ("known", [b"k".to_vec(), known()].concat()),
        ("inventory", [b"i".to_vec(), inventory()].concat()),
    ]
}
