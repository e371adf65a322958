//! Measures Understudy beside what a mail administrator would take instead, on the same data in the same run.
//!
//! In: a subcommand and a scale. Out: a table with ratios and goals, and the same as JSON in `bench/results/`.
//! Not here: tests. No figure of this program fails a build; machines differ and are busy.

mod bound;
mod child;
mod copy;
mod crossing;
mod cut;
mod follow;
mod idle;
mod imap;
mod large;
mod line;
mod link;
mod live;
mod load;
mod mbsync;
mod memory;
mod meter;
mod packets;
mod packing;
mod peer;
mod random;
mod report;
mod restart;
mod seed;
mod servers;
mod settings;
mod switch;
mod text;
mod traffic;
mod two_sites;
mod understudy;
mod verify;
mod watch;
mod wire;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use crate::peer::Peer;
use crate::report::{Report, Section};
use crate::settings::Settings;

/// Measures Understudy beside mbsync, Dovecot's replicator and the limit of the servers.
#[derive(Debug, Parser)]
#[command(name = "understudy-bench")]
struct Arguments {
    /// What to measure.
    #[arg(value_enum, required = true)]
    what: Vec<Measurement>,
    /// Share of the full load: 1 is 20,000 messages, 1,000 idle mailboxes, 100,000 messages in one folder.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where mail stores and databases are made and removed again; give it twice to measure on both.
    #[arg(long = "store", default_values_os_t = [PathBuf::from("/dev/shm"), disk_store()])]
    stores: Vec<PathBuf>,
    /// Who takes part.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "mbsync,understudy,copy,replicator")]
    peers: Vec<Peer>,
    /// The program to measure; without it a release build of this checkout.
    #[arg(long = "understudy")]
    program: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// Everything below.
    All,
    /// First full copy: one large mailbox and many small ones.
    Seed,
    /// A pass after one message in a hundred changed.
    Follow,
    /// From a change to its being visible on the standby, under steady traffic.
    Live,
    /// What protected mailboxes cost in which nothing happens.
    Idle,
    /// From the start of the program to caught up, with a very large folder.
    Restart,
    /// Memory while a 100 MB message passes.
    Large,
    /// How fast the two sides are compared.
    Verify,
    /// What crosses the line between two sites.
    Link,
    /// What crosses it of one file that many users get.
    File,
    /// How a thin line and a bad one are used, in network namespaces.
    Line,
    /// What crosses the line after it was cut.
    Cut,
    /// Changes of side behind a front door: planned, a dead server, very many, and the way home.
    Switch,
    /// Of those, very many alone.
    Routes,
}

impl Measurement {
    /// All but what is part of another.
    const EACH: [Self; 12] = [
        Self::Seed,
        Self::Follow,
        Self::Live,
        Self::Idle,
        Self::Restart,
        Self::Large,
        Self::Verify,
        Self::Link,
        Self::File,
        Self::Line,
        Self::Cut,
        Self::Switch,
    ];

    /// As the command line calls it.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Why this machine cannot measure it. Where everything is asked for, that is no reason to measure nothing of the rest.
    fn obstacle(self, settings: &Settings) -> Option<anyhow::Error> {
        match self {
            Self::Line if settings.measures(Peer::Understudy) => line::obstacle(),
            _ => None,
        }
    }

    fn run(self, settings: &Settings, report: &mut Report) -> Result<()> {
        match self {
            Self::All => Self::EACH.iter().try_for_each(|each| match each.obstacle(settings) {
                Some(why) => {
                    let mut section = Section::new(format!("{}: not measured", each.name()));
                    section.note(format!("{why:#}"));
                    report.add(section);
                    Ok(())
                }
                None => each.run(settings, report),
            }),
            Self::Seed => seed::measure(settings, report),
            Self::Follow => follow::measure(settings, report),
            Self::Live => live::measure(settings, report),
            Self::Idle => idle::measure(settings, report),
            Self::Restart => restart::measure(settings, report),
            Self::Large => large::measure(settings, report),
            Self::Verify => verify::measure(settings, report),
            Self::Link => {
                packing::measure(settings, report)?;
                crossing::measure(settings, report)
            }
            Self::File => crossing::measure_file(settings, report),
            Self::Line => line::measure(settings, report),
            Self::Cut => cut::measure(settings, report),
            Self::Switch => switch::measure(settings, report),
            Self::Routes => switch::measure_routes(settings, report),
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> ExitCode {
    let measured = run(Arguments::parse()).await;
    measured.map_or_else(
        |error| {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

async fn run(arguments: Arguments) -> Result<()> {
    ensure!(arguments.scale > 0.0, "--scale must be above 0");
    ensure!(arguments.rounds > 0, "--rounds must be above 0");
    tokio::spawn(child::clean_up_on_signal());
    tokio::task::spawn_blocking(move || measure(arguments)).await?
}

fn measure(arguments: Arguments) -> Result<()> {
    let Arguments { what, scale, rounds, stores, peers, program } = arguments;
    let settings = Settings::new(scale, rounds, stores, peers, program)?;
    let mut report = Report::new(scale);
    let result = what.iter().try_for_each(|each| each.run(&settings, &mut report));
    // What was measured before a failure is worth keeping.
    report.print_goals();
    println!("\nwritten to {}", report.write()?.display());
    result
}

/// On the disk of the checkout, in a folder that version control leaves out.
fn disk_store() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench")
}
