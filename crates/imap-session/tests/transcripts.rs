//! Conversations written down: servers that refuse, break off, or are odd.

#[path = "support/script.rs"]
mod script;
#[path = "support/speed.rs"]
mod speed;

use std::{
    io,
    time::{Duration, Instant},
};

use script::{CAPABILITIES, Script, Step, session, step};
use understudy_imap_session::{Append, BodySink, Command, ContentSource, Error, FolderName, Session, Tagged, Verdict};
use understudy_protocol::{FolderPath, ModSeq, Uid, UidSet, UidValidity};

#[derive(Default)]
struct Bodies {
    whole: Vec<(u32, Vec<u8>)>,
    ended: usize,
    missing: Vec<u32>,
    full: bool,
}

impl BodySink for Bodies {
    fn start(&mut self, uid: Uid, _size: u64) -> io::Result<()> {
        self.whole.push((uid.0, Vec::new()));
        Ok(())
    }
    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.whole.last_mut().expect("started").1.extend_from_slice(bytes);
        Ok(())
    }
    fn end(&mut self) -> io::Result<()> {
        self.ended += 1;
        Ok(())
    }
    fn missing(&mut self, uid: Uid) {
        self.missing.push(uid.0);
    }
}

/// Each message is `size` times `x`.
struct Xs;

impl ContentSource for Xs {
    async fn read(&mut self, _index: usize, _offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        buf.fill(b'x');
        Ok(buf.len())
    }
}

fn set(text: &str) -> UidSet {
    text.parse().expect("a set")
}

fn inbox() -> FolderName {
    FolderName::from("INBOX")
}

fn appends(count: usize, size: u64) -> Vec<Append> {
    let one = Append { flags: vec![], internal_date: "17-Jul-1996 02:44:25 -0700".into(), size };
    vec![one; count]
}

/// The calls whose success must mean that the server said all of it.
const CALLS: [&str; 9] = ["sweep", "examine", "rows", "bodies", "changes", "uids", "run_all", "noop", "append"];

fn steps_of(call: &str) -> Vec<Step> {
    match call {
        "sweep" => vec![
            step(
                "LIST \"\" \"*\" RETURN",
                "* LIST () \"/\" INBOX\r\n* STATUS INBOX (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 3 HIGHESTMODSEQ 4)\r\n* LIST () \"/\" {3}\r\na b\r\n<tag> OK done\r\n",
            ),
            step("LIST (SUBSCRIBED)", "* LIST (\\Subscribed) \"/\" INBOX\r\n<tag> OK done\r\n"),
        ],
        "examine" => vec![step(
            "EXAMINE \"INBOX\" (CONDSTORE)",
            "* 3 EXISTS\r\n* OK [UIDVALIDITY 3] x\r\n* OK [UIDNEXT 9] x\r\n* OK [HIGHESTMODSEQ 7] x\r\n<tag> OK [READ-ONLY] done\r\n",
        )],
        "rows" => vec![step(
            "UID FETCH 1:3 (UID FLAGS INTERNALDATE RFC822.SIZE EMAILID)",
            "* 1 FETCH (UID 1 FLAGS (\\Seen) INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" RFC822.SIZE 5 EMAILID (M1))\r\n<tag> OK done\r\n",
        )],
        "bodies" => vec![step(
            "UID FETCH 1:3 (UID BODY.PEEK[])",
            "* 1 FETCH (UID 1 BODY[] {5}\r\nhello)\r\n* 2 FETCH (UID 2 BODY[] \"\")\r\n<tag> OK done\r\n",
        )],
        "changes" => vec![step(
            "UID FETCH 1:3 (UID FLAGS) (CHANGEDSINCE 5)",
            "* VANISHED (EARLIER) 1,3\r\n* 1 FETCH (UID 2 FLAGS ())\r\n<tag> OK done\r\n",
        )],
        "uids" => {
            vec![step("UID SEARCH RETURN (ALL) UID 1:*", "* ESEARCH (TAG \"x\") UID ALL 1:3,9\r\n<tag> OK done\r\n")]
        }
        "run_all" => vec![
            step("UID STORE 1 +FLAGS.SILENT (\\Deleted)", "<tag> OK done\r\n"),
            step("UID EXPUNGE 1", "* 1 EXPUNGE\r\n<tag> OK done\r\n"),
        ],
        "noop" => vec![step("NOOP", "* 4 EXISTS\r\n<tag> OK done\r\n")],
        "append" => vec![
            step("APPEND \"INBOX\" () \"17-Jul-1996 02:44:25 -0700\" {5+}", ""),
            step("xxxxx", "<tag> OK [APPENDUID 3 9] done\r\n"),
        ],
        other => panic!("{other}"),
    }
}

