//! Whom to log in as: from a server's configuration and a mailbox's address.
//!
//! Keeps true: an address can only ever open its own mailbox; one that could read as somebody else's log-in is refused.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use understudy_protocol::server::{LoginConfig, LoginMethod};

use crate::{Error, Result};

/// How a master log-in is spelled where the configuration does not say.
const MASTER_FORM: &str = "{user}*{master}";

/// Whom to log in as, and with what.
#[derive(Clone, Debug)]
pub enum Login {
    /// `user` with its password; a master log-in is spelled into `user`.
    Password { user: String, password: SecretString },
    /// SASL PLAIN with an authorisation identity (RFC 4616): `authenticate` opens the mailbox of `authorize`.
    Authzid { authorize: String, authenticate: String, password: SecretString },
}

impl Login {
    /// The log-in that `server` wants for the mailbox `address`. Reads the password file.
    pub async fn for_user(server: &LoginConfig, address: &str) -> Result<Self> {
        if address.is_empty() || address.chars().any(char::is_control) {
            return Err(Error::UnsafeAddress { what: "control character, or empty" });
        }
        let file =
            server.password_file.as_deref().ok_or(Error::LoginConfig { reason: "`password_file` is missing" })?;
        let user = || server.user.clone().ok_or(Error::LoginConfig { reason: "`user` is missing" });
        match server.method {
            LoginMethod::Master => {
                let form = server.form.as_deref().unwrap_or(MASTER_FORM);
                let user = master_user(form, address, &user()?)?;
                Ok(Self::Password { user, password: first_line(file).await? })
            }
            LoginMethod::Authzid => Ok(Self::Authzid {
                authorize: address.to_owned(),
                authenticate: user()?,
                password: first_line(file).await?,
            }),
            LoginMethod::Each => {
                let password = line_for(file, address).await?;
                Ok(Self::Password { user: address.to_owned(), password })
            }
        }
    }

    /// The initial response of SASL PLAIN (RFC 4616 §2).
    pub(crate) fn plain(&self) -> SecretString {
        let (authorize, authenticate, password) = match self {
            Self::Password { user, password } => ("", user, password),
            Self::Authzid { authorize, authenticate, password } => (authorize.as_str(), authenticate, password),
        };
        SecretString::from(format!("{authorize}\0{authenticate}\0{}", password.expose_secret()))
    }
}

/// Spells a master log-in. `bob*understudy` as an address would be read as another user's mailbox: refused.
fn master_user(form: &str, address: &str, master: &str) -> Result<String> {
    let (Some(user_at), Some(master_at)) = (form.find("{user}"), form.find("{master}")) else {
        return Err(Error::LoginConfig { reason: "`form` must hold `{user}` and `{master}`" });
    };
    let separator = if user_at < master_at {
        &form[user_at + "{user}".len()..master_at]
    } else {
        &form[master_at + "{master}".len()..user_at]
    };
    if separator.is_empty() {
        return Err(Error::LoginConfig { reason: "`form` must separate `{user}` from `{master}`" });
    }
    // `@`, `.` and the like stand in every address; as part of a longer separator only the whole would be misread.
    let misread = |c: char| !c.is_alphanumeric() && !matches!(c, '@' | '.' | '-' | '_') && address.contains(c);
    if address.contains(separator) || separator.chars().any(misread) {
        return Err(Error::UnsafeAddress { what: "separator of master log-ins in it" });
    }
    // In one pass, so that an address that spells `{master}` stays what it is.
    let filled = if user_at < master_at {
        [&form[..user_at], address, separator, master, &form[master_at + "{master}".len()..]].concat()
    } else {
        [&form[..master_at], master, separator, address, &form[user_at + "{user}".len()..]].concat()
    };
    Ok(filled)
}

async fn read(file: &Path) -> Result<SecretString> {
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|source| Error::PasswordFile { path: file.to_owned(), source })?;
    Ok(SecretString::from(text))
}

async fn first_line(file: &Path) -> Result<SecretString> {
    let text = read(file).await?;
    match text.expose_secret().lines().next() {
        Some(line) if !line.is_empty() => Ok(SecretString::from(line)),
        _ => Err(Error::PasswordFile { path: file.to_owned(), source: std::io::ErrorKind::UnexpectedEof.into() }),
    }
}

async fn line_for(file: &Path, address: &str) -> Result<SecretString> {
    let text = read(file).await?;
    let mut passwords = text.expose_secret().lines().filter_map(|line| line.split_once(':'));
    passwords
        .find(|(of, _)| of.eq_ignore_ascii_case(address))
        .map(|(_, password)| SecretString::from(password))
        .ok_or_else(|| Error::NoPassword { path: file.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(form: &str, address: &str, expected: Option<&str>) {
        assert_eq!(master_user(form, address, "gw").ok().as_deref(), expected);
    }

    #[test]
    fn a_master_log_in_is_never_somebody_elses() {
        check("{user}*{master}", "ann@x.test", Some("ann@x.test*gw"));
        check("{master}+as+{user}", "ann", Some("gw+as+ann"));
        check("{user}%{master}@x.test", "ann", Some("ann%gw@x.test"));
        check("{user}*{master}", "{master}", Some("{master}*gw"));
        check("{user}*{master}", "bob*gw", None);
        check("{user}*{master}", "*", None);
        check("{user}**{master}", "a*b", None);
        check("{user}-as-{master}", "ann-marie", Some("ann-marie-as-gw"));
        check("{user}-as-{master}", "bob-as-ann", None);
        check("{user}{master}", "ann", None);
        check("{user}", "ann", None);
    }

    #[tokio::test]
    async fn passwords_come_from_their_file_and_stay_hidden() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("passwords");
        std::fs::write(&file, "Ann@x.test:se:cret\r\nbob@x.test:other\n").expect("written");
        let mut config =
            LoginConfig { method: LoginMethod::Each, user: None, password_file: Some(file.clone()), form: None };
        let login = Login::for_user(&config, "ann@x.test").await.expect("a log-in");
        assert_eq!(login.plain().expose_secret(), "\0ann@x.test\0se:cret");
        assert!(!format!("{login:?}").contains("se:cret"));
        let error = Login::for_user(&config, "eve@x.test").await.expect_err("no line");
        assert!(error.to_string().contains("passwords"), "{error}");
        assert_eq!(error.kind(), "config");

        config.method = LoginMethod::Authzid;
        config.user = Some("gw".to_owned());
        let login = Login::for_user(&config, "eve@x.test").await.expect("a log-in");
        assert_eq!(login.plain().expose_secret(), "eve@x.test\0gw\0Ann@x.test:se:cret");
        for address in ["", "a\0gw", "a\r\nb"] {
            assert!(Login::for_user(&config, address).await.is_err());
        }
        config.password_file = Some(directory.path().join("none"));
        assert!(Login::for_user(&config, "a").await.expect_err("no file").to_string().contains("none"));
    }
}
