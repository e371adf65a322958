//! `understudy link invite|join|list|revoke|withdraw|limit`: pairs two sites, and says what the line between them may carry.
//!
//! Not here: keys and certificates (`understudy-pairing`); `join` alone speaks to the other site by itself.

mod join;

use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use crate::client::decode;
use crate::config;
use crate::duration::parse_duration;
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, Cell, Table, Tone};

#[derive(Debug, Subcommand)]
pub(crate) enum LinkCommand {
    /// Make a one-time token that pairs a source site with this recovery site
    #[command(after_help = "Examples:\n  understudy link invite\n  \
        understudy link invite --url https://dr.example.org:8443 --url https://192.0.2.9:8443 --expires 30m\n\n\
        Give the token to `understudy link join` at the source site. It is good once, for ten minutes.")]
    Invite {
        /// Where the source site reaches this one, the best first [default: where the recovery gateway listens]
        #[arg(long = "url", value_name = "URL")]
        urls: Vec<String>,
        /// What the source site will be called [default: the name of its machine]
        #[arg(long, default_value = "")]
        name: String,
        /// Good for so long, at most a day
        #[arg(long, value_parser = parse_duration, value_name = "DURATION", default_value = "10m")]
        expires: std::time::Duration,
    },
    /// Pair this source site with the recovery site that made the token
    #[command(
        after_help = "Examples:\n  understudy link join understudy-join-AbC…\n  understudy link join - < token\n\n\
        Makes a key under data_dir, which never leaves this machine, and has it certified over there."
    )]
    Join(join::Join),
    /// Show paired sites, open tokens, the ways between the sites, and bytes on the wire
    List,
    /// End a pairing: its connections are cut, and it has to be paired anew
    Revoke { name: String },
    /// Make a token worthless before it is used
    Withdraw { id: String },
    /// Show or set what the link may use of the line
    #[command(after_help = "Examples:\n  understudy link limit\n  \
        understudy link limit \"mon-fri 08:00-18:00: 2 MB/s, else unlimited\"\n  \
        understudy link limit --seeding \"mon-fri 08:00-18:00: off, else unlimited\"\n  \
        understudy link limit unlimited --seeding unlimited\n\n\
        Rules are read from left to right and the first that fits counts, by the source gateway's clock. The rate is in bytes\n\
        on the wire, to the recovery site. --seeding limits first copies alone; `off` lets them wait.")]
    Limit {
        /// All that is sent to the recovery site
        calendar: Option<String>,
        /// First copies alone
        #[arg(long, value_name = "CALENDAR")]
        seeding: Option<String>,
    },
}

#[derive(Debug, Deserialize)]
struct Overview {
    encrypted: bool,
    authority: Option<Authority>,
    limits: Limits,
    #[serde(default)]
    paths: Vec<PathShown>,
    #[serde(default)]
    bytes: Vec<Bytes>,
}

#[derive(Debug, Deserialize)]
struct Authority {
    fingerprint: String,
    served_expires_at: DateTime<Utc>,
}

#[derive(Debug, Deserialize)]
struct Limits {
    wire: String,
    seeding: String,
}

