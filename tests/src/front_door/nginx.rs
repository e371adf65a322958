//! The nginx mail proxy.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use anyhow::Result;

use super::{Plan, daemon::Daemon};
use crate::dovecot::free_port;

/// A running nginx for IMAP and submission.
pub struct Nginx {
    _daemon: Daemon,
    imap: SocketAddr,
    submission: SocketAddr,
}

impl Nginx {
    pub fn start(plan: &Plan) -> Result<Self> {
        let dir = plan.file("nginx");
        fs::create_dir_all(&dir)?;
        let listen = || -> Result<SocketAddr> { Ok(SocketAddr::from((plan.address, free_port(plan.address)?))) };
        let (imap, submission, auth) = (listen()?, listen()?, listen()?);
        // What a Debian package brings with it, and no more than one process. Temporary files stay here.
        let base = format!(
            "load_module /usr/lib/nginx/modules/ngx_mail_module.so;\ndaemon off;\nuser {user};\nworker_processes 1;\n\
             pid {dir}/nginx.pid;\nerror_log {dir}/error.log info;\nevents {{ worker_connections 1024; }}\n",
            user = if rustix::process::geteuid().is_root() { "root" } else { "nobody" },
            dir = dir.display(),
        );
        let values = [
            ("AUTH_LISTEN", auth.to_string()),
            ("IMAP_LISTEN", imap.to_string()),
            ("SUBMISSION_LISTEN", submission.to_string()),
        ];
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("    {name}_temp_path {}/{name};\n", dir.display()))
            .concat();
        let text = plan.filled("nginx.conf", &values)?.replace("http {\n", &format!("http {{\n{temp}"));
        let config = dir.join("nginx.conf");
        fs::write(&config, base + &text)?;
        let arguments = ["-c", &config.display().to_string(), "-e", &dir.join("error.log").display().to_string()];
        let answers = || [imap, auth].iter().all(|address| TcpStream::connect(address).is_ok());
        let daemon = Daemon::start("nginx", &dir, &arguments, answers)?;
        Ok(Self { _daemon: daemon, imap, submission })
    }

    pub fn imap_address(&self) -> SocketAddr {
        self.imap
    }

    pub fn submission_address(&self) -> SocketAddr {
        self.submission
    }
}
