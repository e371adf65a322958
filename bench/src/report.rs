//! What comes out: a plain table for people, JSON for comparing runs, and each goal beside its figure.
//!
//! In: figures as they are measured. Out: lines on the terminal and a file in `bench/results/`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

/// What a figure must reach.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {}", short(limit)),
            Self::AtLeast(limit) => format!(">= {}", short(limit)),
        }
    }
}

/// One number with its name, unit and, where there is one, its goal.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    goal: Option<Goal>,
    met: Option<bool>,
}

/// A group of figures of one measurement on one store.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Section {
    title: String,
    notes: Vec<String>,
    figures: Vec<Figure>,
}

/// Everything of one invocation.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    started_at: String,
    scale: f64,
    machine: Machine,
    sections: Vec<Section>,
}

#[derive(Debug, Serialize)]
struct Machine {
    processors: usize,
    load_average_before: String,
    dovecot: String,
    mbsync: String,
}

impl Section {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        let title = title.into();
        println!("\n== {title}");
        Self { title, notes: Vec::new(), figures: Vec::new() }
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        println!("   {text}");
        self.notes.push(text);
    }

    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.push(name.into(), value, unit, None);
    }

    pub(crate) fn goal(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.push(name.into(), value, unit, Some(goal));
    }

    fn push(&mut self, name: String, value: f64, unit: &'static str, goal: Option<Goal>) {
        let met = goal.map(|goal| goal.is_met(value));
        let figure = Figure { name, value, unit, goal, met };
        println!("{}", figure.line());
        self.figures.push(figure);
    }
}

impl Figure {
    fn line(&self) -> String {
        let verdict = match (self.goal, self.met) {
            (Some(goal), Some(met)) => {
                format!("   goal {:<10} {}", goal.text(), if met { "met" } else { "MISSED" })
            }
            _ => String::new(),
        };
        format!("   {:<68} {:>8} {:<8}{verdict}", self.name, short(self.value), self.unit).trim_end().to_owned()
    }
}

impl Report {
    pub(crate) fn new(scale: f64) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let machine = Machine {
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            load_average_before: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
            dovecot: crate::servers::version(),
            mbsync: crate::mbsync::version(),
        };
        println!(
            "{} processors, load {}, Dovecot {}, {}; scale {scale}",
            machine.processors, machine.load_average_before, machine.dovecot, machine.mbsync
        );
        Self { started_at: chrono::Utc::now().to_rfc3339(), scale, machine, sections: Vec::new() }
    }

    pub(crate) fn add(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// Prints every goal once more, in one place.
    pub(crate) fn print_goals(&self) {
        println!("\n== Goals");
        for section in &self.sections {
            let with_goal: Vec<_> = section.figures.iter().filter(|f| f.goal.is_some()).collect();
            if !with_goal.is_empty() {
                println!("   {}", section.title);
            }
            for figure in with_goal {
                println!("  {}", figure.line());
            }
        }
        if self.scale < 1.0 {
            println!("   (scale {}: the goals are meant for scale 1)", self.scale);
        }
    }

    pub(crate) fn write(&self) -> Result<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        std::fs::create_dir_all(&folder)?;
        let name = format!("{}.json", chrono::Utc::now().format("%Y%m%d-%H%M%S"));
        let path = folder.join(name);
        std::fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("could not write {}", path.display()))?;
        Ok(path)
    }
}

/// The middle value; the mean of the middle two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The value below which `share` of the sorted values lie (nearest rank).
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Three significant digits are all a shared machine can give.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_values_that_were_measured() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((percentile(&sorted, 0.99) - 99.0).abs() < 1e-9);
        assert!((percentile(&sorted[..1], 0.5) - 1.0).abs() < 1e-9);
    }
}