#[derive(Debug, Deserialize)]
struct PathShown {
    url: String,
    state: String,
    reason: Option<String>,
    since: DateTime<Utc>,
    round_trip_ms: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Bytes {
    direction: String,
    kind: String,
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Peer {
    name: String,
    state: String,
    fingerprint: String,
    expires_at: DateTime<Utc>,
    connected_at: Option<DateTime<Utc>>,
    connected_from: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Invitation {
    id: String,
    state: String,
    name: String,
    created_by: String,
    expires_at: DateTime<Utc>,
}

impl LinkCommand {
    /// For "cannot …".
    pub(crate) fn act(&self) -> &'static str {
        match self {
            Self::Invite { .. } => "make the token",
            Self::Join(_) => "pair this site",
            Self::List => "show the link",
            Self::Revoke { .. } => "end the pairing",
            Self::Withdraw { .. } => "withdraw the token",
            Self::Limit { .. } => "set the limit",
        }
    }
}

pub(crate) async fn run(command: &LinkCommand, context: &Context) -> Result<Exit> {
    match command {
        LinkCommand::Invite { urls, name, expires } => invite(context, urls, name, *expires).await,
        LinkCommand::Join(join) => join::run(join, context).await,
        LinkCommand::List => list(context).await,
        LinkCommand::Revoke { name } => {
            context.client()?.delete(&["link", "peers", name], &[]).await?;
            match context.json {
                true => output::json(&json!({"name": name, "revoked": true})),
                false => output::line(format!("Ended the pairing with {name}. Its connections are cut.")),
            }
            Ok(Exit::Done)
        }
        LinkCommand::Withdraw { id } => {
            context.client()?.delete(&["link", "invitations", id], &[]).await?;
            match context.json {
                true => output::json(&json!({"id": id, "withdrawn": true})),
                false => output::line("Withdrew the token."),
            }
            Ok(Exit::Done)
        }
        LinkCommand::Limit { calendar, seeding } => limit(context, calendar.as_deref(), seeding.as_deref()).await,
    }
}

async fn invite(context: &Context, urls: &[String], name: &str, expires: std::time::Duration) -> Result<Exit> {
    let configured = match urls.is_empty() {
        true => config::load(context.config.as_deref()).ok().and_then(|loaded| loaded.config.recovery_public_urls),
        false => Some(urls.to_vec()),
    };
    let body = json!({"urls": configured.unwrap_or_default(), "name": name, "seconds": expires.as_secs()});
    let answer = context.client()?.post(&["link", "invitations"], &[], &body).await?.body;
    if context.json {
        output::json(&answer);
        return Ok(Exit::Done);
    }
    #[derive(Deserialize)]
    struct Created {
        token: String,
        fingerprint: String,
        urls: Vec<String>,
        expires_at: DateTime<Utc>,
    }
    let created: Created = decode(&answer)?;
    // Alone on standard output, so that a shell can take it into a variable.
    output::line(&created.token);
    eprintln!(
        "Good once, until {}, for a source site that reaches this one at {}.\n\
         At the source site: understudy link join TOKEN\n\
         It will show the fingerprint of this site; it must be this one:\n{}",
        output::moment(Some(created.expires_at)),
        created.urls.join(" or "),
        created.fingerprint,
    );
    Ok(Exit::Done)
}

async fn list(context: &Context) -> Result<Exit> {
    let client = context.client()?;
    let (overview, value) = client.read::<Overview>(&["link"], &[]).await?;
    let peers = client.list(&["link", "peers"], &[]).await?;
    let invitations = client.get(&["link", "invitations"], &[]).await?;
    let invitations = invitations.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    if context.json {
        let mut whole = value;
        whole["peers"] = json!(peers);
        whole["invitations"] = json!(invitations);
        output::json(&whole);
        return Ok(Exit::Done);
    }
    output::print(&render(context, &overview, &peers, &invitations)?);
    Ok(Exit::Done)
}

fn render(context: &Context, overview: &Overview, peers: &[Value], invitations: &[Value]) -> Result<String> {
    let now = Utc::now();
    let mut text = match &overview.authority {
        Some(authority) if overview.encrypted => format!(
            "This site is {}\nIts certificate is good until {} and renews itself.\n",
            authority.fingerprint,
            output::moment(Some(authority.served_expires_at))
        ),
        _ => "The link runs in clear text on this machine, or no recovery gateway has run yet.\n".to_owned(),
    };
    if peers.is_empty() {
        text += &format!("\nNo site is paired. Make a token: {} link invite\n", context.program());
    } else {
        let mut table = Table::new(&["SITE", "STATE", "CERTIFICATE UNTIL", "CONNECTED", "FROM", "FINGERPRINT"]);
        for peer in peers {
            let peer: Peer = decode(peer)?;
            let tone = if peer.state == "good" { Tone::Good } else { Tone::Faint };
            table.row([
                peer.name.into(),
                Cell::toned(peer.state, tone),
                output::moment(Some(peer.expires_at)).into(),
                output::ago(peer.connected_at, now).into(),
                peer.connected_from.unwrap_or_default().into(),
                format!("{}…", peer.fingerprint.get(..23).unwrap_or(&peer.fingerprint)).into(),
            ]);
        }
        text += &format!("\n{}", table.render());
    }
    let open: Vec<Invitation> = invitations.iter().map(decode).collect::<Result<_>>()?;
    let open: Vec<Invitation> = open.into_iter().filter(|invitation| invitation.state == "open").collect();
    if !open.is_empty() {
        let mut table = Table::new(&["OPEN TOKEN", "FOR", "MADE BY", "UNTIL"]);
        for invitation in open {
            table.row([
                invitation.id.into(),
                if invitation.name.is_empty() { "any site".into() } else { invitation.name.into() },
                invitation.created_by.into(),
                output::moment(Some(invitation.expires_at)).into(),
            ]);
        }
        text += &format!("\n{}", table.render());
    }
    if !overview.paths.is_empty() {
        let mut table = Table::new(&["WAY", "STATE", "SINCE", "ROUND TRIP", "WHY"]);
        for path in &overview.paths {
            let tone = match path.state.as_str() {
                "used" => Tone::Good,
                "down" => Tone::Bad,
                _ => Tone::Plain,
            };
            table.row([
                path.url.clone().into(),
                Cell::toned(path.state.replace('_', " "), tone),
                output::ago(Some(path.since), now).into(),
                path.round_trip_ms.map_or_else(String::new, |ms| format!("{ms:.1} ms")).into(),
                path.reason.clone().unwrap_or_default().into(),
            ]);
        }
        text += &format!("\n{}", table.render());
    }
    text += &format!("\n{}", limits_in_words(&overview.limits));
    if !overview.bytes.is_empty() {
        let mut table = Table::new(&["BYTES", "OUT", "IN"]);
        let of = |direction: &str, kind: &str| {
            let found = overview.bytes.iter().find(|bytes| bytes.direction == direction && bytes.kind == kind);
            found.map_or(0, |found| found.bytes)
        };
        let mut sums = (0, 0);
        for kind in ["live", "seed", "check", "control", "overhead"] {
            let (out, back) = (of("out", kind), of("in", kind));
            sums = (sums.0 + out, sums.1 + back);
            table.row([kind.into(), output::bytes(out).into(), output::bytes(back).into()]);
        }
        table.row(["in all".into(), output::bytes(sums.0).into(), output::bytes(sums.1).into()]);
        text += &format!("\n{}", table.render());
    }
    Ok(text)
}

fn limits_in_words(limits: &Limits) -> String {
    let shown = |calendar: &str| if calendar.is_empty() { "unlimited".to_owned() } else { calendar.to_owned() };
    format!("To the recovery site: {}\nSeeding:              {}\n", shown(&limits.wire), shown(&limits.seeding))
}

async fn limit(context: &Context, calendar: Option<&str>, seeding: Option<&str>) -> Result<Exit> {
    let client = context.client()?;
    let value = if calendar.is_none() && seeding.is_none() {
        client.get(&["link"], &[]).await?.get("limits").cloned().unwrap_or_default()
    } else {
        let body = json!({"wire": calendar, "seeding": seeding});
        client.put(&["link", "limits"], &[], &body).await?.body
    };
    match context.json {
        true => output::json(&value),
        false => output::print(&limits_in_words(&decode(&value)?)),
    }
    Ok(Exit::Done)
}

/// How a source gateway starts that has no pairing.
pub(crate) fn not_paired() -> Failure {
    Failure::usage(
        "the source gateway does not know the recovery site",
        "this site is not paired, and the configuration names no recovery_url in clear text",
        "make a token at the recovery site with `understudy link invite`, and run `understudy link join TOKEN` here",
    )
}
