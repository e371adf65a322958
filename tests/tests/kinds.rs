//! Every kind of change, at every level of what a primary offers; and which of them cost no message on the link.
//!
//! One stack a level. Each kind keeps to folders that begin with its name, so that a difference names its kind. `cyrus/kinds.rs` has
//! the same list between Dovecot and Cyrus.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use understudy_tests::client::{Client, Refused};
use understudy_tests::compare::compare;
use understudy_tests::dovecot::{Dovecot, Format};
use understudy_tests::mail::Mail;
use understudy_tests::proxy::Proxy;
use understudy_tests::scenario::{self, Scenario};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

use crate::layouts::unescaped;
use crate::levels::LEVELS;
use crate::times;

const PATIENCE: Duration = Duration::from_secs(180);

/// What a user does things with.
pub(crate) struct Hands {
    pub(crate) client: Client,
    pub(crate) mail: Mail,
    /// One of the two sides is Cyrus: what cannot be bridged (`docs/servers.md`) is left out, and what Cyrus refuses is not there.
    pub(crate) with_cyrus: bool,
}

impl Hands {
    /// `count` messages in a new folder.
    async fn folder(&mut self, name: &str, count: usize) -> Result<()> {
        self.client.create(name).await?;
        self.fill(name, count).await
    }

    async fn fill(&mut self, name: &str, count: usize) -> Result<()> {
        for _ in 0..count {
            self.client.append(name, &[], None, &self.mail.any()).await?;
        }
        Ok(())
    }

    async fn append(&mut self, folder: &str, flags: &[&str], message: &[u8]) -> Result<()> {
        self.client.append(folder, flags, None, message).await.map(drop)
    }

    /// Creates a folder, where the server takes its name.
    async fn create_odd(&mut self, name: &str) -> Result<bool> {
        match self.client.create(name).await {
            Err(error) if error.is::<Refused>() && (self.with_cyrus || name.contains(char::is_control)) => {
                println!("{name:?}: {error}");
                Ok(false)
            }
            created => created.map(|()| true),
        }
    }
}

/// Keywords as a client may write them; more than the 26 letters that Maildir, the standby's format at one level, has for them.
fn keywords() -> Vec<String> {
    let odd = ["a[b", "a&b", "it's", "~x", "a/b", "a.b", "$", "NIL", "a,b", "a=b:c;d<e>?@^_`|!#+", "0", "-"];
    odd.into_iter().map(str::to_owned).chain((0..40).map(|n| format!("Keyword{n}"))).collect()
}

/// Names as Dovecot's dbox takes them, and some with control characters that it may refuse. Each is one level.
const NAMES: [&str; 23] = [
    "dot.dot",
    "...",
    "star*",
    "percent%",
    "quote\"",
    "back\\slash",
    "and&and",
    "=2E",
    "=2F=",
    "a=b",
    "sharp#",
    "pipe|",
    " space ",
    "{5}",
    "(paren)",
    "Ünï😀",
    "日本語",
    "inbox",
    "cur",
    "a\tb",
    "\u{1}x",
    "x\u{7f}",
    "a\u{85}b",
];

const ODD: [&[u8]; 7] =
    [b"\r\n", b"x", b"\r\n\r\n", b"no header", b"a: b", b"a: b\nbare\nLF", b"a: \xe9\xff\r\n\r\n\x80\r\n"];
/// Lines without a colon or an end where a header should be, and a bare LF.
const FORBIDDEN_BY_CYRUS: [&[u8]; 4] = [b"x", b"no header", b"a: b", b"a: b\nbare\nLF"];

const DATES: [&str; 8] = [
    "17-Jul-1996 02:44:25 -0700",
    " 1-Feb-2020 23:59:59 +1400",
    "01-Jan-1970 00:00:01 +0000",
    "29-Feb-2024 12:00:00 +0545",
    "01-Jan-2020 00:00:00 -1200",
    FIRST_SECOND,
    "28-Feb-2025 23:00:00 -0330",
    "31-Dec-1999 23:59:59 -0000",
];
/// Of 1970, which to Cyrus means now.
const FIRST_SECOND: &str = "01-Jan-1970 05:30:00 +0530";

/// `NAME { what there is before protection } => { what happens then }`.
macro_rules! kinds {
    ($hands:ident, $home:ident; $($name:literal $before:block => $after:block)*) => {
        pub(crate) const KINDS: &[&str] = &[$($name),*];

        pub(crate) async fn before(kind: &str, $hands: &mut Hands) -> Result<()> {
            match kind {
                $($name => { let $home = $name; let _ = $home; $before; })*
                _ => bail!("no such kind"),
            }
            Ok(())
        }

        pub(crate) async fn change(kind: &str, $hands: &mut Hands) -> Result<()> {
            match kind {
                $($name => { let $home = $name; let _ = $home; $after; })*
                _ => bail!("no such kind"),
            }
            Ok(())
        }
    };
}

