//! The whole conversation with a real Dovecot, private to this test: its own directory, port and users.

#[path = "support/between.rs"]
mod between;
#[path = "support/dovecot.rs"]
mod server;

use std::{io, sync::atomic::Ordering, time::Duration};

use between::When;
use server::{Dovecot, Format};
use understudy_imap_session::{
    Append, BodySink, Command, ContentSource, Error, FolderName, Level, Login, Row, Session, Tagged, Verdict,
};
use understudy_protocol::{FolderPath, ModSeq, Uid, UidSet};

const SECOND: Duration = Duration::from_secs(1);

struct Contents(Vec<Vec<u8>>);

impl ContentSource for Contents {
    async fn read(&mut self, index: usize, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let rest = &self.0[index][usize::try_from(offset).expect("small")..];
        // Short reads are allowed.
        let count = rest.len().min(buf.len()).min(70_000);
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

#[derive(Default)]
struct Bodies {
    whole: Vec<(Uid, Vec<u8>)>,
    missing: Vec<Uid>,
}

impl BodySink for Bodies {
    fn start(&mut self, uid: Uid, _size: u64) -> io::Result<()> {
        self.whole.push((uid, Vec::new()));
        Ok(())
    }
    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.len() <= 64 << 10);
        self.whole.last_mut().expect("started").1.extend_from_slice(bytes);
        Ok(())
    }
    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn missing(&mut self, uid: Uid) {
        self.missing.push(uid);
    }
}

fn message(subject: &str, length: usize) -> Vec<u8> {
    let mut bytes = format!("From: a@x.test\r\nSubject: {subject}\r\n\r\n").into_bytes();
    while bytes.len() < length {
        bytes.extend_from_slice(b"The quick brown fox jumps over the lazy dog and on.\r\n");
    }
    bytes
}

async fn append(session: &mut Session, folder: &FolderName, bodies: Vec<Vec<u8>>, flags: &[&str]) -> Vec<Uid> {
    let messages: Vec<Append> = bodies
        .iter()
        .map(|body| Append {
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            internal_date: "17-Jul-1996 02:44:25 -0700".to_owned(),
            size: body.len() as u64,
        })
        .collect();
    session.append_batch(folder, &messages, &mut Contents(bodies)).await.expect("appended").uids
}

fn path(components: &[&str]) -> FolderPath {
    FolderPath::new(components.iter().map(|&component| component.to_owned()).collect())
}

fn set(text: &str) -> UidSet {
    text.parse().expect("a set")
}

fn uids_of(rows: &[Row]) -> Vec<u32> {
    rows.iter().map(|row| row.uid.0).collect()
}

fn inbox() -> FolderName {
    FolderName::from("INBOX")
}

#[tokio::test]
async fn a_master_opens_a_mailbox_and_a_wrong_password_does_not() {
    let server = Dovecot::start(Format::Mdbox).await;
    let session = server.session("ann").await;
    assert_eq!(session.level(), Level::NotifyQresync);
    let mut masked = session;
    masked.mask(&["notify".to_owned(), "qresync".to_owned()]);
    assert_eq!(masked.level(), Level::Condstore);
    masked.logout().await;

    let login = Login::Password { user: "ann*gateway".to_owned(), password: "wrong".to_owned().into() };
    let error = Session::open(&server.address(), &login).await.expect_err("refused");
    assert_eq!((error.kind(), error.code()), ("login_refused", Some("AUTHENTICATIONFAILED")));
    assert!(matches!(error.verdict(), Verdict::Fault { .. }));

    let login = Login::Authzid {
        authorize: "ann".to_owned(),
        authenticate: "gateway".to_owned(),
        password: "secret".to_owned().into(),
    };
    Session::open(&server.address(), &login).await.expect("opened by authorisation identity").logout().await;
}

#[tokio::test]
async fn tls_trusts_only_the_named_certificate() {
    let server = Dovecot::start(Format::Maildir).await;
    for address in [server.tls_address(true), server.starttls_address(true)] {
        let mut session = Session::open(&address, &server.login("ann")).await.expect("trusted");
        assert!(!session.noop().await.expect("noop").overflowed);
        session.logout().await;
    }
    for address in [server.tls_address(false), server.starttls_address(false)] {
        let error = Session::open(&address, &server.login("ann")).await.expect_err("not trusted");
        assert_eq!(error.kind(), "certificate", "{error:?}");
    }
}

