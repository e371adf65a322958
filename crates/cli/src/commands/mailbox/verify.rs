//! `understudy mailbox verify`: the two sides, compared; each difference on a line.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::super::Context;
use super::wait::Detail;
use super::{Selection, timeout};
use crate::client::{Client, decode};
use crate::failure::{Exit, Result};
use crate::output::{self, Cell, Table, Tone};

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    selection: Selection,
    /// Also fetch and compare the bytes of every message on both sides
    #[arg(long)]
    deep: bool,
    /// Make the sides equal: append what is missing, remove what nobody wanted, set flags and subscriptions right
    #[arg(long)]
    repair: bool,
    /// Give up after so long
    #[arg(long, value_parser = timeout, default_value = "1h", value_name = "DURATION")]
    timeout: Duration,
}

#[derive(Debug, Deserialize)]
struct Compared {
    #[serde(default)]
    mailboxes: Vec<MailboxCompared>,
}

#[derive(Debug, Deserialize)]
struct MailboxCompared {
    address: String,
    equal: bool,
    #[serde(default)]
    messages: u64,
    #[serde(default)]
    folders: u64,
    #[serde(default)]
    differences: Vec<Difference>,
    /// Differences beyond those listed.
    #[serde(default)]
    more: u64,
    /// Messages that a person decided to keep on the standby.
    #[serde(default)]
    kept: u64,
    #[serde(default)]
    repaired: Vec<Difference>,
    /// Folders whose UIDs should be the primary's and are not.
    #[serde(default)]
    uid_continuity_lost: Vec<super::list::LostFolder>,
    detail: Option<Detail>,
}

#[derive(Debug, Deserialize)]
struct Difference {
    folder: String,
    uid: Option<u64>,
    what: String,
    #[serde(default)]
    detail: String,
    /// The transaction that should have made it equal.
    seq: Option<u64>,
}

pub(super) async fn run(context: &Context, client: &Client, verify: &Verify) -> Result<Exit> {
    let mut body = verify.selection.body();
    body["deep"] = json!(verify.deep);
    body["repair"] = json!(verify.repair);
    let run = client.run_to_end(&["verifications"], &body, verify.timeout).await?;
    let result = run.into_result()?;
    let compared: Compared = decode(&result)?;
    match context.json {
        true => output::json(&result),
        false => tell(&compared),
    }
    Ok(if compared.mailboxes.iter().all(|mailbox| mailbox.equal) { Exit::Done } else { Exit::Failed })
}

fn tell(compared: &Compared) {
    if compared.mailboxes.is_empty() {
        output::line("No mailbox is protected; there is nothing to compare.");
    }
    for mailbox in &compared.mailboxes {
        let messages = |number| output::count(number, "message", "messages");
        let folders = output::count(mailbox.folders, "folder", "folders");
        let size = format!("{} in {folders}", messages(mailbox.messages));
        let count = mailbox.differences.len() as u64 + mailbox.more;
        let verdict = match (&mailbox.detail, mailbox.equal) {
            (_, true) if mailbox.kept > 0 => {
                Cell::toned(format!("equal but for {} kept on the standby, {size}", messages(mailbox.kept)), Tone::Good)
            }
            (_, true) => Cell::toned(format!("equal, {size}"), Tone::Good),
            (Some(detail), false) if count == 0 => Cell::toned(format!("not compared: {}", detail.reason), Tone::Bad),
            _ => Cell::toned(format!("{}, {size}", output::count(count, "difference", "differences")), Tone::Bad),
        };
        let mut head = Table::default();
        head.row([format!("{}:", mailbox.address).into(), verdict]);
        output::print(&head.render());
        if let Some(detail) = mailbox.detail.as_ref().filter(|detail| !detail.remedy.is_empty()) {
            output::line(format!("  do: {}", detail.remedy));
        }
        list(&mailbox.differences, "");
        list(&mailbox.repaired, "repaired");
        for lost in &mailbox.uid_continuity_lost {
            output::line(format!("  other UIDs in {}: {}", lost.folder, lost.reason));
        }
        if mailbox.more > 0 {
            output::line(format!("  and {} more", mailbox.more));
        }
    }
}

fn list(differences: &[Difference], mark: &str) {
    let mut table = Table::default();
    for difference in differences {
        table.row([
            mark.into(),
            difference.folder.as_str().into(),
            difference.uid.map_or_else(|| "-".to_owned(), |uid| format!("uid {uid}")).into(),
            difference.what.as_str().into(),
            difference.detail.as_str().into(),
            difference.seq.map_or_else(String::new, |seq| format!("transaction {seq}")).into(),
        ]);
    }
    output::print(&table.render());
}