kinds! { hands, home;
    "append" { hands.folder(home, 1).await? } => {
        let message = hands.mail.any();
        hands.append(home, &["\\Seen", "\\Flagged", "$Work"], &message).await?;
        let message = hands.mail.with_attachment(70_000);
        hands.append(home, &["\\Deleted", "\\Draft", "\\Answered"], &message).await?
    }
    "multi-append" { hands.folder(home, 0).await? } => {
        let literal = |text: &str| format!("{{{}+}}\r\n{text}", text.len());
        let command = format!(
            "APPEND {home} (\\Seen) {} (\\Flagged) \"17-Jul-1996 02:44:25 -0700\" {} {}",
            literal("Subject: one\r\n\r\n1\r\n"), literal("Subject: two\r\n\r\n2\r\n"), literal("Subject: three\r\n\r\n3\r\n")
        );
        hands.client.run(&command).await?
    }
    "flags" { hands.folder(home, 5).await? } => {
        hands.client.select(home).await?;
        hands.client.store("1:3", "+FLAGS (\\Seen \\Flagged)").await?;
        hands.client.store("2", "-FLAGS (\\Flagged)").await?;
        hands.client.store("3:4", "FLAGS (\\Draft)").await?;
        hands.client.store("5", "+FLAGS (\\Deleted)").await?
    }
    "keywords" { hands.folder(home, 4).await? } => {
        hands.client.select(home).await?;
        for keyword in keywords() {
            hands.client.store("1", &format!("+FLAGS.SILENT ({keyword})")).await?;
        }
        hands.client.store("2", "+FLAGS (work)").await?;
        hands.client.store("3", "+FLAGS (WORK Other)").await?;
        hands.client.store("3", "-FLAGS (oTHER)").await?;
        hands.client.store("1", "-FLAGS (Keyword7 a/b)").await?
    }
    "copy" { hands.folder(home, 4).await?; hands.folder("copy to", 1).await? } => {
        hands.client.select(home).await?;
        hands.client.store("2", "+FLAGS (\\Answered $Copied)").await?;
        hands.client.copy("1:3", "copy to").await?;
        hands.client.copy("2", home).await?;
        hands.client.copy("2", home).await?
    }
    "move" { hands.folder(home, 5).await?; hands.folder("move to", 0).await? } => {
        hands.client.select(home).await?;
        hands.client.move_to("2,4", "move to").await?;
        hands.client.move_to("1", home).await?;
        hands.client.select("move to").await?;
        hands.client.move_to("1", home).await?
    }
    "expunge" { hands.folder(home, 5).await?; hands.folder("expunge all", 3).await? } => {
        hands.client.select(home).await?;
        hands.client.expunge("2,5").await?;
        hands.client.select("expunge all").await?;
        hands.client.expunge("1:*").await?
    }
    "twins" {
        hands.client.create(home).await?;
        let (plain, same_id) = ("Subject: no id\r\n\r\nx\r\n", "Message-ID: <same@id>\r\nSubject: ");
        for n in 0..3 {
            hands.append(home, &[], plain.as_bytes()).await?;
            hands.append(home, &[], format!("{same_id}{n}\r\n\r\n").as_bytes()).await?;
        }
    } => {
        hands.client.select(home).await?;
        // The same bytes: which of them is gone shows by the flags of those that stay.
        hands.client.store("3", "+FLAGS (\\Flagged)").await?;
        hands.client.expunge("1").await?;
        hands.append(home, &["\\Seen"], b"Subject: no id\r\n\r\nx\r\n").await?;
        hands.client.copy("2", home).await?
    }
    "small and odd" { hands.folder(home, 0).await? } => {
        for message in ODD {
            if !(hands.with_cyrus && FORBIDDEN_BY_CYRUS.contains(&message)) {
                hands.append(home, &[], message).await?;
            }
        }
        hands.append(home, &[], format!("a: {}\r\n\r\n", "long ".repeat(40_000)).as_bytes()).await?
    }
    "dates" { hands.folder(home, 0).await? } => {
        for date in DATES.into_iter().filter(|&date| !(hands.with_cyrus && date == FIRST_SECOND)) {
            let message = hands.mail.plain(50);
            hands.client.append(home, &[], Some(date), &message).await?;
        }
        // Every zone there can be, in one go.
        let mut command = format!("APPEND {home}");
        for quarters in -12 * 4..=14 * 4_i32 {
            let (sign, minutes) = (if quarters < 0 { '-' } else { '+' }, quarters.abs() * 15);
            let (zone, text) = (format!("{sign}{:02}{:02}", minutes / 60, minutes % 60), format!("Subject: {quarters}\r\n\r\n"));
            command += &format!(" \"29-Feb-2024 23:59:59 {zone}\" {{{}+}}\r\n{text}", text.len());
        }
        hands.client.run(&command).await?
    }
    "names" {} => {
        for name in NAMES {
            let name = format!("names/{name}");
            if !hands.create_odd(&name).await? {
                continue;
            }
            hands.append(&name, &[], format!("Subject: odd\r\n\r\n{name}\r\n").as_bytes()).await?;
            hands.client.subscribe(&name).await?;
        }
        hands.client.rename("names/...", "names/..../.x").await?;
        hands.client.delete("names/star*").await?
    }
    "create" {} => {
        hands.folder("create/deep/deeper/deepest", 1).await?;
        hands.client.create("create empty").await?
    }
    "rename" {
        for name in ["rename", "rename/below", "rename/below/more", "rename a", "rename b", "rename up", "rename up/child"] {
            hands.folder(name, 1).await?;
        }
    } => {
        hands.client.rename("rename", "renamed/anew").await?;
        hands.client.rename("rename a", "rename c").await?;
        hands.client.rename("rename b", "rename a").await?;
        hands.client.rename("rename c", "rename b").await?;
        hands.client.rename("rename up/child", "rename child").await?
    }
    "delete" {
        for name in ["delete", "delete/below", "delete other"] {
            hands.folder(name, 2).await?;
        }
    } => {
        hands.client.delete("delete other").await?;
        hands.client.delete("delete/below").await?;
        hands.client.delete(home).await?
    }
    "again" {
        for name in [home, "again same", "again/below"] {
            hands.folder(name, 3).await?;
        }
        hands.client.copy_all("again same", "again").await?
    } => {
        hands.client.select("again same").await?;
        hands.client.copy("1:2", home).await?;
        // Dovecot ends a session whose open folder is deleted.
        hands.client.select("INBOX").await?;
        hands.client.replace("again same").await?;
        hands.fill("again same", 2).await?;
        hands.client.select(home).await?;
        hands.client.copy("4:5", "again same").await?
    }
    "subscriptions" { hands.folder(home, 0).await?; hands.client.subscribe(home).await?; hands.folder("subscriptions to", 0).await? } => {
        hands.client.subscribe("subscriptions to").await?;
        hands.client.unsubscribe(home).await?;
        hands.folder("subscriptions gone", 0).await?;
        hands.client.subscribe("subscriptions gone").await?;
        hands.client.delete("subscriptions gone").await?
    }
    "special use" {} => { hands.folder("Archive", 1).await?; hands.folder("Junk", 1).await? }
}

