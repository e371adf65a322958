//! The flags that define a mail server, as the JSON the API takes.
//!
//! Keeps true: files are named by absolute paths, since the gateways do not stand where this command was called.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::failure::{Failure, Result};

#[derive(Debug, Args)]
pub(crate) struct Definition {
    /// Trust only the certificate authorities in this PEM file
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The master user, or the SASL authentication identity
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// A file whose first line is the password; with `each`, lines of address:password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// How a master log-in is spelled [default: {user}*{master}]
    #[arg(long)]
    form: Option<String>,
    /// On a primary: the user who may write, for the way home
    #[arg(long, value_name = "USER")]
    return_user: Option<String>,
    /// Like --password-file, for the way home; without --return-user it has lines of address:password
    #[arg(long, value_name = "FILE")]
    return_password_file: Option<PathBuf>,
    /// Where it takes deliveries, lmtp://HOST:PORT
    #[arg(long, value_name = "URL")]
    lmtp: Option<String>,
    /// Where users hand in mail to send, smtp://HOST:PORT; for nginx front doors
    #[arg(long, value_name = "URL")]
    submission: Option<String>,
    /// Base URL of a Dovecot standby's doveadm HTTP API, through which its folders get the primary's UIDVALIDITY and UIDs
    #[arg(long, value_name = "URL")]
    doveadm: Option<String>,
    /// A file whose first line is the key of the management interface
    #[arg(long, value_name = "FILE")]
    doveadm_key_file: Option<PathBuf>,
}

impl Definition {
    /// The whole server, for a new one.
    pub(super) fn create(&self, client: &Client, name: &str, role: &str, imap: &str, login: &str) -> Result<Value> {
        if login != "each" && self.user.is_none() {
            return Err(missing(
                "--user",
                &format!("--login {login} logs in as one user for all mailboxes"),
                "--user NAME",
            ));
        }
        if self.password_file.is_none() {
            return Err(missing("--password-file", "passwords are given in files only", "--password-file FILE"));
        }
        let mut body = self.fields(client, Map::new(), Map::new())?;
        body["login"]["as"] = json!(login);
        if let Some(home) = self.return_login(client, &Value::Null, &body["login"])? {
            body["return_login"] = home;
        }
        body["name"] = json!(name);
        body["role"] = json!(role);
        body["imap"] = json!(imap);
        Ok(body)
    }

    /// Only what changes, as a JSON merge patch on the server as it was `before`.
    pub(super) fn patch(
        &self,
        client: &Client,
        before: &Value,
        imap: Option<&str>,
        login: Option<&str>,
    ) -> Result<Value> {
        let part = |key: &str| before.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
        let mut body = self.fields(client, part("login"), part("manage"))?;
        if let Some(imap) = imap {
            body["imap"] = json!(imap);
        }
        if let Some(login) = login {
            body["login"]["as"] = json!(login);
        }
        if let Some(home) = self.return_login(client, &before["return_login"], &body["login"])? {
            body["return_login"] = home;
        }
        if body["login"].as_object() == before.get("login").and_then(Value::as_object)
            && let Some(fields) = body.as_object_mut()
        {
            fields.remove("login");
        }
        if body.as_object().is_none_or(Map::is_empty) {
            return Err(missing("what to change", "no flag names anything", "for example --imap URL"));
        }
        Ok(body)
    }

    /// The log-in for the way home: spelled like the usual one where nothing else is known.
    fn return_login(&self, client: &Client, before: &Value, usual: &Value) -> Result<Option<Value>> {
        if self.return_user.is_none() && self.return_password_file.is_none() {
            return Ok(None);
        }
        let mut login = before.as_object().or(usual.as_object()).cloned().unwrap_or_default();
        if let Some(user) = &self.return_user {
            login.insert("user".into(), json!(user));
        }
        if let Some(path) = &self.return_password_file {
            login.insert("password_file".into(), json!(readable(client, path, Secrecy::Secret)?));
        }
        if self.return_user.is_none() && before.is_null() {
            // A file of its own without a user: each user's own password, one a line.
            login = Map::from_iter([
                ("as".into(), json!("each")),
                ("password_file".into(), login["password_file"].clone()),
            ]);
        }
        Ok(Some(Value::Object(login)))
    }

    fn fields(&self, client: &Client, mut login: Map<String, Value>, mut manage: Map<String, Value>) -> Result<Value> {
        let mut body = Map::new();
        if let Some(path) = &self.ca {
            body.insert("ca_file".into(), json!(readable(client, path, Secrecy::Public)?));
        }
        if let Some(path) = &self.password_file {
            login.insert("password_file".into(), json!(readable(client, path, Secrecy::Secret)?));
        }
        for (key, value) in [("user", &self.user), ("form", &self.form)] {
            if let Some(value) = value {
                login.insert(key.into(), json!(value));
            }
        }
        body.insert("login".into(), Value::Object(login));
        if let Some(lmtp) = &self.lmtp {
            body.insert("lmtp".into(), json!(lmtp));
        }
        if let Some(submission) = &self.submission {
            body.insert("submission".into(), json!(submission));
        }
        if self.doveadm.is_some() || self.doveadm_key_file.is_some() {
            if let Some(url) = &self.doveadm {
                manage.insert("doveadm".into(), json!(url));
            }
            if let Some(path) = &self.doveadm_key_file {
                manage.insert("key_file".into(), json!(readable(client, path, Secrecy::Secret)?));
            }
            for (key, flag) in [("doveadm", "--doveadm URL"), ("key_file", "--doveadm-key-file FILE")] {
                if !manage.contains_key(key) {
                    return Err(missing(flag, "the management interface needs a URL and a key", flag));
                }
            }
            body.insert("manage".into(), Value::Object(manage));
        }
        Ok(Value::Object(body))
    }
}

fn missing(what: &str, why: &str, flag: &str) -> Failure {
    Failure::usage(format!("{what} is missing"), why, format!("add {flag}"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    Public,
    Secret,
}

/// The absolute path of a file that can be read; says so when others can read a secret too.
fn readable(client: &Client, path: &Path, secrecy: Secrecy) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match File::open(&absolute).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_dir() => Err(Failure::usage(
            format!("{} is a folder", absolute.display()),
            "a file is needed",
            "name the file in it",
        )),
        Ok(metadata) => {
            if secrecy == Secrecy::Secret && metadata.permissions().mode() & 0o004 != 0 {
                eprintln!("warning: everybody on this machine can read {0}\n  do:  chmod 600 {0}", absolute.display());
            }
            Ok(absolute)
        }
        Err(error) if client.is_local() => Err(Failure::usage(
            format!("{} cannot be read", absolute.display()),
            error.to_string(),
            "name a file that the user of `understudy up` can read",
        )),
        // It may well be on the machine of the gateway that will read it.
        Err(error) => {
            eprintln!(
                "warning: {} is not readable here ({error}); it must be where the gateway runs",
                absolute.display()
            );
            Ok(absolute)
        }
    }
}
