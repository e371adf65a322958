//! `understudy mailbox held`: what the mass-change brake stopped, for the person who decides.

use serde::Deserialize;

use super::super::Context;
use super::wait::Detail;
use super::{One, on_primary};
use crate::client::{Client, decode};
use crate::failure::{Exit, Result};
use crate::output::{self, Table};

#[derive(Debug, Deserialize)]
struct Held {
    address: String,
    held: bool,
    messages: u64,
    #[serde(default)]
    folders: Vec<Folder>,
    detail: Option<Detail>,
}

#[derive(Debug, Deserialize)]
struct Folder {
    folder: String,
    deletes_folder: bool,
    messages: u64,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    oldest: Option<String>,
    newest: Option<String>,
    #[serde(default)]
    sample: Vec<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    uid: u64,
    internal_date: String,
    subject: Option<String>,
}

pub(super) async fn run(context: &Context, client: &Client, one: &One) -> Result<Exit> {
    let answer = client.get(&["mailboxes", &one.address, "held"], &on_primary(one.primary.as_ref())).await?;
    match context.json {
        true => output::json(&answer),
        false => tell(&decode(&answer)?),
    }
    Ok(Exit::Done)
}

fn tell(held: &Held) {
    if !held.held {
        output::line(format!("{} is not held; nothing waits for a decision.", held.address));
        return;
    }
    let messages = output::count(held.messages, "message", "messages");
    output::line(format!("{}: a release would remove {messages} from the standby", held.address));
    if let Some(detail) = &held.detail {
        output::line(format!("  why: {}", detail.reason));
        output::line(format!("  do:  {}", detail.remedy));
    }
    for folder in &held.folders {
        let and_folder = if folder.deletes_folder { ", and the folder itself" } else { "" };
        let by = match (folder.first_seq, folder.last_seq) {
            (Some(first), Some(last)) if first != last => format!(", removed by transactions {first} to {last}"),
            (Some(first), _) => format!(", removed by transaction {first}"),
            _ => String::new(),
        };
        let messages = output::count(folder.messages, "message", "messages");
        output::line(format!("{}: {messages}{and_folder}{by}", folder.folder));
        if let (Some(oldest), Some(newest)) = (&folder.oldest, &folder.newest) {
            output::line(format!("  from {oldest} to {newest}"));
        }
        let mut table = Table::default();
        for message in &folder.sample {
            table.row([
                "".into(),
                format!("uid {}", message.uid).into(),
                message.internal_date.as_str().into(),
                message.subject.as_deref().unwrap_or("(no subject)").into(),
            ]);
        }
        output::print(&table.render());
    }
}
