//! `understudy server check`: what a server can do, and what each thing means for mirroring.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::super::Context;
use crate::client::{Client, decode};
use crate::failure::{Exit, Result};
use crate::output::{self, Cell, Table, Tone};

/// What a check found.
#[derive(Debug, Deserialize)]
pub(crate) struct ServerCheck {
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(default)]
    pub(crate) findings: Vec<Finding>,
}

/// One line of a check: of a server, or of the environment.
#[derive(Debug, Deserialize, serde::Serialize)]
pub(crate) struct Finding {
    /// `ok`, `note`, `warning` or `failed`
    pub(crate) level: String,
    pub(crate) name: String,
    pub(crate) meaning: String,
    #[serde(default)]
    pub(crate) remedy: String,
}

impl ServerCheck {
    /// What the first failed finding is about.
    pub(super) fn first_failure(&self) -> Option<&str> {
        self.findings.iter().find(|finding| finding.level == "failed").map(|finding| finding.meaning.as_str())
    }

    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        if !self.capabilities.is_empty() {
            text.push_str(&format!("Capabilities: {}\n\n", self.capabilities.join(" ")));
        }
        text.push_str(&render(&self.findings));
        text
    }
}

/// Findings as aligned lines, each with its remedy below it.
pub(crate) fn render(findings: &[Finding]) -> String {
    let mut table = Table::default();
    for finding in findings {
        let tone = if finding.level == "warning" { Tone::Busy } else { Tone::of_state(&finding.level) };
        table.row([
            Cell::toned(finding.level.as_str(), tone),
            finding.name.as_str().into(),
            finding.meaning.as_str().into(),
        ]);
        if !finding.remedy.is_empty() {
            table.row(["".into(), "".into(), Cell::toned(format!("do: {}", finding.remedy), Tone::Faint)]);
        }
    }
    table.render()
}

pub(super) async fn run(
    context: &Context,
    client: &Client,
    name: &str,
    address: Option<&str>,
    timeout: Duration,
) -> Result<Exit> {
    let body = address.map_or_else(|| json!({}), |address| json!({"address": address}));
    let run = client.run_to_end(&["servers", name, "check"], &body, timeout).await?;
    let result = run.into_result()?;
    let check: ServerCheck = decode(&result)?;
    match context.json {
        true => output::json(&result),
        false => output::print(&check.render()),
    }
    Ok(if check.first_failure().is_some() { Exit::Failed } else { Exit::Done })
}
