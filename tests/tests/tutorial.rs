//! The tutorial, done as it is written: its commands run between real servers, and what it shows them say is what they say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use understudy_tests::client::Client;
use understudy_tests::dovecot::{Dovecot, MASTER, PASSWORD};
use understudy_tests::mail::Mail;
use understudy_tests::scenario;
use understudy_tests::stack::{Answer, Stack};
use understudy_tests::wait;

use crate::mirroring::fill;

const USER: &str = "ana@example.org";
const PATIENCE: Duration = Duration::from_secs(60);
/// Not served before it happened for the first time; the tutorial does not make it happen.
const ONLY_ONCE_IT_HAPPENED: [&str; 9] = [
    "understudy_apply_errors_total",
    "understudy_canary_seconds_bucket",
    "understudy_canary_slowest_seconds",
    "understudy_content_damaged",
    "understudy_content_removed_bytes_total",
    "understudy_content_scrubbed_bytes_total",
    "understudy_health_check_seconds_bucket",
    "understudy_health_up",
    "understudy_source_waiting_for_room",
];

fn document(name: &str) -> Result<String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
}

/// A fenced block: what it is, and what stands in it.
struct Block {
    language: String,
    text: String,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some(Block { language: language.to_owned(), text: String::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    blocks
}

/// Whether the words of `line` stand in `said` in their order; `…` is anything.
fn is_said(said: &str, line: &str) -> bool {
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = flat(line);
    said.lines().map(flat).any(|said| {
        let mut rest = said.as_str();
        line.split('…').map(str::trim).all(|part| match rest.split_once(part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    })
}

#[tokio::test]
async fn the_tutorial_does_what_it_says() -> Result<()> {
    let primary = Dovecot::start(scenario::primary(&[USER]))?;
    let standby = Dovecot::start(scenario::standby(&[USER]))?;
    fill(&mut Client::log_in(primary.imap_address(), USER, PASSWORD).await?, &mut Mail::from_seed(1), 40).await?;
    let stack = Stack::up(&[]).await?;
    let passwords = primary.return_password_file().context("the primary has no file of passwords")?;
    let here = [
        ("imaps://mail-a.example.org", primary.imap_url()),
        ("imaps://dr-1.example.org", standby.imap_url()),
        ("/etc/understudy/mail-a.password", primary.master_password_file().display().to_string()),
        ("/etc/understudy/dr-1.password", standby.master_password_file().display().to_string()),
        ("/etc/understudy/mail-a.users", passwords.display().to_string()),
        ("--user understudy ", format!("--user {MASTER} ")),
        ("prices.json", stack.dir().join("prices.json").display().to_string()),
        ("2026-11", chrono::Utc::now().format("%Y-%m").to_string()),
    ];
    let (mut last, mut done): (Option<Answer>, usize) = (None, 0);
    for block in blocks(&document("tutorial.md")?) {
        match block.language.as_str() {
            "sh" => {
                for line in block.text.replace("\\\n", " ").lines() {
                    // Understudy runs here already.
                    let Some(command) = line.strip_prefix("understudy ").filter(|command| *command != "up") else {
                        ensure!(line.trim() == "sudo understudy up", "the tutorial shows what no test runs: {line}");
                        continue;
                    };
                    let command = here.iter().fold(command.to_owned(), |text, (shown, here)| text.replace(shown, here));
                    // What people do between the commands.
                    if command.starts_with("mailbox wait") {
                        write(&primary).await?;
                    } else if command.contains("--dry-run") {
                        write(&standby).await?;
                    }
                    let words: Vec<&str> = command.split_whitespace().collect();
                    let answer =
                        stack.command(&words).await?.expect(0).with_context(|| format!("understudy {command}"))?;
                    println!("$ understudy {command}\n{}{}", answer.stdout, answer.stderr);
                    last = Some(answer);
                    done += 1;
                }
            }
            "text" => {
                let answer = last.as_ref().context("the tutorial shows an answer before a command")?;
                let said = format!("{}{}", answer.stdout, answer.stderr);
                for line in block.text.lines() {
                    ensure!(is_said(&said, line), "the tutorial shows {line:?}; what is said is\n{said}");
                }
            }
            "json" => fs::write(stack.dir().join("prices.json"), &block.text)?,
            other => ensure!(other == "toml", "the tutorial has a block of {other:?}, which no test knows"),
        }
    }
    ensure!(done > 15, "only {done} commands of the tutorial were run");
    monitored(&stack).await
}

/// What the rules and the dashboard ask for is served, with the labels that they name.
async fn monitored(stack: &Stack) -> Result<()> {
    let token = stack.json(&["token", "create", "--role", "viewer", "--name", "prometheus"]).await?;
    let token = token["token"].as_str().context("no token")?.to_owned();
    // The client has several to choose from; a second time it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
    let board: Value = serde_json::from_str(&document("monitoring/grafana-dashboard.json")?)?;
    let targets =
        board["panels"].as_array().into_iter().flatten().flat_map(|panel| panel["targets"].as_array()).flatten();
    let mut expressions: Vec<String> =
        targets.filter_map(|target| target["expr"].as_str().map(str::to_owned)).collect();
    expressions.extend(
        document("monitoring/alerts.yml")?
            .lines()
            .filter_map(|line| line.trim().strip_prefix("expr: ").map(str::to_owned)),
    );
    for expression in &expressions {
        for (at, _) in expression.match_indices("understudy_") {
            let rest = &expression[at..];
            let name = rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default();
            let selector =
                rest[name.len()..].strip_prefix('{').and_then(|rest| rest.split('=').next()).unwrap_or_default();
            wanted.insert((name.to_owned(), selector.to_owned()));
        }
    }
    ensure!(wanted.len() > 10, "only {} metrics were found", wanted.len());
    // Some are counted a moment after they happened.
    let (mut served, mut lacking) = (String::new(), Vec::new());
    let all = wait::until("everything is served", PATIENCE, async || {
        let asked =
            reqwest::Client::new().get(format!("{}/metrics", stack.address()?)).bearer_auth(&token).send().await?;
        served = asked.error_for_status()?.text().await?;
        lacking.clear();
        for (name, label) in &wanted {
            let line = served
                .lines()
                .find(|line| line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(['{', ' '])));
            match line {
                Some(line) => ensure!(line.contains(label), "{name} has no label {label}: {line}"),
                None if ONLY_ONCE_IT_HAPPENED.contains(&name.as_str()) => {}
                None => lacking.push(name.clone()),
            }
        }
        Ok(lacking.is_empty())
    });
    let outcome = all.await;
    outcome.with_context(|| format!("{lacking:?} are not served:\n{served}"))
}

/// The user gets a mail on this side.
async fn write(server: &Dovecot) -> Result<()> {
    let mut client = Client::log_in(server.imap_address(), USER, PASSWORD).await?;
    client.append("INBOX", &[], None, b"From: bob@example.org\r\nSubject: News\r\n\r\nAs it happens.\r\n").await?;
    client.log_out().await;
    Ok(())
}
