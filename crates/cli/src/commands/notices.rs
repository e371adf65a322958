//! What telling people needs, with the secrets that its configuration names.

use secrecy::SecretString;
use understudy_database::PgPool;
use understudy_notices::{Hook, NoticesConfig, Relay, RelayLogin};
use understudy_webhook::Target;

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::running::first_line;

/// Reads what is in files; fails where one cannot be read.
pub(super) fn notices(config: &Config, pool: PgPool) -> Result<NoticesConfig> {
    let settings = &config.notices;
    let login = match &settings.login {
        Some((user, file)) => {
            let password = SecretString::from(first_line(file, "the password for the mail relays")?);
            Some(RelayLogin { user: user.clone(), password })
        }
        None => None,
    };
    let authorities = match &settings.ca_file {
        Some(file) => Some(std::fs::read(file).map_err(|error| {
            Failure::usage(
                format!("{} cannot be read", file.display()),
                error.to_string(),
                "name a readable file with authorities in PEM as `ca_file` under [smtp]",
            )
        })?),
        None => None,
    };
    let relay = |url: &String| Relay::new(url, login.clone(), authorities.clone());
    let relays = settings.relays.iter().map(relay).collect::<std::result::Result<Vec<_>, _>>();
    let relays =
        relays.map_err(|why| Failure::usage("a mail relay cannot be used", why, "correct `relays` under [smtp]"))?;
    let mut hooks = Vec::new();
    for hook in &settings.webhooks {
        let secret = SecretString::from(first_line(&hook.secret_file, "the key of a webhook")?);
        let target = Target { url: hook.url.clone(), secret, allowed: hook.allowed.clone() };
        hooks.push(Hook { name: hook.name.clone(), target, topics: hook.topics.clone() });
    }
    Ok(NoticesConfig {
        pool,
        relays,
        sender: settings.sender.clone(),
        administrators: settings.administrators.clone(),
        hooks,
        public_url: config.public_url.clone(),
        data_dir: config.data_dir.clone(),
    })
}
