//! `understudy events`: what happens, as it happens, from the API's server-sent events.
//!
//! Keeps true: after a broken connection it goes on where it was, by the number of the last event.

use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use serde_json::Value;

use super::Context;
use crate::client::Client;
use crate::failure::{Exit, Result};
use crate::output::{self, Tone};

/// How long a lost connection is waited for before giving up.
const RECONNECT_ATTEMPTS: u32 = 30;
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Follow what happens: states, troubles, runs and their steps
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  understudy events\n  understudy events --mailbox ana@example.org --json | jq .kind"
)]
pub(crate) struct Events {
    /// Only those of one mailbox
    #[arg(long, value_name = "ADDRESS")]
    mailbox: Option<String>,
    /// Begin after the event with this number instead of now
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// Print what happened lately, newest first, instead of following
    #[arg(long, conflicts_with_all = ["after", "lag"])]
    past: bool,
    /// With --past: only this kind, such as `verdict`
    #[arg(long, requires = "past")]
    kind: Option<String>,
    /// Also a line each second while something lags
    #[arg(long)]
    lag: bool,
}

pub(crate) async fn run(events: &Events, context: &Context) -> Result<Exit> {
    let client = context.client()?;
    let query: Vec<(&str, &str)> = events.mailbox.iter().map(|address| ("mailbox", address.as_str())).collect();
    if events.past {
        return past(events, context, &client, query).await;
    }
    let mut last = events.after.map(|number| number.to_string());
    let (mut failures, mut was_connected) = (0, false);
    loop {
        let outcome = client.stream(&["events"], &query, last.as_deref()).await;
        let response = match outcome {
            Ok(response) => response,
            // The first connection says what is wrong; a later one may be a restart in progress.
            Err(failure) if !was_connected || failures >= RECONNECT_ATTEMPTS => return Err(failure),
            Err(_) => {
                failures += 1;
                tokio::time::sleep(RECONNECT_PAUSE).await;
                continue;
            }
        };
        (failures, was_connected) = (0, true);
        let mut bytes = response.bytes_stream();
        let mut parser = Parser::default();
        while let Some(Ok(chunk)) = bytes.next().await {
            for event in parser.feed(&chunk) {
                if let Some(id) = &event.id {
                    last = Some(id.clone());
                }
                if event.kind != "lag" || events.lag {
                    show(&event, context);
                }
            }
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// What happened lately.
async fn past<'q>(
    events: &'q Events,
    context: &Context,
    client: &Client,
    mut query: Vec<(&'q str, &'q str)>,
) -> Result<Exit> {
    query.extend(events.kind.as_deref().map(|kind| ("kind", kind)));
    let mut page = client.get(&["history"], &query).await?;
    let items = page["items"].take();
    if context.json {
        output::json(&items);
        return Ok(Exit::Done);
    }
    for item in items.as_array().into_iter().flatten() {
        let kind = item["kind"].as_str().unwrap_or_default().to_owned();
        show(&Event { id: None, kind, data: item.to_string() }, context);
    }
    Ok(Exit::Done)
}

fn show(event: &Event, context: &Context) {
    let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
    if context.json {
        // One line each, for programs that read lines.
        output::line(if event.kind == "lag" {
            serde_json::json!({"kind": "lag", "detail": data}).to_string()
        } else {
            data.to_string()
        });
        return;
    }
    let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
    let time = text("created_at").get(11..19).unwrap_or("        ").to_owned();
    let detail =
        if event.kind == "lag" { in_words(&data) } else { in_words(data.get("detail").unwrap_or(&Value::Null)) };
    let subject = text("address");
    let line =
        [time.as_str(), &event.kind, subject, &detail].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let tone = match event.kind.as_str() {
        "trouble" | "faulted" => Tone::Bad,
        "lag" => Tone::Faint,
        _ => Tone::Plain,
    };
    output::line(output::paint(&line.join("  "), tone));
}

/// `state=mirroring reason="…"`
fn in_words(detail: &Value) -> String {
    let Value::Object(fields) = detail else { return String::new() };
    let words = fields.iter().filter_map(|(name, value)| match value {
        Value::Null | Value::Array(_) => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) if text.contains(' ') => Some(format!("{name}=\"{text}\"")),
        Value::String(text) => Some(format!("{name}={text}")),
        Value::Object(_) => Some(in_words(value)),
        value => Some(format!("{name}={value}")),
    });
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    id: Option<String>,
    kind: String,
    data: String,
}

/// Bytes as they come → events as they are complete (WHATWG HTML §9.2.6).
#[derive(Default)]
struct Parser {
    rest: Vec<u8>,
    event: Event,
}

impl Parser {
    fn feed(&mut self, chunk: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(chunk);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                // Comments alone make no event.
                if !event.data.is_empty() {
                    events.push(event);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => self.event.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut self.event.kind),
                "data" => {
                    if !self.event.data.is_empty() {
                        self.event.data.push('\n');
                    }
                    self.event.data.push_str(value);
                }
                _ => {}
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_the_bytes_arrive() {
        let stream = b": alive\n\nid: 17\nevent: state\ndata: {\"a\":1}\n\nevent: lag\r\ndata: {}\r\n\r\n";
        let whole = Parser::default().feed(stream);
        let mut parser = Parser::default();
        let single: Vec<Event> = stream.iter().flat_map(|byte| parser.feed(&[*byte])).collect();
        assert_eq!(whole, single);
        assert_eq!(whole.len(), 2);
        assert_eq!(whole[0], Event { id: Some("17".into()), kind: "state".into(), data: "{\"a\":1}".into() });
        assert_eq!(whole[1].kind, "lag");
    }

    #[test]
    fn a_detail_reads_as_words() {
        let detail = serde_json::json!({"state": "faulted", "reason": "wrong password", "n": 3, "gone": null});
        assert_eq!(in_words(&detail), "n=3 reason=\"wrong password\" state=faulted");
    }
}