#[tokio::test]
async fn what_is_said_before_tls_is_no_answer_within_it() {
    let server = Dovecot::start(Format::Maildir).await;
    for when in [When::WithTheOk, When::AfterTheHello] {
        let (port, injected) = between::inject(server.port, when).await;
        let address = server.starttls_through(port, true);
        let error = Session::open(&address, &server.login("ann")).await.expect_err("refused");
        assert!(injected.load(Ordering::SeqCst), "{when:?}: {error:?}");
        let expected = if when == When::WithTheOk { "protocol" } else { "unreachable" };
        assert_eq!(error.kind(), expected, "{when:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_sweep_tells_every_folder_subscription_and_counter() {
    let server = Dovecot::start(Format::Mdbox).await;
    let mut session = server.session("ann").await;
    session.enable_qresync().await.expect("enabled");
    let paths = [
        path(&["Sent"]),
        path(&["A", "B & \"C\"", "Entwürfe 台北"]),
        path(&["back\\slash"]),
        path(&["with/slash"]),
        path(&["100%", "*"]),
    ];
    for path in &paths {
        let name = session.name_for(path);
        session.create(&name, &["sent".to_owned()]).await.expect("created");
        session.create(&name, &[]).await.expect("created again");
        session.subscribe(&name).await.expect("subscribed");
    }
    let gone = session.name_for(&path(&["Gone"]));
    session.create(&gone, &[]).await.expect("created");
    session.subscribe(&gone).await.expect("subscribed");
    session.delete(&gone).await.expect("deleted");
    session.delete(&gone).await.expect("deleted again");
    session.unsubscribe(&session.name_for(&path(&["Never"]))).await.expect("was not there");
    let sent = session.name_for(&paths[0]);
    append(&mut session, &sent, vec![message("x", 100); 3], &[]).await;

    let sweep = session.sweep().await.expect("swept");
    for path in &paths {
        let folder = sweep.folders.iter().find(|folder| folder.path == *path).expect("listed");
        assert!(folder.selectable && folder.subscribed && folder.identity.is_some(), "{folder:?}");
        assert_eq!(folder.name, session.name_for(path));
        let status = folder.status.expect("counted");
        assert_eq!(session.status(&folder.name).await.expect("asked"), Some(status));
        assert_eq!(status.messages, if *path == paths[0] { 3 } else { 0 });
        let selected = session.examine(&folder.name).await.expect("opened").expect("there");
        assert_eq!((selected.uid_validity, selected.mod_seq), (status.uid_validity, status.mod_seq));
        assert!(selected.read_only);
    }
    assert!(sweep.subscriptions.contains(&path(&["Gone"])));
    assert!(!sweep.folders.iter().any(|folder| folder.path == path(&["Gone"])));
    let level = sweep.folders.iter().find(|folder| folder.path == path(&["A"])).expect("a level");
    assert!(!level.selectable || level.status.is_some());

    // The same without the extensions.
    let mut plain = server.session("ann").await;
    plain.mask(&["LIST-STATUS", "LIST-EXTENDED", "X-GUID"].map(str::to_owned));
    let mut expected = sweep.clone();
    for folder in &mut expected.folders {
        folder.identity = None;
        folder.special_use.clear();
    }
    let mut plainly = plain.sweep().await.expect("swept");
    for (folder, other) in plainly.folders.iter_mut().zip(&expected.folders) {
        folder.special_use.clear();
        assert_eq!(folder, other);
    }
    assert_eq!(plainly, expected);

    session.rename(&session.name_for(&path(&["A"])), &session.name_for(&path(&["Z"]))).await.expect("renamed");
    let renamed = session.sweep().await.expect("swept");
    let before = sweep.folders.iter().find(|folder| folder.path == paths[1]).expect("before");
    let after = renamed.folders.iter().find(|folder| folder.identity == before.identity).expect("after");
    assert_eq!(after.path, paths[1].rebased(&path(&["A"]), &path(&["Z"])).expect("below A"));
    assert_eq!(session.status(&before.name).await.expect("asked"), None);
    assert_eq!(session.examine(&before.name).await.expect("asked"), None);
}

#[tokio::test]
async fn rows_flags_and_bodies_come_back_as_they_were_written() {
    for format in [Format::Mdbox, Format::Maildir] {
        let server = Dovecot::start(format).await;
        let mut session = server.session("ann").await;
        let bodies = vec![message("small", 10), message("large", 3_000_000), message("büro", 5000)];
        let uids = append(&mut session, &inbox(), bodies.clone(), &["\\seen", "\\Recent", "Nope"]).await;
        assert_eq!(uids, [Uid(1), Uid(2), Uid(3)]);
        session.examine(&inbox()).await.expect("opened").expect("there");
        let all = session.uids(Uid(1)).await.expect("listed");
        assert_eq!(all.to_string(), "1:3");
        assert_eq!(session.uids(Uid(3)).await.expect("listed").to_string(), "3");
        // The last UID is below this: `*` must not bring it in.
        assert!(session.uids(Uid(4)).await.expect("listed").is_empty());

        let rows = session.rows(&set("1:10")).await.expect("rows");
        assert_eq!(uids_of(&rows), [1, 2, 3]);
        for (row, body) in rows.iter().zip(&bodies) {
            assert_eq!((row.size, row.flags.as_slice()), (body.len() as u64, &["\\Seen".to_owned()][..]));
            assert!(row.identity.is_some());
            // Dovecot keeps the instant, not the zone.
            assert_eq!(row.internal_date, "17-Jul-1996 09:44:25 +0000");
        }
        let mut taken = Bodies::default();
        session.bodies(&set("1:3,7:8"), &mut taken).await.expect("bodies");
        let expected: Vec<_> = uids.into_iter().zip(bodies).collect();
        assert!(taken.whole == expected);
        assert_eq!(taken.missing, [Uid(7), Uid(8)]);
        let flags = session.flags(&set("2")).await.expect("flags");
        assert_eq!(flags, [(Uid(2), vec!["\\Seen".to_owned()])]);
        session.unselect().await.expect("closed");
    }
}

#[tokio::test]
async fn changes_since_a_position_name_flags_and_vanished() {
    let server = Dovecot::start(Format::Mdbox).await;
    let mut reader = server.session("ann").await;
    let mut writer = server.session("ann").await;
    append(&mut writer, &inbox(), vec![message("x", 100); 10], &[]).await;
    let elsewhere = FolderName::from("Else");
    writer.create(&elsewhere, &[]).await.expect("created");

    reader.enable_qresync().await.expect("enabled");
    reader.enable_qresync().await.expect("again");
    let position = reader.examine(&inbox()).await.expect("opened").expect("there");
    assert_eq!(position.uid_next, Uid(11));

    let selected = writer.select(&inbox()).await.expect("opened").expect("there");
    assert!(!selected.read_only);
    assert!(selected.permanent_flags.expect("said").contains(&"\\*".to_owned()));
    let verdicts = writer
        .run_all(&[
            Command::AddFlags { uids: set("1:2"), flags: vec!["\\Flagged".into(), "$Work".into(), "no good".into()] },
            Command::RemoveFlags { uids: set("2"), flags: vec!["$Work".into()] },
            Command::StoreFlags { uids: set("3"), flags: vec!["\\Seen".into()] },
            Command::AddFlags { uids: set("4"), flags: vec!["\\Recent".into(), "(".into()] },
            Command::Expunge { uids: set("5:6") },
            Command::Copy { uids: set("1,3"), to: elsewhere.clone() },
            Command::Move { uids: set("8:9"), to: elsewhere.clone() },
            Command::Copy { uids: set("1"), to: FolderName::from("Nowhere") },
            Command::StoreFlags { uids: UidSet::default(), flags: vec![] },
        ])
        .await
        .expect("all run");
    let copied = |tagged: &Tagged| match tagged {
        Tagged::Ok { copied: Some((_, pairs)), .. } => pairs.iter().map(|(a, b)| (a.0, b.0)).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(copied(&verdicts[5]), [(1, 1), (3, 2)]);
    assert_eq!(copied(&verdicts[6]), [(8, 3), (9, 4)]);
    assert!(matches!(&verdicts[7], Tagged::No { code: Some(code), .. } if code.name == "TRYCREATE"), "{verdicts:?}");
    assert_eq!(verdicts.iter().filter(|verdict| matches!(verdict, Tagged::Ok { .. })).count(), 8);

    append(&mut writer, &inbox(), vec![message("y", 100); 2], &[]).await;
    let now = reader.examine(&inbox()).await.expect("opened").expect("there");
    assert!(now.mod_seq > position.mod_seq);
    let changes = reader.changes(position.uid_next, position.mod_seq).await.expect("changes");
    let flags = |flags: &[&str]| flags.iter().map(|&flag| flag.to_owned()).collect::<Vec<_>>();
    assert_eq!(
        changes.flags,
        [(Uid(1), flags(&["$Work", "\\Flagged"])), (Uid(2), flags(&["\\Flagged"])), (Uid(3), flags(&["\\Seen"]))]
    );
    assert_eq!(changes.vanished.to_string(), "5:6,8:9");
    assert_eq!(reader.uids(position.uid_next).await.expect("new").to_string(), "11:12");
    let everything = reader.changes(Uid(11), ModSeq(0)).await.expect("all flags");
    assert_eq!(everything.flags.len(), 6);
    assert_eq!(reader.changes(Uid(11), now.mod_seq).await.expect("none"), understudy_imap_session::Changes::default());

    let mut condstore = server.session("ann").await;
    condstore.mask(&["QRESYNC".to_owned()]);
    condstore.enable_qresync().await.expect("enabled");
    condstore.examine(&inbox()).await.expect("opened").expect("there");
    let seen = condstore.changes(position.uid_next, position.mod_seq).await.expect("changes");
    assert_eq!((seen.flags, seen.vanished.is_empty()), (changes.flags, true));
}

/// Dovecot 2.3.19 answers OK to a UID EXPUNGE that was sent right behind its STORE, and expunges nothing.
#[tokio::test]
async fn an_expunge_expunges_whatever_was_stored_before_it() {
    let server = Dovecot::start(Format::Mdbox).await;
    let mut session = server.session("ann").await;
    for _ in 0..20 {
        let uids = append(&mut session, &inbox(), vec![message("x", 60); 20], &[]).await;
        session.select(&inbox()).await.expect("opened").expect("there");
        let set = |range: std::ops::Range<usize>| uids[range].iter().copied().collect::<UidSet>();
        let commands = [
            Command::StoreFlags { uids: set(0..20), flags: vec!["$New".into()] },
            Command::StoreFlags { uids: set(0..1), flags: vec!["\\Seen".into()] },
            Command::Expunge { uids: set(2..12) },
        ];
        session.run_all(&commands).await.expect("answered");
        let left = session.uids(uids[0]).await.expect("listed");
        assert_eq!(left, set(0..2).iter().chain(set(12..20).iter()).collect());
        let flags = session.flags(&set(0..1)).await.expect("flags");
        assert_eq!(flags[0].1, ["\\Seen"]);
    }
}

#[tokio::test]
async fn long_sets_go_in_several_commands() {
    let server = Dovecot::start(Format::Mdbox).await;
    let mut session = server.session("ann").await;
    for _ in 0..4 {
        append(&mut session, &inbox(), vec![message("x", 60); 1000], &[]).await;
    }
    session.select(&inbox()).await.expect("opened").expect("there");
    let odd: UidSet = (0..2000).map(|n| Uid(2 * n + 1)).collect();
    let rows = session.rows(&odd).await.expect("rows");
    assert_eq!(rows.len(), 2000);
    let mut taken = Bodies::default();
    session.bodies(&odd, &mut taken).await.expect("bodies");
    assert_eq!((taken.whole.len(), taken.missing.len()), (2000, 0));
    let elsewhere = FolderName::from("Else");
    session.create(&elsewhere, &[]).await.expect("created");
    let commands = [Command::Copy { uids: odd.clone(), to: elsewhere }, Command::Expunge { uids: odd }];
    let verdicts = session.run_all(&commands).await.expect("run");
    assert!(matches!(&verdicts[0], Tagged::Ok { copied: Some((_, pairs)), .. } if pairs.len() == 2000));
    assert!(matches!(&verdicts[1], Tagged::Ok { .. }));
    assert_eq!(session.uids(Uid(1)).await.expect("left").len(), 2000);
}

#[tokio::test]
async fn without_multiappend_and_literal_plus_the_same_arrives() {
    let server = Dovecot::start(Format::Maildir).await;
    for mask in [&["MULTIAPPEND"][..], &["LITERAL+"], &["MULTIAPPEND", "LITERAL+"]] {
        let mut session = server.session("ann").await;
        session.mask(&mask.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let bodies = vec![message("one", 10), message("two", 200_000), message("three", 10)];
        let uids = append(&mut session, &inbox(), bodies.clone(), &["\\Draft"]).await;
        assert_eq!(uids.len(), 3);
        session.examine(&inbox()).await.expect("opened").expect("there");
        let mut taken = Bodies::default();
        session.bodies(&uids.iter().copied().collect(), &mut taken).await.expect("bodies");
        assert!(taken.whole.into_iter().map(|(_, body)| body).eq(bodies));
        let error = session
            .append_batch(
                &FolderName::from("Nowhere"),
                &[Append { flags: vec![], internal_date: String::new(), size: 5 }],
                &mut Contents(vec![b"a: b\n".to_vec()]),
            )
            .await
            .expect_err("no such folder");
        assert_eq!((error.kind(), error.code(), error.verdict()), ("refused", Some("TRYCREATE"), Verdict::Reconcile));
        session.noop().await.expect("the connection lives on");
    }
}

#[tokio::test]
async fn a_refused_batch_leaves_nothing_and_the_connection_in_step() {
    let server = Dovecot::start(Format::Mdbox).await;
    let mut session = server.session("ann").await;
    let bodies = vec![message("a", 300_000), b"x1 CREATE PWNED\r\n".repeat(20_000), message("c", 10)];
    let messages: Vec<Append> = bodies
        .iter()
        .map(|body| Append { flags: vec![], internal_date: String::new(), size: body.len() as u64 })
        .collect();
    let error = session.append_batch(&FolderName::from("No such"), &messages, &mut Contents(bodies)).await;
    assert!(matches!(error, Err(Error::Refused { done: 0, .. })), "{error:?}");
    session.noop().await.expect("in step");
    let sweep = session.sweep().await.expect("swept");
    assert!(!sweep.folders.iter().any(|folder| folder.path == path(&["PWNED"])));
}

#[tokio::test]
async fn no_flag_or_date_makes_the_server_run_a_message_as_commands() {
    let server = Dovecot::start(Format::Mdbox).await;
    let mut session = server.session("ann").await;
    let body = b"x1 CREATE PWNED\r\nx2 CREATE \"PWNED\"\r\n".to_vec();
    let flags =
        ["\\Recent", "\\Foo", "b\u{fc}ro", "a b", "a)", "{3+}", "]", "\"", "\\Seen) \"1\" {2+}", "", "\r\nx1 NOOP"];
    let long = "9".repeat(400);
    let dates = [
        "",
        "x",
        "1-Jan-2020 00:00:00",
        "31-Feb-2020 00:00:00 +0000",
        "01-Jan-1969 00:00:00 +0000",
        "01-Jan-1970 00:00:00 +0000",
        "01-Jan-2100 00:00:00 +0000",
        "01-Jan-2020 00:00:00 +0000\"\r\nx1 CREATE PWNED",
        "01-Jan-2020 25:00:00 +9999",
        &long,
    ];
    for (index, date) in dates.iter().enumerate() {
        let message = |flag: &&str| Append {
            flags: vec![(*flag).to_owned(), "\\Flagged".to_owned()],
            internal_date: (*date).to_owned(),
            size: body.len() as u64,
        };
        let messages: Vec<Append> = flags.iter().map(message).collect();
        let mut content = Contents(vec![body.clone(); messages.len()]);
        let appended = session.append_batch(&inbox(), &messages, &mut content).await.expect("appended");
        assert_eq!(appended.uids.len(), flags.len(), "date {index}");
    }
    session.examine(&inbox()).await.expect("opened").expect("there");
    let uids = session.uids(Uid(1)).await.expect("uids");
    let rows = session.rows(&uids).await.expect("rows");
    assert!(rows.iter().all(|row| row.flags == ["\\Flagged"]));
    let oldest = rows.iter().filter(|row| row.internal_date == "01-Jan-1970 00:00:00 +0000").count();
    // The one from 2100 went as 2038, which Dovecot turns into today.
    assert_eq!(rows.len() - oldest, flags.len());
    for hostile in ["a\"\r\nx1 CREATE PWNED", "a\r\nx1 CREATE PWNED", "x {3+}\r\nabc", "\u{e9}"] {
        let name = FolderName::from(hostile);
        assert_eq!(session.examine(&name).await.ok().flatten(), None);
        session.noop().await.expect("in step");
    }
    let sweep = session.sweep().await.expect("swept");
    assert!(!sweep.folders.iter().any(|folder| folder.path.to_string().contains("PWNED")), "{sweep:?}");
}

#[tokio::test]
async fn hints_come_by_notify_idle_and_noop() {
    let server = Dovecot::start(Format::Maildir).await;
    let mut watcher = server.session("ann").await;
    let mut writer = server.session("ann").await;
    watcher.enable_qresync().await.expect("enabled");
    watcher.notify_all().await.expect("notified");
    // The first NOTIFY creates INBOX, which is news.
    while watcher.wait_for_hint(SECOND).await.expect("waited") {}
    watcher.noop().await.expect("noop");
    assert!(!watcher.noop().await.expect("noop").something);

    append(&mut writer, &inbox(), vec![message("x", 100)], &[]).await;
    // Dropped waits lose nothing.
    for _ in 0..20 {
        let _ = tokio::time::timeout(Duration::from_millis(5), watcher.wait_for_hint(SECOND)).await;
    }
    assert!(watcher.wait_for_hint(20 * SECOND).await.expect("waited"));
    let noticed = watcher.noop().await.expect("noop");
    assert!(noticed.something && noticed.folders.contains(&inbox()), "{noticed:?}");
    assert_eq!(watcher.sweep().await.expect("swept").folders[0].status.expect("counted").messages, 1);
    assert!(!watcher.noop().await.expect("noop").something);

    let mut idler = server.session("ann").await;
    idler.examine(&inbox()).await.expect("opened").expect("there");
    assert!(!idler.idle(SECOND / 10).await.expect("nothing"));
    let inbox = inbox();
    let (idled, _) = tokio::join!(idler.idle(20 * SECOND), append(&mut writer, &inbox, vec![message("x", 100)], &[]));
    assert!(idled.expect("idled"));
    assert!(idler.noop().await.expect("in step").something);
}

/// Nagle and a delayed acknowledgement once made every NOOP with news take 40 ms. Printed, not asserted.
#[tokio::test]
async fn a_noop_with_news_is_answered() {
    let server = Dovecot::start(Format::Mdbox).await;
    let mut writer = server.session("ann").await;
    let mut watch = server.session("ann").await;
    watch.enable_qresync().await.expect("enabled");
    watch.notify_all().await.expect("watching");
    for _ in 0..5 {
        append(&mut writer, &inbox(), vec![message("x", 3000)], &[]).await;
        let asked = std::time::Instant::now();
        let noticed = watch.noop().await.expect("answered");
        println!("a NOOP with news took {:?}", asked.elapsed());
        assert!(noticed.something);
    }
}

#[tokio::test]
async fn a_dropped_call_interrupts_the_session() {
    let server = Dovecot::start(Format::Maildir).await;
    let mut session = server.session("ann").await;
    session.examine(&inbox()).await.expect("opened").expect("there");
    let _ = tokio::time::timeout(SECOND / 20, session.idle(20 * SECOND)).await;
    assert!(matches!(session.noop().await, Err(Error::Interrupted)));
    assert!(matches!(session.wait_for_hint(SECOND).await, Err(Error::Interrupted)));
}
