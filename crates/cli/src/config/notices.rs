//! `[smtp]` and `[[webhook]]`: by which relays people are told, and which programs.
//!
//! Keeps true: a hook that comes out of here goes to an address that is allowed.

use std::path::PathBuf;

use understudy_notices::{Relay, Topic};
use understudy_webhook::{Allowed, check_url};
use url::Url;

use super::{path, settings::Settings};

/// How people and programs are told, before any secret was read.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    pub(crate) relays: Vec<String>,
    /// The log-in at the relays, and the file with its password.
    pub(crate) login: Option<(String, PathBuf)>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) sender: String,
    pub(crate) administrators: Vec<String>,
    pub(crate) webhooks: Vec<Webhook>,
}

/// One `[[webhook]]`.
#[derive(Debug)]
pub(crate) struct Webhook {
    pub(crate) name: String,
    pub(crate) url: Url,
    pub(crate) secret_file: PathBuf,
    pub(crate) topics: Vec<String>,
    pub(crate) allowed: Allowed,
}

impl Notices {
    pub(crate) fn secret_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.webhooks.iter().map(|hook| hook.secret_file.clone()).collect();
        files.extend(self.login.as_ref().map(|(_, file)| file.clone()));
        files
    }
}

pub(super) fn notices(settings: &mut Settings) -> Notices {
    let list = |settings: &Settings, key: &str| settings.list(key).map(<[String]>::to_vec).unwrap_or_default();
    let (user, file) = (settings.text("smtp.user").map(str::to_owned), path(settings, "smtp.password_file"));
    if user.is_some() != file.is_some() {
        let origin = settings.origin("smtp.user").or(settings.origin("smtp.password_file")).cloned();
        settings.problem(origin, "\"smtp.user\" and \"smtp.password_file\" go together", "set both or neither");
    }
    let relays = list(settings, "smtp.relays");
    for relay in &relays {
        if let Err(why) = Relay::new(relay, None, None) {
            let origin = settings.origin("smtp.relays").cloned();
            settings.problem(
                origin,
                format!("\"smtp.relays\": {why}"),
                "write relays as smtp://HOST:587 or smtps://HOST:465",
            );
        }
    }
    let sender = settings.text("smtp.from").unwrap_or("Understudy <understudy@localhost>").to_owned();
    Notices {
        relays,
        login: user.zip(file),
        ca_file: path(settings, "smtp.ca_file"),
        sender,
        administrators: list(settings, "smtp.administrators"),
        webhooks: webhooks(settings),
    }
}

fn webhooks(settings: &mut Settings) -> Vec<Webhook> {
    let mut webhooks: Vec<Webhook> = Vec::new();
    for (number, origin) in settings.tables("webhook").to_vec().into_iter().enumerate() {
        let key = |name: &str| format!("webhook.{number}.{name}");
        let text = |settings: &Settings, name: &str| settings.text(&key(name)).map(str::to_owned);
        let list =
            |settings: &Settings, name: &str| settings.list(&key(name)).map(<[String]>::to_vec).unwrap_or_default();
        let url = text(settings, "url").and_then(|url| Url::parse(&url).ok());
        let (Some(name), Some(url), Some(secret_file)) =
            (text(settings, "name"), url, path(settings, &key("secret_file")))
        else {
            let what = "this [[webhook]] lacks \"name\", \"url\" or \"secret_file\"";
            settings.problem(Some(origin), what, "add all three; the file holds the key that hooks are signed with");
            continue;
        };
        if webhooks.iter().any(|earlier| earlier.name == name) {
            let what = format!("a second webhook is named \"{name}\"");
            settings.problem(Some(origin), what, "give every [[webhook]] a name of its own");
            continue;
        }
        let topics = list(settings, "topics");
        if let Some(unknown) = topics.iter().find(|topic| Topic::named(topic).is_none()) {
            let names: Vec<&str> = Topic::ALL.iter().map(|topic| topic.name).collect();
            let what = format!("\"webhook.topics\" names {unknown}, which is no topic");
            settings.problem(Some(origin.clone()), what, format!("choose from {}", names.join(", ")));
        }
        let allowed = Allowed::try_from(list(settings, "allow").as_slice()).unwrap_or_else(|why| {
            settings.problem(
                Some(origin.clone()),
                format!("\"webhook.allow\": {why}"),
                "write networks such as 10.1.0.0/16",
            );
            Allowed::default()
        });
        if let Err(error) = check_url(&url, &allowed) {
            let what = format!("the webhook \"{name}\" cannot be sent: {error}");
            settings.problem(Some(origin), what, "use https:// and a public address, or name its network in `allow`");
        }
        webhooks.push(Webhook { name, url, secret_file, topics, allowed });
    }
    webhooks
}
