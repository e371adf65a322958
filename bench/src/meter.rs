//! Wall time and CPU of one measured stretch.
//!
//! In: the servers and the program that work in it. Out: seconds.
//! Keeps true: whole process trees count, and so do commands that ran and ended in between (mbsync, the command line).

use std::fs;
use std::time::Instant;

use understudy_tests::dovecot::Dovecot;
use understudy_tests::process;

/// A running measurement.
pub(crate) struct Meter<'a> {
    servers: Vec<&'a Dovecot>,
    program: Option<u32>,
    before: Parts,
    started: Instant,
}

/// What a stretch cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall_seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) parts: Parts,
}

/// CPU seconds by who used them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Parts {
    pub(crate) servers: f64,
    /// The program itself, without what it started.
    pub(crate) program: f64,
    /// What the program started: its database.
    pub(crate) started: f64,
    /// Commands that ran and ended.
    pub(crate) commands: f64,
}

impl Parts {
    fn sum(&self) -> f64 {
        self.servers + self.program + self.started + self.commands
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            servers: self.servers - before.servers,
            program: self.program - before.program,
            started: self.started - before.started,
            commands: self.commands - before.commands,
        }
    }
}

impl<'a> Meter<'a> {
    /// `program`: the root of the tree that serves beside the mail servers.
    pub(crate) fn start(servers: &[&'a Dovecot], program: Option<u32>) -> Self {
        let mut meter = Self { servers: servers.to_vec(), program, before: Parts::default(), started: Instant::now() };
        meter.before = meter.parts();
        meter.started = Instant::now();
        meter
    }

    pub(crate) fn read(&self) -> Cost {
        let wall_seconds = self.started.elapsed().as_secs_f64();
        let parts = self.parts().since(&self.before);
        Cost { wall_seconds, cpu_seconds: parts.sum(), parts }
    }

    fn parts(&self) -> Parts {
        let program = self.program.map_or(0.0, process::own_cpu_seconds);
        Parts {
            servers: self.servers.iter().map(|server| server.cpu_seconds()).sum(),
            program,
            started: self.program.map_or(0.0, process::cpu_seconds) - program,
            commands: ended_children_seconds(),
        }
    }
}

/// CPU of this process's children that have ended. No server ends within a measured stretch.
fn ended_children_seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in brackets; fields 16 and 17 of the whole line are the children's times.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_ended_is_counted() {
        let meter = Meter::start(&[], None);
        let status =
            std::process::Command::new("sh").args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"]).status();
        assert!(status.is_ok_and(|status| status.success()));
        let cost = meter.read();
        assert!(cost.cpu_seconds > 0.0 && cost.wall_seconds > 0.0, "{cost:?}");
    }
}
