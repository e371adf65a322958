//! Brings generated mail into a primary, as fast as it takes it.
//!
//! In: a workload. Out: a filled server and a survey of what went in.
//! Not here: any measuring; this happens before the clock starts.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use understudy_tests::dovecot::Dovecot;

use crate::imap::{Client, Message, quote};
use crate::random::Random;
use crate::servers::log_in;
use crate::workload::{Summary, Survey, Workload, small_message};

/// One MULTIAPPEND: few enough to be kept in memory, many enough to save syncs.
const BATCH_MESSAGES: usize = 100;
const BATCH_BYTES: usize = 8 << 20;
/// Enough to use both sides' processors on a small machine.
const THREADS: u32 = 3;

pub(crate) fn fill(server: &Dovecot, workload: &Workload) -> Result<Summary> {
    for name in workload.names() {
        create_folders(&mut log_in(server, &name)?, Workload::folders())?;
    }
    let mut survey = Survey::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || fill_share(server, workload, thread))).collect();
        for thread in threads {
            survey.join(thread.join().expect("a loading thread panicked")?);
        }
        anyhow::Ok(())
    })?;
    Ok(survey.summary(workload))
}

/// Many small messages into one folder of one mailbox: `from..to`.
pub(crate) fn fill_small(server: &Dovecot, user: &str, folder: &str, from: u32, to: u32) -> Result<()> {
    let mut client = log_in(server, user)?;
    let mut random = Random::new(4, u64::from(from));
    let mut number = from;
    while number < to {
        let end = to.min(number + 1_000);
        let batch: Vec<_> =
            (number..end).map(|number| small_message(&format!("{user}-{number}@bench"), 600, &mut random)).collect();
        client.append(folder, &batch)?;
        number = end;
    }
    Ok(())
}

pub(crate) fn create_folders(client: &mut Client, folders: &[&str]) -> Result<()> {
    for folder in folders {
        if *folder != "INBOX" {
            client.command(&format!("CREATE {}", quote(folder)))?;
            client.command(&format!("SUBSCRIBE {}", quote(folder)))?;
        }
    }
    Ok(())
}

/// Reads everything once, so that the first peer does not pay for the primary's cold caches.
pub(crate) fn warm(server: &Dovecot, names: &[String]) -> Result<()> {
    for name in names {
        let mut client = log_in(server, name)?;
        for folder in client.folders()?.into_iter().filter(|folder| folder.selectable) {
            client.command(&format!("EXAMINE {}", quote(&folder.name)))?;
            client.command_each("FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])", |_| Ok(()))?;
        }
    }
    Ok(())
}

fn fill_share(server: &Dovecot, workload: &Workload, thread: u32) -> Result<Survey> {
    let mut survey = Survey::default();
    for (mailbox, name) in (0..).zip(workload.names()) {
        let mut client = log_in(server, &name)?;
        let mut waiting: BTreeMap<&str, Vec<Message>> = BTreeMap::new();
        for index in (thread..workload.messages_each).step_by(THREADS as usize) {
            let placed = workload.message(mailbox, index);
            survey.note(&placed);
            let batch = waiting.entry(placed.folder).or_default();
            batch.push(placed.message);
            if is_full(batch) {
                client.append(placed.folder, batch)?;
                batch.clear();
            }
        }
        for (folder, batch) in waiting.iter().filter(|(_, batch)| !batch.is_empty()) {
            client.append(folder, batch).with_context(|| format!("could not fill {folder}"))?;
        }
    }
    Ok(survey)
}

pub(crate) fn is_full(batch: &[Message]) -> bool {
    batch.len() >= BATCH_MESSAGES || batch.iter().map(|message| message.bytes.len()).sum::<usize>() >= BATCH_BYTES
}