async fn run(session: &mut Session, call: &str) -> Result<(), Error> {
    match call {
        "sweep" => session.sweep().await.map(drop),
        "examine" => session.examine(&inbox()).await.map(|selected| assert!(selected.is_some())),
        "rows" => session.rows(&set("1:3")).await.map(drop),
        "bodies" => session.bodies(&set("1:3"), &mut Bodies::default()).await,
        "changes" => session.changes(Uid(4), ModSeq(5)).await.map(drop),
        "uids" => session.uids(Uid(1)).await.map(drop),
        "run_all" => session.run_all(&[Command::Expunge { uids: set("1") }]).await.map(drop),
        "noop" => session.noop().await.map(drop),
        "append" => session.append_batch(&inbox(), &appends(1, 5), &mut Xs).await.map(drop),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_connection_cut_at_any_octet_is_never_a_success() {
    for call in CALLS {
        // As many octets as answers, with tags of two characters (u2 and up).
        let whole: usize =
            steps_of(call).iter().map(|(_, answer)| String::from_utf8_lossy(answer).replace("<tag>", "u2").len()).sum();
        for cut in 0..whole {
            let script = Script::serve(CAPABILITIES, steps_of(call), Some(cut)).await;
            let mut session = script.open().await.expect("opened");
            let error = run(&mut session, call).await.expect_err("cut");
            assert_eq!((error.kind(), error.verdict()), ("closed", Verdict::Retry), "{call} cut at {cut}: {error:?}");
            assert!(matches!(session.noop().await, Err(Error::Interrupted)));
        }
        let mut session = session(steps_of(call)).await;
        run(&mut session, call).await.expect("whole");
    }
}

#[tokio::test]
async fn a_refusal_is_an_error_and_the_session_goes_on() {
    for call in CALLS {
        let mut steps: Vec<Step> = steps_of(call);
        if call == "sweep" {
            steps.truncate(2);
        }
        for (_, answer) in &mut steps {
            *answer = String::from_utf8_lossy(answer).replace("<tag> OK", "<tag> NO [INUSE]").into_bytes();
        }
        steps.push(step("NOOP", "<tag> OK done\r\n"));
        let mut session = session(steps).await;
        match run(&mut session, call).await {
            // Verdicts on single commands are values.
            Ok(()) => assert_eq!(call, "run_all"),
            Err(error) => {
                assert_eq!((error.kind(), error.code()), ("refused", Some("INUSE")), "{call}");
                assert_eq!(error.verdict(), Verdict::Retry);
            }
        }
        session.noop().await.expect("goes on");
    }
}

#[tokio::test]
async fn bye_ends_everything_in_the_servers_words() {
    for call in CALLS {
        let mut steps = steps_of(call);
        let last = steps.last_mut().expect("a step");
        last.1 = b"* BYE [UNAVAILABLE] Going down\r\n<tag> OK done\r\n".to_vec();
        let mut session = session(steps).await;
        let error = run(&mut session, call).await.expect_err("over");
        assert!(matches!(&error, Error::Closed { text: Some(text) } if text == "Going down"), "{call}: {error:?}");
    }
}

#[tokio::test]
async fn bad_after_append_closes_the_connection() {
    let steps =
        vec![step("APPEND", ""), step("xxxxx", "<tag> BAD what?\r\nx1 OK Created\r\n"), step("", "<tag> OK done\r\n")];
    let script = Script::serve(CAPABILITIES, steps, None).await;
    let mut session = script.open().await.expect("opened");
    let error = session.append_batch(&inbox(), &appends(1, 5), &mut Xs).await.expect_err("bad");
    assert_eq!(error.kind(), "bad");
    assert!(matches!(error.verdict(), Verdict::Fault { .. }));
    assert!(matches!(session.noop().await, Err(Error::Interrupted)));
    let heard = script.heard.await.expect("served");
    assert!(heard.ends_with(b"xxxxx\r\n"), "nothing more was said: {}", heard.escape_ascii());
}

#[tokio::test]
async fn a_verdict_before_the_last_octet_ends_the_connection() {
    let steps = vec![step("APPEND", "<tag> NO [OVERQUOTA] full\r\n"), step(script::HEAR_OUT, "")];
    let mut session = session(steps).await;
    let error = session.append_batch(&inbox(), &appends(40, 1 << 20), &mut Xs).await.expect_err("refused");
    assert_eq!(error.code(), Some("OVERQUOTA"));
    assert!(matches!(session.noop().await, Err(Error::Interrupted)));
}

#[tokio::test]
async fn appends_one_by_one_say_how_many_were_taken() {
    let capabilities = CAPABILITIES.replace(" MULTIAPPEND", "").replace(" LITERAL+", "");
    let steps = vec![
        step("APPEND \"INBOX\" () \"17-Jul-1996 02:44:25 -0700\" {5}", "* 4 EXISTS\r\n+ go\r\n"),
        step("xxxxx", "<tag> OK [APPENDUID 3 9] done\r\n"),
        step("APPEND", "<tag> NO [OVERQUOTA] full\r\n"),
        step("NOOP", "<tag> OK done\r\n"),
    ];
    let mut session = Script::serve(&capabilities, steps, None).await.open().await.expect("opened");
    let error = session.append_batch(&inbox(), &appends(3, 5), &mut Xs).await.expect_err("refused");
    assert!(matches!(&error, Error::Refused { done: 1, .. }), "{error:?}");
    assert!(session.noop().await.expect("goes on").something);
}

#[tokio::test]
async fn an_empty_message_is_refused_before_anything_is_sent() {
    let mut session = session(vec![step("NOOP", "<tag> OK done\r\n")]).await;
    let error = session.append_batch(&inbox(), &appends(2, 0), &mut Xs).await.expect_err("refused");
    assert_eq!(error.kind(), "refused");
    session.noop().await.expect("nothing was said");
}

#[tokio::test]
async fn what_comes_unasked_or_unknown_disturbs_nothing() {
    let answer = b"* OK [ALERT] B\xc3\xbcro \xff {5}\r\n* XUNKNOWN (a \"b\" {2}\r\n)\n) x\r\n* 9 EXISTS\r\n* 2 FETCH (FLAGS (\\Seen))\r\n\
        * 1 FETCH (UID 1 MODSEQ (9) FLAGS (b a \\Recent \\SEEN a))\r\n* 77 FETCH (UID 99 RFC822.SIZE 1 FLAGS () INTERNALDATE \"x\")\r\n\
        * 1 FETCH (X-NEW (1 (2)) RFC822.SIZE 5 UID 1 FLAGS (z) INTERNALDATE {5}\r\na\"b\\c EMAILID NIL)\r\n\
        hello\r\n* VANISHED 3\r\n\r\n* 2 FETCH (UID 2 FLAGS ())\r\n* 2 FETCH (UID 2 INTERNALDATE \"y\" RFC822.SIZE 6)\r\n<tag> OK done\r\n";
    let mut session = session(vec![step("FETCH", answer), step("NOOP", "<tag> OK done\r\n")]).await;
    let rows = session.rows(&set("1:5")).await.expect("rows");
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (rows[0].internal_date.as_str(), rows[0].size, rows[0].flags.as_slice()),
        ("a\"b\\c", 5, &["z".to_owned()][..])
    );
    assert_eq!((rows[1].uid, rows[1].internal_date.as_str(), rows[1].size), (Uid(2), "y", 6));
    assert!(session.noop().await.expect("goes on").something);
}

#[tokio::test]
async fn half_a_row_is_an_error() {
    let mut half = session(vec![step("FETCH", "* 1 FETCH (UID 1 FLAGS () RFC822.SIZE 5)\r\n<tag> OK done\r\n")]).await;
    assert_eq!(half.rows(&set("1")).await.expect_err("half").kind(), "protocol");
    let mut unreadable = session(vec![step("FETCH", "* 1 FETCH (UID 1 FLAGS (\\Seen\r\n<tag> OK done\r\n")]).await;
    assert_eq!(unreadable.rows(&set("1")).await.expect_err("unreadable").kind(), "protocol");
}

#[tokio::test]
async fn bodies_in_every_shape_arrive_once() {
    let answer = b"* 1 FETCH (UID 1 FLAGS (\\Seen) BODY[] {5}\r\nhello MODSEQ (4))\r\n* 2 FETCH (BODY[] {3}\r\n)\r\n UID 2)\r\n\
        * 3 FETCH (UID 3 BODY[] NIL)\r\n* 4 FETCH (BODY[] \"a\\\"b\" UID 4)\r\n* 5 FETCH (UID 5 body[] ~{0}\r\n)\r\n* 9 EXISTS\r\n\
        * 1 FETCH (UID 1 BODY[] {5}\r\nAGAIN)\r\n* 7 FETCH (UID 70 BODY[] {5}\r\nother)\r\n<tag> OK done\r\n";
    let mut session = session(vec![step("FETCH", answer)]).await;
    let mut bodies = Bodies::default();
    session.bodies(&set("1:6"), &mut bodies).await.expect("bodies");
    let expected: [(u32, &[u8]); 4] = [(1, b"hello"), (2, b")\r\n"), (4, b"a\"b"), (5, b"")];
    assert!(bodies.whole.iter().map(|(uid, body)| (*uid, body.as_slice())).eq(expected), "{:?}", bodies.whole);
    assert_eq!((bodies.ended, bodies.missing), (4, vec![3, 6]));
}

#[tokio::test]
async fn a_sink_that_fails_ends_the_session() {
    let mut session = session(steps_of("bodies")).await;
    let mut bodies = Bodies { full: true, ..Bodies::default() };
    let error = session.bodies(&set("1:3"), &mut bodies).await.expect_err("full");
    assert!(matches!(error, Error::Sink(_)));
    assert!(matches!(session.noop().await, Err(Error::Interrupted)));
}

#[tokio::test]
async fn announcements_cost_nothing_until_they_come_true() {
    let steps = vec![step("FETCH", "* 1 FETCH (UID 1 BODY[] {99999999999}\r\nabc")];
    let mut announced = session(steps).await;
    let mut bodies = Bodies::default();
    assert_eq!(announced.bodies(&set("1"), &mut bodies).await.expect_err("cut").kind(), "closed");
    assert_eq!((bodies.whole.len(), bodies.ended), (1, 0));
    let mut named = session(vec![step("LIST", "* LIST () \"/\" {500000000}\r\nabc")]).await;
    assert_eq!(named.sweep().await.expect_err("too long").kind(), "protocol");
}

#[tokio::test]
async fn a_million_vanished_are_read_at_once() {
    let mut line = b"* VANISHED (EARLIER) 1".to_vec();
    for uid in 1..1_000_000u32 {
        line.extend_from_slice(format!(",{}", 2 * uid + 1).as_bytes());
    }
    line.extend_from_slice(b"\r\n<tag> OK done\r\n");
    let steps = vec![
        step("ENABLE QRESYNC", "* ENABLED QRESYNC\r\n<tag> OK done\r\n"),
        step("FETCH 1:4294967294 (UID FLAGS) (CHANGEDSINCE 5 VANISHED)", &line),
    ];
    let mut session = session(steps).await;
    session.enable_qresync().await.expect("enabled");
    let began = Instant::now();
    let changes = session.changes(Uid(u32::MAX), ModSeq(5)).await.expect("changes");
    assert_eq!(changes.vanished.len(), 1_000_000);
    println!("1,000,000 vanished UIDs: {:?}", began.elapsed());
    // Not optimised and beside other tests, on a machine that is busy; looking through all of them for each would take hours.
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn vanished_stays_below_what_was_asked() {
    let answer = "* VANISHED (EARLIER) 1:9,20:30\r\n* VANISHED 2\r\n* 1 FETCH (UID 12 FLAGS ())\r\n<tag> OK done\r\n";
    let mut session = session(vec![step("CHANGEDSINCE 5)", answer)]).await;
    let changes = session.changes(Uid(5), ModSeq(5)).await.expect("changes");
    assert_eq!((changes.vanished.to_string().as_str(), changes.flags.len()), ("1:4", 0));
    assert!(session.changes(Uid(1), ModSeq(5)).await.expect("nothing to ask").flags.is_empty());
}

#[tokio::test]
async fn silence_has_an_end() {
    // What came without its verdict is nudged along, once.
    let mut session =
        session(vec![step("NOOP", "* OK wait\r\n"), step("NOOP", "* OK wait\r\n"), step("never", "")]).await;
    session.set_silence_limit(Duration::from_millis(50));
    assert!(matches!(session.noop().await, Err(Error::Timeout)));
}

#[tokio::test]
async fn a_bare_no_is_not_a_missing_folder_until_the_server_says_so() {
    let steps = vec![
        step("EXAMINE", "<tag> NO some trouble\r\n"),
        step("LIST \"\" \"INBOX\"", "* LIST () \"/\" inbox\r\n<tag> OK done\r\n"),
        step("EXAMINE", "<tag> NO Mailbox does not exist\r\n"),
        step("LIST \"\" \"a*\"", "* LIST () \"/\" ab\r\n<tag> OK done\r\n"),
        step("EXAMINE", "<tag> NO [NONEXISTENT] no\r\n"),
        step("EXAMINE", "<tag> NO [SERVERBUG] internal error\r\n"),
    ];
    let mut session = session(steps).await;
    assert_eq!(session.examine(&inbox()).await.expect_err("trouble").kind(), "refused");
    assert_eq!(session.examine(&FolderName::from("a*")).await.expect("missing"), None);
    assert_eq!(session.examine(&FolderName::from("b")).await.expect("missing"), None);
    assert_eq!(session.examine(&FolderName::from("c")).await.expect_err("trouble").code(), Some("SERVERBUG"));
}

#[tokio::test]
async fn mailbox_ids_come_with_every_sweep() {
    let list = "* LIST (\\Drafts) \"/\" D\r\n* STATUS D (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 3 HIGHESTMODSEQ 4 MAILBOXID (M-7))\r\n\
        * LIST (\\NonExistent) \"/\" gone\r\n* LIST (\\NonExistent) \"/\" up\r\n* LIST (\\Noselect) \"/\" up/on\r\n* STATUS D (HIGHESTMODSEQ 5)\r\n<tag> OK done\r\n";
    let steps = vec![
        step("RETURN (SPECIAL-USE STATUS (MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ MAILBOXID))", list),
        step("LIST (SUBSCRIBED)", "* LIST (\\NonExistent \\Subscribed) \"/\" old\r\n<tag> OK done\r\n"),
        step("LIST", list),
        step("LIST", "<tag> OK done\r\n"),
    ];
    let mut session = session(steps).await;
    let first = session.sweep().await.expect("swept");
    let paths: Vec<String> = first.folders.iter().map(|folder| folder.path.to_string()).collect();
    assert_eq!(paths, ["D", "up", "up/on"]);
    let drafts = &first.folders[0];
    assert_eq!((drafts.identity.as_deref(), drafts.special_use.as_slice()), (Some("M-7"), &["drafts".to_owned()][..]));
    assert_eq!(drafts.status.expect("counted").mod_seq, ModSeq(5));
    assert!(!first.folders[1].selectable && !first.folders[2].selectable);
    assert_eq!(first.subscriptions, [FolderPath::new(vec!["old".to_owned()])]);
    let second = session.sweep().await.expect("swept");
    assert_eq!(second.folders, first.folders);
    assert!(second.subscriptions.is_empty());
}

#[tokio::test]
async fn a_plain_server_is_swept_with_list_lsub_and_status() {
    let steps = vec![
        step("STATUS INBOX (X-GUID)", "<tag> BAD unknown item\r\n"),
        step("LIST \"\" \"*\"", "* LIST () \".\" INBOX\r\n* LIST () \".\" \"a.b\"\r\n<tag> OK done\r\n"),
        step("LSUB \"\" \"*\"", "* LSUB (\\Noselect) \".\" a\r\n* LSUB () \".\" a.b\r\n<tag> OK done\r\n"),
        step("STATUS", ""),
        step("STATUS", "* STATUS inbox (UIDVALIDITY 3 UIDNEXT 2 MESSAGES 1)\r\nu5 OK done\r\nu6 NO gone\r\n"),
    ];
    let script = Script::serve("IMAP4rev1 AUTH=PLAIN", steps, None).await;
    let mut session = script.open().await.expect("opened");
    assert_eq!(session.level().to_string(), "none");
    let sweep = session.sweep().await.expect("swept");
    assert_eq!(sweep.folders.len(), 2);
    let inbox = sweep.folders.iter().find(|folder| folder.path.is_inbox()).expect("there");
    assert_eq!(inbox.status.map(|status| (status.messages, status.uid_validity)), Some((1, UidValidity(3))));
    assert_eq!(sweep.subscriptions.len(), 1);
    assert_eq!(session.changes(Uid(5), ModSeq(1)).await.expect_err("no journal").kind(), "protocol");
}

#[tokio::test]
async fn search_drops_what_the_star_brings_in() {
    let capabilities = CAPABILITIES.replace(" ESEARCH", "");
    let steps = vec![
        step("UID SEARCH UID 10:*", "* SEARCH 9\r\n<tag> OK done\r\n"),
        step("UID SEARCH UID 10:*", "* SEARCH 12 10 11 (MODSEQ 5)\r\n<tag> OK done\r\n"),
        step("UID SEARCH UID 10:*", "<tag> OK done\r\n"),
    ];
    let mut session = Script::serve(&capabilities, steps, None).await.open().await.expect("opened");
    assert!(session.uids(Uid(10)).await.expect("uids").is_empty());
    assert_eq!(session.uids(Uid(10)).await.expect("uids").to_string(), "10:12");
    assert_eq!(session.uids(Uid(10)).await.expect_err("no answer is no empty list").kind(), "protocol");
}

#[tokio::test]
async fn verdicts_may_come_late_and_stay_with_their_commands() {
    let steps = vec![
        step("UID STORE 1 FLAGS.SILENT (\\Seen $Work)", ""),
        step("UID STORE 2 FLAGS.SILENT (\\Seen)", ""),
        step("UID STORE 3 +FLAGS.SILENT ($Work)", "u4 OK done\r\nu3 NO no\r\nu2 BAD what?\r\n"),
    ];
    // NAMESPACE was u1.
    let mut session = session(steps).await;
    let verdicts = session
        .run_all(&[
            Command::StoreFlags { uids: set("1"), flags: vec!["\\seen".into(), "$Work".into(), "a b".into()] },
            Command::StoreFlags { uids: set("2"), flags: vec!["\\Seen".into()] },
            Command::AddFlags { uids: set("3"), flags: vec!["$Work".into()] },
        ])
        .await
        .expect("all answered");
    assert!(matches!(&verdicts[..], [Tagged::Bad { .. }, Tagged::No { .. }, Tagged::Ok { .. }]), "{verdicts:?}");
}

#[tokio::test]
async fn copies_and_moves_say_where_messages_went_and_wait_for_each_other() {
    let steps = vec![
        step("UID STORE 1:2 FLAGS.SILENT (\\Seen)", "<tag> OK done\r\n"),
        step("UID COPY 2:3 \"a\\\"b\"", "<tag> OK [COPYUID 7 2:3 5:6] done\r\n"),
        step("UID MOVE 4 \"c\"", "* OK [COPYUID 7 4 9] moved\r\n<tag> OK done\r\n"),
        step("UID STORE 2 FLAGS.SILENT ()", "<tag> OK done\r\n"),
    ];
    let mut session = session(steps).await;
    let verdicts = session
        .run_all(&[
            Command::StoreFlags { uids: set("1:2"), flags: vec!["\\Seen".into()] },
            Command::Copy { uids: set("2:3"), to: FolderName::from("a\"b") },
            Command::Move { uids: set("4"), to: FolderName::from("c") },
            Command::StoreFlags { uids: set("2"), flags: vec![] },
        ])
        .await
        .expect("all answered");
    let copied = |verdict: &Tagged| match verdict {
        Tagged::Ok { copied: Some((validity, pairs)), .. } => (validity.0, pairs.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!((copied(&verdicts[1]), copied(&verdicts[2])), ((7, 2), (7, 1)));
}

#[tokio::test]
async fn without_move_and_uidplus_nothing_is_sent() {
    let script = Script::serve("IMAP4rev1 AUTH=PLAIN NAMESPACE", vec![], None).await;
    let mut session = script.open().await.expect("opened");
    let commands = [Command::Move { uids: set("1"), to: inbox() }, Command::Expunge { uids: set("1") }];
    let verdicts = session.run_all(&commands).await.expect("nothing to say");
    assert_eq!(verdicts, [Tagged::Unsupported { needs: "MOVE" }, Tagged::Unsupported { needs: "UIDPLUS" }]);
}

#[tokio::test]
async fn greetings_and_log_ins_fail_in_our_words() {
    let offered = "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n<tag> OK done\r\n";
    let asked = |verdict: &'static str| {
        vec![step("CAPABILITY", offered), step("AUTHENTICATE PLAIN", "+ \r\n"), step("", verdict)]
    };
    let ok = "* OK ready\r\n";
    let table: Vec<(&str, Vec<Step>, &str)> = vec![
        ("* BYE too busy\r\n", vec![], "closed"),
        ("* PREAUTH hello\r\n", vec![], "protocol"),
        ("220 smtp.example.com\r\n", vec![], "protocol"),
        (ok, vec![], "closed"),
        (ok, asked("<tag> NO [AUTHENTICATIONFAILED] no\r\n"), "login_refused"),
        (ok, asked("<tag> NO no\r\n"), "login_refused"),
        (ok, asked("<tag> NO [UNAVAILABLE] later\r\n"), "unreachable"),
        (ok, asked("<tag> NO Unknown user\r\n"), "no_such_user"),
        (ok, asked("<tag> BAD what?\r\n"), "bad"),
        (ok, asked("* BYE bye\r\n"), "closed"),
        (ok, vec![step("CAPABILITY", "* CAPABILITY IMAP4rev1 LOGINDISABLED\r\n<tag> OK done\r\n")], "protocol"),
        (ok, vec![step("CAPABILITY", "<tag> OK done\r\n")], "protocol"),
    ];
    for (greeting, steps, kind) in table {
        let script = Script::from_the_greeting(greeting, steps).await;
        let error = script.open().await.expect_err("failed");
        assert_eq!(error.kind(), kind, "{greeting:?}: {error:?}");
        assert!(!format!("{error:?} {error}").contains("secret"));
    }
}

#[tokio::test]
async fn a_greeting_that_makes_a_parser_panic_is_only_an_error() {
    let script = Script::from_the_greeting("* OK [ALERT]\u{fc}\r\n", vec![]).await;
    assert!(script.open().await.is_err());
}

#[tokio::test]
async fn login_is_the_last_resort() {
    let steps = vec![
        step("CAPABILITY", "* CAPABILITY IMAP4rev1\r\n<tag> OK done\r\n"),
        step("LOGIN \"ann\" \"secret\"", "<tag> OK done\r\n"),
        step("CAPABILITY", "* CAPABILITY IMAP4rev1\r\n<tag> OK done\r\n"),
        step("LIST \"\" \"\"", "* LIST (\\Noselect) \".\" \"\"\r\n<tag> OK done\r\n"),
    ];
    let script = Script::from_the_greeting("* OK ready\r\n", steps).await;
    let session = script.open().await.expect("opened");
    let path = FolderPath::new(vec!["a".to_owned(), "b.c".to_owned()]);
    assert_eq!(session.name_for(&path), FolderName::from("a.b=2Ec"));
}
