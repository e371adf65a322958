//! Two days without a line: what crosses it when it is back.
//!
//! In: protected mailboxes, a line that is cut, and 20,000 changes meanwhile. Out: bytes on the wire until the standby has them all,
//! beside the unique bytes that changed.
//! Keeps true: a message that was moved or flagged has no new bytes.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use understudy_tests::dovecot::Dovecot;

use crate::bound::Bound;
use crate::imap::Message;
use crate::load::{create_folders, fill_small, is_full};
use crate::peer::Peer;
use crate::report::{Goal, Report, Section};
use crate::seed::check_complete;
use crate::servers::{self, log_in};
use crate::settings::Settings;
use crate::traffic::ARCHIVE;
use crate::two_sites::TwoSites;
use crate::wire::Line;
use crate::workload::Workload;

const CHANGES: u32 = 20_000;
const LEAST_CHANGES: u32 = 400;
const MAILBOXES: u32 = 10;
const MB: f64 = 1_000_000.0;

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    if settings.measures(Peer::Understudy) {
        report.add(cut(settings)?);
    }
    Ok(())
}

/// Two in five delivered, a fifth each flagged, moved and expunged.
fn cut(settings: &Settings) -> Result<Section> {
    let store = settings.quick_store();
    let changes = settings.scaled(CHANGES, LEAST_CHANGES);
    let (delivered, each) = (changes * 2 / 5 / MAILBOXES, changes / 5 / MAILBOXES);
    let workload = Workload::missed(MAILBOXES, delivered);
    let names = workload.names();
    let mut section = Section::new(format!(
        "A cut line: {} changes in {MAILBOXES} mailboxes meanwhile, {}",
        (delivered + 3 * each) * MAILBOXES,
        store.kind()
    ));
    let folder = store.folder("cut")?;
    let primary = servers::start(folder.path(), "primary", &names)?;
    let standby = servers::start(folder.path(), "standby", &names)?;
    for name in &names {
        create_folders(&mut log_in(&primary, name)?, &[ARCHIVE])?;
        fill_small(&primary, name, "INBOX", 0, 3 * each)?;
    }
    let primaries = [("primary".to_owned(), &primary)];
    let sites = TwoSites::start(settings.program()?, folder.path(), &primaries, &standby, Line::default())?;
    sites.protect("primary", &names)?;
    sites.wait_all()?;
    let seeded = seeds(&sites)?;
    let wire = sites.wire().context("there is no line")?;
    wire.cut();
    let mut bound = Bound::new()?;
    for (mailbox, name) in (0..).zip(&names) {
        change(&primary, name, &workload, mailbox, each, &mut bound)?;
    }
    let (plain, packed) = bound.finish()?;
    let before = sites.bytes();
    let mended = Instant::now();
    wire.mend();
    sites.wait_all()?;
    let bytes = sites.bytes() - before;
    let took = mended.elapsed();
    check_complete(&primary, &standby, &names)?;
    section.figure("unique bytes that changed", plain as f64 / MB, "MB");
    section.figure("… through zstd -3", packed as f64 / MB, "MB");
    section.figure("on the wire afterwards, both directions", bytes as f64 / MB, "MB");
    section.figure("until all was visible", took.as_secs_f64(), "s");
    section.goal("on the wire / unique bytes that changed", bytes as f64 / plain as f64, "x", Goal::AtMost(1.1));
    section.figure("on the wire / the same through zstd -3", bytes as f64 / packed as f64, "x");
    section.goal("mailboxes copied anew", (seeds(&sites)? - seeded) as f64, "", Goal::AtMost(0.0));
    sites.stop();
    Ok(section)
}

fn change(
    primary: &Dovecot,
    name: &str,
    workload: &Workload,
    mailbox: u32,
    each: u32,
    bound: &mut Bound,
) -> Result<()> {
    let mut client = log_in(primary, name)?;
    let mut waiting: Vec<Message> = Vec::new();
    for index in 0..workload.messages_each {
        let message = workload.message(mailbox, index).message;
        bound.add(&message.bytes)?;
        waiting.push(message);
        if is_full(&waiting) {
            client.append("INBOX", &waiting)?;
            waiting.clear();
        }
    }
    if !waiting.is_empty() {
        client.append("INBOX", &waiting)?;
    }
    client.command("SELECT INBOX")?;
    // The folder was new, so these are the messages that it began with.
    for uid in (1..=3 * each).step_by(3) {
        client.command(&format!("UID STORE {uid} +FLAGS.SILENT (\\Flagged)"))?;
        client.command(&format!("UID MOVE {} {ARCHIVE}", uid + 1))?;
        client.command(&format!("UID STORE {} +FLAGS.SILENT (\\Deleted)", uid + 2))?;
        client.command(&format!("UID EXPUNGE {}", uid + 2))?;
    }
    Ok(())
}

/// How many first copies were finished.
fn seeds(sites: &TwoSites) -> Result<usize> {
    let events = sites.command(&["events", "--past", "--kind", "state", "--json"])?;
    let finished = events.matches("mirroring").count();
    ensure!(finished > 0, "no first copy is among the events:\n{events}");
    Ok(finished)
}
