//! A refusal by the API (RFC 9457) as the three lines a person reads.

use reqwest::StatusCode;
use serde::Deserialize;

use crate::failure::Failure;

/// How many single mistakes are listed; more help nobody.
const SHOWN: usize = 50;

/// `application/problem+json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Problem {
    #[serde(default, rename = "type")]
    kind: String,
    title: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    remedy: String,
    #[serde(default)]
    errors: Vec<ProblemItem>,
}

/// One thing wrong with one part of what was sent.
#[derive(Debug, Deserialize)]
pub(crate) struct ProblemItem {
    line: Option<usize>,
    /// The item of a list that it is about, if the server says.
    pub(crate) address: Option<String>,
    #[serde(default)]
    pub(crate) detail: String,
    nearest: Option<String>,
}

impl ProblemItem {
    /// `line 5: no server is named "mail-b"; did you mean "mail-a"?`
    pub(crate) fn sentence(&self) -> String {
        let mut text = match (self.line, &self.address) {
            (Some(line), Some(address)) => format!("line {line} ({address}): "),
            (Some(line), None) => format!("line {line}: "),
            (None, Some(address)) => format!("{address}: "),
            (None, None) => String::new(),
        };
        text.push_str(&self.detail);
        if let Some(nearest) = &self.nearest
            && !self.detail.contains(nearest.as_str())
        {
            text.push_str(&format!("; did you mean \"{nearest}\"?"));
        }
        text
    }
}

impl Problem {
    pub(super) fn into_failure(self, status: StatusCode) -> Failure {
        let remedy = self.remedy();
        let mut items: Vec<String> = self.errors.iter().map(ProblemItem::sentence).collect();
        items.dedup();
        let mut why = Vec::new();
        // A single mistake says the same as the whole, only better.
        if !self.detail.is_empty() && !items.iter().any(|item| item.contains(&self.detail)) {
            why.push(self.detail);
        }
        why.extend(items.iter().take(SHOWN).cloned());
        if items.len() > SHOWN {
            why.push(format!("and {} more", items.len() - SHOWN));
        }
        let failure = match status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                Failure::usage(lower(&self.title), "", remedy)
            }
            _ => Failure::new(lower(&self.title), "", remedy),
        };
        failure.reasons(why).refused()
    }

    /// The server's remedy, where it does not speak of headers and fields that the command line hides.
    fn remedy(&self) -> String {
        let kind = self.kind.rsplit(':').next().unwrap_or_default();
        match kind {
            "unauthorized" => {
                "set UNDERSTUDY_TOKEN to a token that `understudy token create` made where `up` runs".into()
            }
            "invalid" if self.remedy.contains("skip_invalid") => {
                "correct that, or protect only the others with --skip-invalid".into()
            }
            "invalid" if self.remedy.contains("`errors`") => "correct that and ask again".into(),
            _ => self.remedy.clone(),
        }
    }
}

/// Ours begin in lower case, after "error: ".
fn lower(title: &str) -> String {
    let mut letters = title.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
