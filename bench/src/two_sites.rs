//! Source gateway and recovery site as processes of their own, with a counting line between them.
//!
//! In: primaries, a standby and a line. Out: protected mailboxes, and bytes on the wire.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use understudy_tests::dovecot::{Dovecot, MASTER, free_port};
use understudy_tests::postgres::Postgres;

use crate::child::Server;
use crate::packets::{FAR, Packets};
use crate::wire::{Line, Wire};

/// Where the recovery gateway listens at the far end of a line of packets.
const LINK_PORT: u16 = 8443;
const START_DEADLINE: Duration = Duration::from_secs(120);
const WAIT_TIMEOUT: &str = "3600s";
/// How often is asked whether it answers.
const POLL: Duration = Duration::from_millis(200);

/// Two sites at work.
pub(crate) struct TwoSites {
    program: PathBuf,
    configuration: PathBuf,
    roles: Vec<Server>,
    wire: Option<Wire>,
    _postgres: Postgres,
}

impl TwoSites {
    /// On loopback, in clear text, with a line between them that counts.
    pub(crate) fn start(
        program: &Path,
        folder: &Path,
        primaries: &[(String, &Dovecot)],
        standby: &Dovecot,
        line: Line,
    ) -> Result<Self> {
        let postgres = start_postgres()?;
        let recovery = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)?));
        let wire = Wire::to(recovery, line)?;
        let secret = folder.join("link.secret");
        std::fs::write(&secret, "a secret that both ends of the link know\n")?;
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let text = format!(
            "data_dir = \"{}\"\n[database]\nurl = \"{}\"\nsource_url = \"{}\"\n[admin]\nlisten = \"127.0.0.1:{}\"\n\
             [recovery]\nlisten = \"{recovery}\"\nplaintext = true\n[source]\nplaintext = true\nrecovery_url = \"http://{}\"\n\
             [link]\nsecret_file = \"{}\"\n{}",
            folder.join("data").display(),
            postgres.url("understudy")?,
            postgres.url("source")?,
            free_port(Ipv4Addr::LOCALHOST)?,
            wire.address(),
            secret.display(),
            servers(primaries, standby),
        );
        let configuration = folder.join("understudy.toml");
        std::fs::write(&configuration, text)?;
        let mut sites = Self {
            program: program.to_owned(),
            configuration: configuration.clone(),
            roles: Vec::new(),
            wire: Some(wire),
            _postgres: postgres,
        };
        for role in ["recovery", "admin", "source"] {
            let started = start_role(program, role, &configuration)?;
            sites.roles.push(started);
        }
        sites.wait_until_ready()?;
        Ok(sites)
    }

    /// At both ends of a line of packets, paired, over TLS as any two sites.
    pub(crate) fn start_apart(
        program: &Path,
        folder: &Path,
        primaries: &[(String, &Dovecot)],
        standby: &Dovecot,
        packets: &Packets,
    ) -> Result<Self> {
        let postgres = start_postgres()?;
        let listed: Vec<&Dovecot> = primaries.iter().map(|(_, server)| *server).collect();
        packets.show(&listed, standby)?;
        let text = format!(
            "data_dir = \"{}\"\n[database]\nurl = \"{}\"\n[admin]\nlisten = \"127.0.0.1:{}\"\n\
             [recovery]\nlisten = \"{FAR}:{LINK_PORT}\"\n{}",
            folder.join("data").display(),
            postgres.url("understudy")?,
            free_port(Ipv4Addr::LOCALHOST)?,
            servers(primaries, standby),
        );
        let configuration = folder.join("understudy.toml");
        std::fs::write(&configuration, text)?;
        let near = folder.join("near");
        std::fs::create_dir(&near)?;
        let text = format!(
            "data_dir = \"{}\"\n[database]\nsource_url = \"{}\"\n",
            near.join("data").display(),
            postgres.url("source")?
        );
        let near = near.join("understudy.toml");
        std::fs::write(&near, text)?;
        let roles = vec![
            packets.far(|| start_role(program, "recovery", &configuration))?,
            start_role(program, "admin", &configuration)?,
        ];
        let mut sites = Self { program: program.to_owned(), configuration, roles, wire: None, _postgres: postgres };
        sites.wait_until_ready()?;
        let mut invited = sites.command(&["link", "invite", "--url", &format!("https://{FAR}:{LINK_PORT}")]);
        // The recovery gateway makes its keys when it starts.
        let deadline = Instant::now() + START_DEADLINE;
        while invited.is_err() && Instant::now() < deadline {
            std::thread::sleep(POLL);
            invited = sites.command(&["link", "invite", "--url", &format!("https://{FAR}:{LINK_PORT}")]);
        }
        let token = invited?;
        packets.near(|| run(program, &near, &["link", "join", token.trim()]).map(drop))?;
        sites.roles.push(packets.near(|| start_role(program, "source", &near))?);
        Ok(sites)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        // The servers of the configuration are known a moment after the interface answers.
        while !self.command(&["server", "list", "--json"]).is_ok_and(|list| list.contains("\"standby\"")) {
            if self.roles.iter_mut().any(Server::has_ended) || Instant::now() > deadline {
                bail!("understudy did not become ready within {START_DEADLINE:?}");
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Everything that has passed between the sites.
    pub(crate) fn bytes(&self) -> u64 {
        self.wire.as_ref().map_or(0, Wire::bytes)
    }

    /// The line on loopback.
    pub(crate) fn wire(&self) -> Option<&Wire> {
        self.wire.as_ref()
    }

    pub(crate) fn protect(&self, primary: &str, names: &[String]) -> Result<()> {
        let mut arguments = vec!["mailbox", "protect"];
        arguments.extend(names.iter().map(String::as_str));
        arguments.extend(["--primary", primary, "--standby", "standby"]);
        self.command(&arguments).map(drop)
    }

    /// Returns when everything done so far on the primaries is visible on the standby.
    pub(crate) fn wait_all(&self) -> Result<()> {
        self.command(&["mailbox", "wait", "--all", "--timeout", WAIT_TIMEOUT]).map(drop)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Result<String> {
        run(&self.program, &self.configuration, arguments)
    }

    pub(crate) fn stop(mut self) {
        self.roles.iter_mut().rev().for_each(Server::stop);
    }
}

fn start_postgres() -> Result<Postgres> {
    tokio::runtime::Handle::current().block_on(async {
        let postgres = Postgres::start().await?;
        postgres.create("source").await?;
        Ok(postgres)
    })
}

fn servers(primaries: &[(String, &Dovecot)], standby: &Dovecot) -> String {
    let primaries = primaries.iter().map(|(name, server)| (name.as_str(), "primary", *server));
    let all = primaries.chain([("standby", "standby", standby)]);
    all.map(|(name, role, server)| {
        format!(
            "\n[[server]]\nname = \"{name}\"\nrole = \"{role}\"\nimap = \"{}\"\nlogin = {{ as = \"master\", user = \"{MASTER}\", password_file = \"{}\", form = \"{{user}}*{{master}}\" }}\n",
            server.imap_url(),
            server.master_password_file().display()
        )
    })
    .collect()
}

fn start_role(program: &Path, role: &str, configuration: &Path) -> Result<Server> {
    let log = std::fs::File::create(configuration.with_file_name(format!("{role}.log")))?;
    let mut command = Command::new(program);
    command.arg(role).arg("--config").arg(configuration).stdin(Stdio::null());
    Server::start(command.stdout(log.try_clone()?).stderr(log))
}

fn run(program: &Path, configuration: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).arg("--config").arg(configuration).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!(
            "understudy {} failed: {}{}",
            arguments[..2.min(arguments.len())].join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