/// Maildir's names hold no dot; there it stands as `=2E`.
async fn assert_same(scenario: &Scenario) -> Result<()> {
    let ours = scenario.snapshot("ann").await?;
    let mut theirs = scenario.log_in_to_standby("ann").await?.snapshot().await?;
    if scenario.standby.format() == Format::Maildir {
        theirs = unescaped(theirs);
    }
    let differences = compare(&ours, &theirs);
    ensure!(differences.is_empty(), "the mailbox is not the same on both sides: {differences}");
    Ok(())
}

async fn settle_and_compare(scenario: &Scenario) -> Result<()> {
    scenario.settle().await?;
    assert_same(scenario).await
}

/// All kinds, or the one that `UNDERSTUDY_KIND` names; whether it is all.
pub(crate) fn asked_for() -> Result<(Vec<&'static str>, bool)> {
    let only = std::env::var("UNDERSTUDY_KIND").ok();
    let kinds: Vec<&str> =
        KINDS.iter().copied().filter(|&kind| only.as_deref().is_none_or(|only| only == kind)).collect();
    ensure!(!kinds.is_empty(), "no kind of that name");
    Ok((kinds, only.is_none()))
}

async fn level(number: usize, on_standby: Format) -> Result<()> {
    let level = LEVELS[number];
    let name = level.name;
    let mut primary = Dovecot::start(scenario::primary(&["ann"]))?;
    let proxy = Proxy::to(primary.imap_address()).await?;
    primary.behind(proxy.address());
    let standby = Dovecot::start(scenario::standby(&["ann"]).format(on_standby))?;
    let stack = Stack::apart_with(&[("primary", &primary), ("standby", &standby)], &level.setting()).await?;
    let scenario = Scenario { primary, standby, stack };
    let mut hands = Hands { client: scenario.log_in("ann").await?, mail: Mail::from_seed(40), with_cyrus: false };

    let (kinds, all) = asked_for()?;
    for kind in &kinds {
        before(kind, &mut hands).await.with_context(|| format!("before {kind}"))?;
    }
    scenario.protect(&["ann"]).await?;
    settle_and_compare(&scenario).await?;
    let shown = scenario.show("ann").await?;
    assert_eq!(shown["capability"], name, "{shown:#}");
    for kind in &kinds {
        change(kind, &mut hands).await.context(*kind)?;
        // One by one, no change can be hidden by another; all at once, they meet in one transaction.
        if times(2) > 1 {
            settle_and_compare(&scenario).await.with_context(|| format!("after {kind}"))?;
        }
    }
    settle_and_compare(&scenario).await?;
    if all {
        costs_nothing(&scenario, &mut hands, &proxy, name).await?;
        // Dovecot 2.3.19 ends sessions for a moment after INBOX was renamed.
        let mut said = String::new();
        let verified = wait::until("a verification finds both sides equal", PATIENCE, async || {
            let verified = scenario.stack.command(&["mailbox", "verify", "ann", "--deep"]).await?;
            said = verified.stdout + &verified.stderr;
            Ok(verified.code == 0)
        });
        verified.await.with_context(|| said.clone())?;
    }
    Ok(())
}

