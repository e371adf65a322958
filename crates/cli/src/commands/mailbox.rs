//! `understudy mailbox …`: what is protected, how it fares, and whether the two sides are equal.

mod aliases;
mod canary;
mod held;
mod list;
mod protect;
mod rows;
mod verify;
mod wait;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

pub(super) use self::list::{Lag, Traffic};
use self::protect::Protect;
use super::Context;
use super::server::confirm;
use crate::client::Client;
use crate::duration::parse_duration;
use crate::failure::{Exit, Failure, Result};
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum MailboxCommand {
    /// Put mailboxes under protection: they are copied, then followed
    #[command(after_help = "Examples:
  understudy mailbox protect ana@example.org --primary mail-a --standby dr-1
  understudy mailbox protect --from-file board.csv --primary mail-a --standby dr-1
  understudy mailbox protect --discover --primary mail-a --standby dr-1

A file has the header `address,standby_address,policy,group` (address is required, the columns come in
any order, `primary` and `standby` may be among them), or one address a line and no header.")]
    Protect(Box<Protect>),
    /// List protected mailboxes
    #[command(
        after_help = "Examples:\n  understudy mailbox list --state faulted\n  understudy mailbox list --json | jq -r '.[].address'"
    )]
    List(list::List),
    /// Show one mailbox: state, lag, progress, and what stands in the way
    Show(One),
    /// Stop mirroring mailboxes for a while; nothing is lost, it goes on from there
    Pause(Many),
    /// Go on mirroring; also tries at once what failed before
    Resume(Many),
    /// Show what the mass-change brake stopped: folders, counts, some of the messages
    Held(One),
    /// What the brake stopped was meant: remove it from the standby too, and go on
    Release(Many),
    /// What the brake stopped was not meant: keep it on the standby, and go on
    Discard(Many),
    /// Prove the pipeline end to end: messages are written into a mailbox made for it, and must reach the standby
    #[command(after_help = "Examples:
  understudy mailbox canary canary@example.org --every 60s --within 30s
  understudy mailbox canary canary@example.org
  understudy mailbox canary canary@example.org --off")]
    Canary(canary::Canary),
    /// Show or set the further names of a mailbox's user: at every front door they lead to the same mailbox
    #[command(after_help = "Examples:
  understudy mailbox aliases ana@example.org
  understudy mailbox aliases ana@example.org --add annie@example.org
  understudy mailbox aliases ana@example.org --remove annie@example.org")]
    Aliases(aliases::Aliases),
    /// Stop protecting mailboxes; their copies on the standby stay
    Unprotect(Unprotect),
    /// Wait until every change made before now is visible on the other side
    #[command(
        after_help = "Examples:\n  understudy mailbox wait ana@example.org\n  understudy mailbox wait --all --timeout 5m\n\nExit code 0: all reached; 1: none; 3: some."
    )]
    Wait(wait::Wait),
    /// Compare the two sides message by message and print each difference
    #[command(
        after_help = "Examples:\n  understudy mailbox verify ana@example.org\n  understudy mailbox verify --all --deep\n\nExit code 0: equal; 1: differences found."
    )]
    Verify(verify::Verify),
}

