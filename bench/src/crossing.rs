//! What crosses the line between two sites, in bytes on the wire.
//!
//! In: the data that `seed` copies, and one file for many users. Out: bytes against mbsync's, counted by the same kind of line, and
//! against what no program can go below by much: every attachment once and decoded, with the rest through `zstd -3`.

use anyhow::Result;

use crate::bound::bound;
use crate::imap::Message;
use crate::load;
use crate::mbsync::Mbsync;
use crate::peer::Peer;
use crate::random::Random;
use crate::report::{Goal, Report, Section};
use crate::seed::check_complete;
use crate::servers::{self, log_in};
use crate::settings::Settings;
use crate::text::wrap_base64;
use crate::two_sites::TwoSites;
use crate::wire::{Line, Wire};
use crate::workload::Workload;

/// The file that many get, decoded.
const FILE_BYTES: u32 = 20 << 20;
const LEAST_FILE_BYTES: u32 = 1 << 20;
const RECIPIENTS: u32 = 50;
const LEAST_RECIPIENTS: u32 = 8;
const PRIMARIES: usize = 4;
const MB: f64 = 1_000_000.0;

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    for workload in [Workload::one_large(settings.scale), Workload::many(settings.scale)] {
        report.add(seed(settings, &workload)?);
    }
    Ok(())
}

pub(crate) fn measure_file(settings: &Settings, report: &mut Report) -> Result<()> {
    if settings.measures(Peer::Understudy) {
        report.add(one_file_for_many(settings)?);
    }
    Ok(())
}

/// The first copy of all mailboxes.
fn seed(settings: &Settings, workload: &Workload) -> Result<Section> {
    let store = settings.quick_store();
    let title =
        format!("Bytes of seeding {} x {} messages, {}", workload.mailboxes, workload.messages_each, store.kind());
    let mut section = Section::new(title);
    let folder = store.folder("crossing")?;
    let names = workload.names();
    let primary = servers::start(folder.path(), "primary", &names)?;
    let summary = load::fill(&primary, workload)?;
    section.figure("messages", summary.bytes as f64 / MB, "MB");
    let bound = bound(workload)?;
    section.figure("bound: attachments once and decoded, with the rest through zstd -3", bound as f64 / MB, "MB");
    let mut mbsync_bytes = None;
    if settings.measures(Peer::Mbsync) {
        let place = store.folder("mbsync")?;
        let standby = servers::start(place.path(), "standby", &names)?;
        let wire = Wire::to(primary.imap_address(), Line::default())?;
        Mbsync::configure_over(place.path(), wire.address(), &standby, &names)?.pass()?;
        check_complete(&primary, &standby, &names)?;
        section.figure("mbsync", wire.bytes() as f64 / MB, "MB");
        mbsync_bytes = Some(wire.bytes());
    }
    if settings.measures(Peer::Understudy) {
        let place = store.folder("understudy")?;
        let standby = servers::start(place.path(), "standby", &names)?;
        let primaries = [("primary".to_owned(), &primary)];
        let sites = TwoSites::start(settings.program()?, place.path(), &primaries, &standby, Line::default())?;
        let before = sites.bytes();
        sites.protect("primary", &names)?;
        sites.wait_all()?;
        let bytes = sites.bytes() - before;
        check_complete(&primary, &standby, &names)?;
        sites.stop();
        section.figure("understudy", bytes as f64 / MB, "MB");
        if let Some(mbsync) = mbsync_bytes {
            section.goal("understudy / mbsync", bytes as f64 / mbsync as f64, "x", Goal::AtMost(0.45));
        }
        section.goal("understudy / bound", bytes as f64 / bound as f64, "x", Goal::AtMost(1.05));
    }
    Ok(section)
}

/// One message with a file, as it reaches many users on several servers.
fn one_file_for_many(settings: &Settings) -> Result<Section> {
    let store = settings.quick_store();
    let size = settings.scaled(FILE_BYTES, LEAST_FILE_BYTES);
    let recipients = settings.scaled(RECIPIENTS, LEAST_RECIPIENTS);
    let mut section = Section::new(format!(
        "A file of {:.1} MB to {recipients} users on {PRIMARIES} primaries, {}",
        f64::from(size) / MB,
        store.kind()
    ));
    let folder = store.folder("file")?;
    let names: Vec<Vec<String>> = (0..PRIMARIES)
        .map(|server| {
            let mine = (0..recipients).filter(|user| *user as usize % PRIMARIES == server);
            mine.map(|user| format!("user{user:03}")).collect()
        })
        .collect();
    let all: Vec<String> = names.concat();
    let standby = servers::start(folder.path(), "standby", &all)?;
    let mut primaries = Vec::new();
    for (number, names) in names.iter().enumerate() {
        let name = format!("primary-{number}");
        primaries.push((name.clone(), servers::start(folder.path(), &name, names)?));
    }
    let named: Vec<_> = primaries.iter().map(|(name, server)| (name.clone(), server)).collect();
    let sites = TwoSites::start(settings.program()?, folder.path(), &named, &standby, Line::default())?;
    for ((name, _), names) in primaries.iter().zip(&names) {
        sites.protect(name, names)?;
    }
    sites.wait_all()?;
    let before = sites.bytes();
    let mut file = vec![0; size as usize];
    Random::new(20, 1).fill(&mut file);
    for ((_, server), names) in primaries.iter().zip(&names) {
        for name in names {
            log_in(server, name)?.append("INBOX", &[with_file(name, &file)])?;
        }
    }
    sites.wait_all()?;
    let bytes = sites.bytes() - before;
    for ((_, server), names) in primaries.iter().zip(&names) {
        check_complete(server, &standby, names)?;
    }
    sites.stop();
    let goal = Goal::AtMost(f64::from(size) * 21.0 / 20.0 / MB);
    section.goal("on the wire, both directions", bytes as f64 / MB, "MB", goal);
    Ok(section)
}

/// The file as a mail system hands it to one of its recipients.
fn with_file(to: &str, file: &[u8]) -> Message {
    let mut bytes = format!(
        "Return-Path: <sender@example.net>\r\nDelivered-To: {to}@example.org\r\nReceived: from relay.example.net by mail.example.org with LMTP id {to}\r\n\
         From: sender@example.net\r\nTo: everybody@example.org\r\nSubject: the figures\r\nMessage-ID: <figures@example.net>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nSee there.\r\n--b\r\nContent-Type: application/octet-stream\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n"
    )
    .into_bytes();
    wrap_base64(&mut bytes, file, 76);
    bytes.extend_from_slice(b"--b--\r\n");
    Message { flags: String::new(), internal_date: "17-Jul-1996 02:44:25 -0700".to_owned(), bytes }
}
