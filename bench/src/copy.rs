//! The limit: one FETCH of everything joined to MULTIAPPEND, nothing checked, hashed or kept.
//!
//! In: a primary and an empty standby. Out: the same messages there.
//! Not a product: it shows what two servers allow an IMAP client, so that the rest can be read as a share of it.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, Result, bail};
use understudy_tests::dovecot::Dovecot;

use crate::imap::{Client, Message, Response, list_after, quote};
use crate::load::is_full;
use crate::servers::log_in;

/// MULTIAPPENDs sent and not yet answered.
const IN_FLIGHT: usize = 4;

struct Batch {
    folder: String,
    messages: Vec<Message>,
}

pub(crate) fn copy(primary: &Dovecot, standby: &Dovecot, names: &[String]) -> Result<()> {
    for name in names {
        let reader = log_in(primary, name)?;
        let writer = log_in(standby, name)?;
        let (batches, received) = sync_channel(IN_FLIGHT);
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| read(reader, batches));
            let written = write(writer, received);
            let read = reading.join().expect("the reading thread panicked");
            // The reader's error is the cause when both ends fail.
            read.and(written)
        })
        .with_context(|| format!("could not copy {name}"))?;
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "dropping the sender ends the writer")]
fn read(mut client: Client, batches: SyncSender<Batch>) -> Result<()> {
    for folder in client.folders()?.into_iter().filter(|folder| folder.selectable) {
        client.command(&format!("EXAMINE {}", quote(&folder.name)))?;
        let mut messages = Vec::new();
        let hand_over = |messages: &mut Vec<Message>| {
            let batch = Batch { folder: folder.name.clone(), messages: std::mem::take(messages) };
            batches.send(batch).context("the writing side has ended")
        };
        client.command_each("FETCH 1:* (FLAGS INTERNALDATE BODY.PEEK[])", |response| {
            messages.extend(message(response)?);
            if is_full(&messages) { hand_over(&mut messages) } else { Ok(()) }
        })?;
        // Also when empty: the folder has to exist.
        hand_over(&mut messages)?;
    }
    Ok(())
}

fn write(mut client: Client, batches: Receiver<Batch>) -> Result<()> {
    let mut sent: VecDeque<String> = VecDeque::new();
    let mut current = String::from("INBOX");
    for batch in batches {
        if batch.folder != current {
            for tag in sent.drain(..) {
                client.finish(&tag)?;
            }
            client.command(&format!("CREATE {}", quote(&batch.folder)))?;
            current = batch.folder;
        }
        if batch.messages.is_empty() {
            continue;
        }
        if sent.len() == IN_FLIGHT
            && let Some(tag) = sent.pop_front()
        {
            client.finish(&tag)?;
        }
        sent.push_back(client.send_append(&current, &batch.messages)?);
    }
    sent.iter().try_for_each(|tag| client.finish(tag))
}

/// The message in a FETCH response; nothing for the server's other news.
fn message(mut response: Response) -> Result<Option<Message>> {
    let Some(bytes) = response.literals.pop() else { return Ok(None) };
    let text = &response.text;
    let (Some(flags), Some(date)) = (list_after(text, "FLAGS "), quoted_after(text, "INTERNALDATE ")) else {
        bail!("the primary sent a message without its flags or date");
    };
    let flags = flags.split(' ').filter(|flag| *flag != "\\Recent").collect::<Vec<_>>().join(" ");
    Ok(Some(Message { flags, internal_date: date.to_owned(), bytes }))
}

fn quoted_after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text[text.find(key)? + key.len()..].strip_prefix('"')?.split('"').next()
}
