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
    detail: Option<Detail>,
}

#[derive(Debug, Deserialize)]
struct Difference {
    folder: String,
    uid: Option<u64>,
    what: String,
    #[serde(default)]
    detail: String,
}

pub(super) async fn run(context: &Context, client: &Client, verify: &Verify) -> Result<Exit> {
    let mut body = verify.selection.body();
    body["deep"] = json!(verify.deep);
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
        let size = format!("{} messages in {} folders", mailbox.messages, mailbox.folders);
        let count = mailbox.differences.len() as u64 + mailbox.more;
        let verdict = match (&mailbox.detail, mailbox.equal) {
            (_, true) => Cell::toned(format!("equal, {size}"), Tone::Good),
            (Some(detail), false) if count == 0 => Cell::toned(format!("not compared: {}", detail.reason), Tone::Bad),
            _ => Cell::toned(format!("{count} differences, {size}"), Tone::Bad),
        };
        let mut head = Table::default();
        head.row([format!("{}:", mailbox.address).into(), verdict]);
        output::print(&head.render());
        if let Some(detail) = mailbox.detail.as_ref().filter(|detail| !detail.remedy.is_empty()) {
            output::line(format!("  do: {}", detail.remedy));
        }
        let mut table = Table::default();
        for difference in &mailbox.differences {
            table.row([
                "".into(),
                difference.folder.as_str().into(),
                difference.uid.map_or_else(|| "-".to_owned(), |uid| format!("uid {uid}")).into(),
                difference.what.as_str().into(),
                difference.detail.as_str().into(),
            ]);
        }
        output::print(&table.render());
        if mailbox.more > 0 {
            output::line(format!("  and {} more", mailbox.more));
        }
    }
}
