//! How a command ends: its exit code, and what a person reads when it did not work.

use std::fmt;

use crate::config::ConfigError;

/// Exit codes, as every script may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    /// It failed, or differences were found.
    Failed = 1,
    /// Asked for something that cannot be.
    Usage = 2,
    /// Some of it was done; the output names the rest.
    Partly = 3,
}

/// What went wrong, why, and what to do: one line each.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    why: Vec<String>,
    remedy: String,
    exit: Exit,
    /// The server refused it, and does not know what the command was for.
    refused: bool,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// It was tried and did not work.
    pub(crate) fn new(what: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), why: vec![why.into()], remedy: remedy.into(), exit: Exit::Failed, refused: false }
    }

    /// It cannot be asked like that.
    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(what, why, remedy) }
    }

    /// Several reasons, one line each.
    pub(crate) fn reasons(self, why: Vec<String>) -> Self {
        Self { why, ..self }
    }

    /// The server said no.
    pub(crate) fn refused(self) -> Self {
        Self { refused: true, ..self }
    }

    /// Says what the command was for, where only the server's answer is known so far.
    pub(crate) fn cannot(self, act: &str) -> Self {
        match self.refused {
            true => Self { what: format!("cannot {act}"), ..self },
            false => self,
        }
    }

    /// An error from deeper down, its causes in a row.
    pub(crate) fn because(what: impl Into<String>, error: &anyhow::Error, remedy: impl Into<String>) -> Self {
        Self::new(what, in_a_row(error.chain()), remedy)
    }

    pub(crate) fn what(&self) -> String {
        self.what.clone()
    }

    pub(crate) fn why(&self) -> String {
        self.why.join("; ")
    }

    pub(crate) fn remedy(&self) -> String {
        self.remedy.clone()
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

/// An error and its causes, without those that only repeat what was said.
pub(crate) fn in_a_row<'e>(chain: impl Iterator<Item = &'e (dyn std::error::Error + 'static)>) -> String {
    let mut text = String::new();
    for cause in chain {
        let said = cause.to_string();
        if text.is_empty() {
            text = said;
        } else if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for why in self.why.iter().filter(|why| !why.is_empty()) {
            write!(f, "\n  why: {why}")?;
        }
        if !self.remedy.is_empty() {
            write!(f, "\n  do:  {}", self.remedy)?;
        }
        Ok(())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Unreadable { path, source } => Self::usage(
                format!("cannot read the configuration {}", path.display()),
                source.to_string(),
                "name a readable file with --config or UNDERSTUDY_CONFIG",
            ),
            ConfigError::Problems(problems) => {
                let what = match problems.len() {
                    1 => "the configuration has a mistake".to_owned(),
                    n => format!("the configuration has {n} mistakes"),
                };
                // One mistake keeps to the three lines; several bring their remedy along.
                if let [problem] = problems.as_slice() {
                    return Self::usage(what, problem.to_string(), problem.remedy.clone());
                }
                let why = problems.iter().map(|problem| format!("{problem}; {}", problem.remedy)).collect();
                Self::usage(what, "", "correct them; `understudy config check` looks again").reasons(why)
            }
        }
    }
}