#[derive(Debug, Args)]
pub(crate) struct One {
    address: String,
    /// Which primary, where the address is on several
    #[arg(long, value_name = "NAME")]
    primary: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Many {
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// Which primary, where an address is on several
    #[arg(long, value_name = "NAME")]
    primary: Option<String>,
    /// Why, for those who look later
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Unprotect {
    #[arg(required = true, value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// Which primary, where an address is on several
    #[arg(long, value_name = "NAME")]
    primary: Option<String>,
    /// Keep the copy on the standby, as this version always does
    #[arg(long)]
    keep_standby: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Which mailboxes a barrier or a comparison is about.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    #[arg(value_name = "ADDRESS", required_unless_present = "all", conflicts_with = "all")]
    addresses: Vec<String>,
    /// Every protected mailbox
    #[arg(long)]
    all: bool,
    /// Which primary, where an address is on several
    #[arg(long, value_name = "NAME")]
    primary: Option<String>,
}

impl Selection {
    /// As the body of a request, to which the caller adds its own.
    fn body(&self) -> Value {
        let mut body = match self.all {
            true => json!({"all": true}),
            false => json!({"addresses": self.addresses}),
        };
        if let Some(primary) = &self.primary {
            body["primary"] = json!(primary);
        }
        body
    }
}

impl MailboxCommand {
    /// For "cannot …".
    pub(crate) fn act(&self) -> &'static str {
        match self {
            Self::Protect(_) => "protect the mailboxes",
            Self::List(_) => "list the mailboxes",
            Self::Show(_) => "show the mailbox",
            Self::Pause(_) => "pause the mailbox",
            Self::Resume(_) => "resume the mailbox",
            Self::Held(_) => "show what is held",
            Self::Release(_) => "release the mailbox",
            Self::Discard(_) => "discard what is held",
            Self::Canary(_) => "look after the canary",
            Self::Aliases(_) => "look after the aliases",
            Self::Unprotect(_) => "unprotect the mailbox",
            Self::Wait(_) => "wait for the mailboxes",
            Self::Verify(_) => "verify the mailboxes",
        }
    }
}

pub(crate) async fn run(command: &MailboxCommand, context: &Context) -> Result<Exit> {
    let client = context.client()?;
    match command {
        MailboxCommand::Protect(protect) => protect::run(context, &client, protect).await,
        MailboxCommand::List(list) => list::list(context, &client, list).await,
        MailboxCommand::Show(one) => list::show(context, &client, one).await,
        MailboxCommand::Pause(many) => steer(context, &client, many, "pause", "Paused").await,
        MailboxCommand::Resume(many) => steer(context, &client, many, "resume", "Resumed").await,
        MailboxCommand::Held(one) => held::run(context, &client, one).await,
        MailboxCommand::Release(many) => steer(context, &client, many, "release", "Released").await,
        MailboxCommand::Discard(many) => {
            steer(context, &client, many, "discard", "Kept on the standby, and on with").await
        }
        MailboxCommand::Canary(canary) => canary::run(context, &client, canary).await,
        MailboxCommand::Aliases(aliases) => aliases::run(context, &client, aliases).await,
        MailboxCommand::Unprotect(unprotect) => unprotect_each(context, &client, unprotect).await,
        MailboxCommand::Wait(wait) => wait::run(context, &client, wait).await,
        MailboxCommand::Verify(verify) => verify::run(context, &client, verify).await,
    }
}

fn on_primary(primary: Option<&String>) -> Vec<(&'static str, &str)> {
    primary.iter().map(|name| ("primary", name.as_str())).collect()
}

/// How long an act that the API does by itself may take to show as a run that ended.
const STEER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long carrying out a release may take before the command says where to follow it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(600);

async fn steer(context: &Context, client: &Client, many: &Many, act: &'static str, verb: &str) -> Result<Exit> {
    let body = many.reason.as_ref().map_or_else(|| json!({}), |reason| json!({"reason": reason}));
    let mut outcomes = Outcomes::of(act);
    for address in &many.addresses {
        let outcome = async {
            let answer = client.post(&["mailboxes", address, act], &on_primary(many.primary.as_ref()), &body).await?;
            let timeout = if act == "release" { RELEASE_TIMEOUT } else { STEER_TIMEOUT };
            let run = client.follow(crate::client::decode(&answer.body)?, timeout).await?;
            run.into_result()
        };
        outcomes.note(context, address, verb, outcome.await);
    }
    outcomes.end(context)
}

async fn unprotect_each(context: &Context, client: &Client, unprotect: &Unprotect) -> Result<Exit> {
    let mut query = on_primary(unprotect.primary.as_ref());
    // Looked up first: nobody should be asked about a mailbox that is not protected.
    for address in &unprotect.addresses {
        client.get(&["mailboxes", address], &query).await?;
    }
    if !unprotect.yes {
        let subject = match unprotect.addresses.as_slice() {
            [address] => address.clone(),
            addresses => output::count(addresses.len(), "mailbox", "mailboxes"),
        };
        confirm(&format!(
            "Stop protecting {subject}? The copy on the standby stays, and no change reaches it any more."
        ))?;
    }
    query.push(("keep_standby", "true"));
    let mut outcomes = Outcomes::of("unprotect");
    for address in &unprotect.addresses {
        let outcome = client.delete(&["mailboxes", address], &query).await.map(|answer| answer.body);
        outcomes.note(context, address, "No longer protected:", outcome);
    }
    outcomes.end(context)
}

/// What became of several addresses, one after the other.
struct Outcomes {
    /// For "cannot … ADDRESS".
    act: &'static str,
    done: Vec<Value>,
    failures: Vec<Failure>,
}

impl Outcomes {
    fn of(act: &'static str) -> Self {
        Self { act, done: Vec::new(), failures: Vec::new() }
    }

    fn note(&mut self, context: &Context, address: &str, verb: &str, outcome: Result<Value>) {
        match outcome {
            Ok(value) => {
                if !context.json {
                    output::line(format!("{verb} {address}"));
                }
                self.done.push(value);
            }
            Err(failure) => self.failures.push(failure.cannot(&format!("{} {address}", self.act))),
        }
    }

    fn end(mut self, context: &Context) -> Result<Exit> {
        if context.json {
            output::json(&self.done);
        }
        if self.done.is_empty() && self.failures.len() == 1 {
            return Err(self.failures.remove(0));
        }
        for failure in &self.failures {
            eprintln!("{failure}");
        }
        Ok(match (self.done.is_empty(), self.failures.is_empty()) {
            (_, true) => Exit::Done,
            (true, false) => Exit::Failed,
            (false, false) => Exit::Partly,
        })
    }
}

/// Reads `--timeout` where it is given.
fn timeout(text: &str) -> std::result::Result<Duration, String> {
    parse_duration(text)
}
