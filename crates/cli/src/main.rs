//! The `understudy` binary: reads the command line, opens the roles or speaks to them over REST, and ends with an exit code.

mod client;
mod commands;
mod config;
mod duration;
mod failure;
mod logging;
mod output;
mod running;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use commands::roles::{Alone, RoleArguments};
use commands::{
    Context, completions, events, link, mailbox, policy, preflight, report, roles, run, server, status, switch, token,
    up, witness,
};
use failure::{Exit, Failure, Result};

/// Mail continuity, one mailbox at a time: a live and exact copy of each protected mailbox on a standby server
#[derive(Debug, Parser)]
#[command(
    name = "understudy",
    version,
    propagate_version = true,
    after_help = "First steps:
  understudy preflight
  understudy up
  understudy server add mail-a --role primary --imap imaps://mail-a.example.org --login master …
  understudy mailbox protect ana@example.org --primary mail-a --standby dr-1
  understudy status --watch

Commands find a running `up` by its configuration, or any Understudy by UNDERSTUDY_URL and UNDERSTUDY_TOKEN.
Exit codes: 0 done, 1 failed or differences found, 2 wrong usage, 3 partly done."
)]
struct Cli {
    /// The configuration file [default: /etc/understudy/understudy.toml if it exists]
    #[arg(long, global = true, env = "UNDERSTUDY_CONFIG", hide_env = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    /// Run the source gateway alone, beside the primary
    Source(RoleArguments),
    /// Run the recovery gateway alone, at the recovery site
    Recovery(RoleArguments),
    /// Run the admin API and web alone
    Admin(RoleArguments),
    /// Mail servers
    #[command(subcommand)]
    Server(server::ServerCommand),
    /// Protected mailboxes
    #[command(subcommand)]
    Mailbox(mailbox::MailboxCommand),
    Switchover(switch::Switchover),
    Switchback(switch::Switchback),
    Status(status::StatusCommand),
    Events(events::Events),
    /// The line between the two sites: pairing, limits, bytes
    #[command(subcommand)]
    Link(link::LinkCommand),
    Map(commands::map::Map),
    /// Groups of mailboxes
    #[command(subcommand)]
    Group(commands::map::GroupCommand),
    /// Pieces of work that somebody asked for
    #[command(subcommand)]
    Run(run::RunCommand),
    /// Accounts of people
    #[command(subcommand)]
    User(commands::user::UserCommand),
    /// Who did what, and whether the record is whole
    #[command(subcommand)]
    Audit(commands::audit::AuditCommand),
    /// API tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Usage in money, and how well mailboxes were kept in step
    #[command(subcommand)]
    Report(report::ReportCommand),
    /// What protection costs
    #[command(subcommand)]
    Prices(report::PricesCommand),
    /// Months as they are billed
    #[command(subcommand)]
    Invoice(report::InvoiceCommand),
    /// How mailboxes are treated
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    Witness(witness::Witness),
    Preflight(preflight::Preflight),
    /// The configuration
    #[command(subcommand)]
    Config(commands::config::ConfigCommand),
    Completions(completions::Completions),
}

/// How long blocked threads are waited for at the end.
const LAST_MOMENTS: std::time::Duration = std::time::Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = match start(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit()
        }
    };
    ExitCode::from(exit as u8)
}

fn start(cli: Cli) -> Result<Exit> {
    // The one TLS library's provider; that somebody installed it before changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (mut runtime, format) = match &cli.command {
        Command::Up(up) => (tokio::runtime::Builder::new_multi_thread(), Some(up.role.log_format)),
        Command::Source(role) | Command::Recovery(role) | Command::Admin(role) => {
            (tokio::runtime::Builder::new_multi_thread(), Some(role.log_format))
        }
        _ => (tokio::runtime::Builder::new_current_thread(), None),
    };
    if let Some(format) = format {
        logging::start(format);
    }
    let runtime = runtime.enable_all().build().map_err(|error| {
        Failure::new(
            "the program cannot start its threads",
            error.to_string(),
            "check the limits of this user (ulimit -a)",
        )
    })?;
    let outcome = runtime.block_on(Box::pin(dispatch(cli)));
    // Tasks are dropped here, and with them what they hold, such as a private PostgreSQL after a second Ctrl-C.
    runtime.shutdown_timeout(LAST_MOMENTS);
    outcome
}

async fn dispatch(cli: Cli) -> Result<Exit> {
    let context = Context { config: cli.config, json: cli.json };
    match &cli.command {
        Command::Up(command) => up::run(command, &context).await,
        Command::Source(_) => roles::run(Alone::Source, &context).await,
        Command::Recovery(_) => roles::run(Alone::Recovery, &context).await,
        Command::Admin(_) => roles::run(Alone::Admin, &context).await,
        Command::Server(command) => server::run(command, &context).await.map_err(|no| no.cannot(command.act())),
        Command::Mailbox(command) => mailbox::run(command, &context).await.map_err(|no| no.cannot(command.act())),
        Command::Switchover(command) => {
            switch::over(command, &context).await.map_err(|no| no.cannot("start the switchover"))
        }
        Command::Switchback(command) => {
            switch::back(command, &context).await.map_err(|no| no.cannot("start the switchback"))
        }
        Command::Status(command) => status::run(command, &context).await.map_err(|no| no.cannot("show the status")),
        Command::Events(command) => events::run(command, &context).await.map_err(|no| no.cannot("follow the events")),
        Command::Link(command) => link::run(command, &context).await.map_err(|no| no.cannot(command.act())),
        Command::Map(_) => commands::map::run(&context).await.map_err(|no| no.cannot("show the map")),
        Command::Group(command) => {
            commands::map::groups(command, &context).await.map_err(|no| no.cannot("list the groups"))
        }
        Command::Run(command) => run::run(command, &context).await.map_err(|no| no.cannot(command.act())),
        Command::User(command) => commands::user::run(command, &context).await.map_err(|no| no.cannot(command.act())),
        Command::Audit(command) => commands::audit::run(command, &context).await.map_err(|no| no.cannot(command.act())),
        Command::Token(command) => token::run(command, &context).await.map_err(|no| no.cannot(command.act())),
        Command::Report(command) => report::run(command, &context).await.map_err(|no| no.cannot("make the report")),
        Command::Prices(command) => {
            report::prices(command, &context).await.map_err(|no| no.cannot("work on the prices"))
        }
        Command::Invoice(command) => {
            report::invoice(command, &context).await.map_err(|no| no.cannot("work on the invoices"))
        }
        Command::Policy(command) => policy::run(command, &context).await.map_err(|no| no.cannot(command.act())),
        Command::Witness(command) => witness::run(command, &context).await.map_err(|no| no.cannot("be a witness")),
        Command::Preflight(command) => preflight::run(command, &context).await,
        Command::Config(command) => commands::config::run(command, &context),
        Command::Completions(command) => completions::run(command, Cli::command()),
    }
}