/// What moves messages about, and must not move their bytes over the link; nor from the primary, where it names messages.
async fn costs_nothing(scenario: &Scenario, hands: &mut Hands, primary: &Proxy, level: &str) -> Result<()> {
    const BYTES: usize = 600_000;
    const MESSAGES: usize = 5;
    for folder in ["free", "free copy", "free move", "free reset"] {
        hands.client.create(folder).await?;
    }
    for folder in ["free", "free reset", "INBOX"] {
        for _ in 0..MESSAGES {
            let message = hands.mail.with_attachment(BYTES);
            hands.append(folder, &["\\Seen"], &message).await?;
        }
    }
    settle_and_compare(scenario).await?;
    let link = scenario.stack.link()?;
    let (mut shipped, mut fetched) = (link.bytes_to_server(), primary.bytes_to_client());
    for change in ["copy", "move", "rename", "reset", "inbox"] {
        match change {
            "copy" => hands.client.copy_all("free", "free copy").await?,
            "move" => hands.client.move_all("free copy", "free move").await?,
            "rename" => hands.client.rename("free move", "free/moved").await?,
            "reset" => {
                scenario.primary.doveadm(&[
                    "mailbox",
                    "update",
                    "-u",
                    "ann",
                    "--uid-validity",
                    "12345",
                    "free reset",
                ])?;
            }
            _ => {
                // What is appended to the new INBOX at once Dovecot 2.3.19 may lose, while others idle on the old one.
                // Renaming it ends sessions that have it open.
                hands.client = scenario.log_in("ann").await?;
                hands.client.rename("INBOX", "free inbox").await?;
            }
        }
        scenario.settle().await?;
        let (crossed, read) = (link.bytes_to_server() - shipped, primary.bytes_to_client() - fetched);
        (shipped, fetched) = (link.bytes_to_server(), primary.bytes_to_client());
        println!("{level}: {change}: {crossed} bytes over the link, {read} from the primary");
        assert!(crossed < BYTES as u64 / 6, "{change} sent {crossed} bytes over the link");
        // Lists of folders, again and again; but no messages.
        assert!(read < (BYTES * MESSAGES / 2) as u64 || level == "none", "{change} read {read} bytes from the primary");
        // Dovecot 2.3.19 itself is confused for a moment when INBOX is renamed while others have it open.
        wait::until(&format!("{level}: both sides are the same after a free {change}"), PATIENCE, async || {
            scenario.settle().await?;
            Ok(assert_same(scenario).await.is_ok())
        })
        .await?;
    }
    Ok(())
}

macro_rules! every_kind_at_every_level {
    ($($test:ident: $level:literal, $on_standby:ident;)*) => {$(
        #[tokio::test]
        async fn $test() -> Result<()> {
            level($level, Format::$on_standby).await
        }
    )*};
}

every_kind_at_every_level! {
    every_kind_is_mirrored_with_notify_and_qresync: 0, Mdbox;
    every_kind_is_mirrored_with_idle_and_qresync: 1, Maildir;
    every_kind_is_mirrored_with_condstore_only: 2, Mdbox;
    every_kind_is_mirrored_by_comparing: 3, Sdbox;
}
