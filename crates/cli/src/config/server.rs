//! The `[[server]]` tables as the servers both gateways know.
//!
//! Keeps true: a server that comes out of here can be logged in to as far as one can tell without asking it.

use std::net::IpAddr;

use understudy_protocol::server::{Canary, LoginConfig, LoginMethod, Manage, Server, ServerRole};

use super::{
    path,
    settings::{Origin, Settings},
};

/// Every complete server; what lacks in the others becomes a problem.
pub(super) fn servers(settings: &mut Settings) -> Vec<Server> {
    let mut servers: Vec<Server> = Vec::new();
    for (number, origin) in settings.tables("server").to_vec().into_iter().enumerate() {
        let Some(server) = Table { settings, number, origin: &origin }.server() else { continue };
        if servers.iter().any(|earlier| earlier.name == server.name) {
            let what = format!("a second server is named \"{}\"", server.name);
            settings.problem(Some(origin), what, "give every [[server]] a name of its own");
            continue;
        }
        servers.push(server);
    }
    servers
}

/// One `[[server]]` table.
struct Table<'s> {
    settings: &'s mut Settings,
    number: usize,
    origin: &'s Origin,
}

impl Table<'_> {
    fn server(&mut self) -> Option<Server> {
        let (name, role, imap) = (self.required("name"), self.required("role"), self.required("imap"));
        let (login, manage) = (self.login("login"), self.manage());
        let has_return = self.settings.has_table(&self.key("return_login"));
        let return_login = if has_return { self.login("return_login") } else { None };
        if let Some(imap) = &imap {
            self.check_imap(imap);
        }
        Some(Server {
            name: name?,
            role: if role? == "primary" { ServerRole::Primary } else { ServerRole::Standby },
            imap: imap?,
            ca_file: path(self.settings, &self.key("ca_file")),
            login: login?,
            return_login,
            lmtp: self.text("lmtp"),
            submission: self.text("submission"),
            manage,
            canary: self.canary(),
        })
    }

    fn login(&mut self, table: &str) -> Option<LoginConfig> {
        let key = |name: &str| format!("{table}.{name}");
        let method = match self.required(&key("as"))?.as_str() {
            "authzid" => LoginMethod::Authzid,
            "each" => LoginMethod::Each,
            _ => LoginMethod::Master,
        };
        let password_file = path(self.settings, &self.key(&key("password_file")));
        if password_file.is_none() {
            let lines = match method {
                LoginMethod::Each => " with a line `address:password` for each user",
                LoginMethod::Master | LoginMethod::Authzid => "",
            };
            let what = format!("\"{table}\" names no `password_file`{lines}");
            self.problem(&key("as"), what, format!("add `password_file = \"…\"` to `{table}`"));
        }
        let user = self.text(&key("user"));
        if user.is_none() && method != LoginMethod::Each {
            let what = format!("\"{table}\" names no `user` to log in as");
            self.problem(&key("as"), what, format!("add `user = \"…\"` to `{table}`"));
        }
        let form = self.text(&key("form"));
        if form.as_deref().is_some_and(|form| !form.contains("{user}")) {
            let what = format!("\"{table}.form\" has no place for the user");
            self.problem(&key("form"), what, "write it like \"{user}*{master}\"");
        }
        Some(LoginConfig { method, user, password_file, form })
    }

    fn manage(&mut self) -> Option<Manage> {
        if !self.settings.has_table(&self.key("manage")) {
            return None;
        }
        let doveadm = self.required("manage.doveadm");
        let key_file = path(self.settings, &self.key("manage.key_file"));
        if key_file.is_none() {
            self.problem("manage.doveadm", "\"manage\" names no `key_file`", "add `key_file = \"…\"` to `manage`");
        }
        Some(Manage { doveadm: doveadm?, key_file: key_file? })
    }

    fn canary(&mut self) -> Option<Canary> {
        if !self.settings.has_table(&self.key("canary")) {
            return None;
        }
        Some(Canary {
            address: self.required("canary.address")?,
            write: self.settings.flag(&self.key("canary.write")),
            password_file: path(self.settings, &self.key("canary.password_file")),
        })
    }

    /// Passwords cross the wire in the clear with `imap+insecure`: only this machine may see them.
    fn check_imap(&mut self, imap: &str) {
        let Ok(url) = url::Url::parse(imap) else { return };
        let host = url.host_str().unwrap_or_default();
        let loopback = host == "localhost"
            || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if url.scheme() == "imap+insecure" && !loopback {
            let what = format!("\"imap\" sends passwords to {host} unencrypted");
            self.problem(
                "imap",
                what,
                "write imaps:// or imap:// (STARTTLS); imap+insecure:// is for this machine only",
            );
        }
    }

    fn key(&self, name: &str) -> String {
        format!("server.{}.{name}", self.number)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.settings.text(&self.key(name)).map(str::to_owned)
    }

    fn required(&mut self, name: &str) -> Option<String> {
        let found = self.text(name);
        // What was written badly has been named already.
        let named = self.settings.problems.iter().any(|problem| problem.what.contains(&self.key(name)));
        if found.is_none() && !named {
            let what = format!("this [[server]] has no \"{name}\"");
            self.settings.problem(Some(self.origin.clone()), what, format!("add \"{name}\" to it"));
        }
        found
    }

    fn problem(&mut self, near: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let origin = self.settings.origin(&self.key(near)).unwrap_or(self.origin).clone();
        self.settings.problem(Some(origin), what, remedy);
    }
}
