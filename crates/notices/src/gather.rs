//! Turns notices into messages: one mail for many things of a kind, in the words and at the times a tenant wants.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{PgConnection, postgres::PgListener};
use tokio_util::sync::CancellationToken;
use understudy_database::notice::{self, NewMessage, Notice, Settings};
use understudy_protocol::TenantId;

use crate::{NoticesConfig, quiet, template, template::Template, topic::Topic};

/// Something administrators are told of waits so long for more of its kind.
const GATHER: Duration = Duration::from_secs(5);
/// How often is looked, beside being woken.
const LOOK: Duration = Duration::from_secs(2);
/// At most so many notices become one mail, or are taken at once.
const MOST: i64 = 10_000;
/// A mail names so many and counts the rest.
const NAMED: usize = 50;

/// Runs until `shutdown`.
pub(crate) async fn run(config: NoticesConfig, shutdown: CancellationToken) {
    let mut failed = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = watch(&config) => if let Err(error) = outcome {
                if !failed {
                    tracing::warn!(error = format!("{error:#}"), "Could not turn notices into messages; trying again");
                }
                failed = true;
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn watch(config: &NoticesConfig) -> anyhow::Result<()> {
    let mut listener = PgListener::connect_with(&config.pool).await?;
    listener.listen(notice::CHANNEL).await?;
    loop {
        for (tenant, name, topic, audience) in notice::ripe(&config.pool, GATHER.as_secs_f64()).await? {
            gather(config, tenant, &name, &topic, &audience).await?;
        }
        let _ = tokio::time::timeout(LOOK, listener.recv()).await.map_or(Ok(None), |heard| heard.map(Some))?;
    }
}

async fn gather(
    config: &NoticesConfig,
    tenant: TenantId,
    name: &str,
    topic: &str,
    audience: &str,
) -> anyhow::Result<()> {
    let mut db = config.pool.begin().await?;
    let settings = notice::settings(&mut *db, tenant).await?;
    if audience == "administrators" && notice::told_lately(&mut *db, tenant, topic, settings.group_minutes).await? {
        return Ok(());
    }
    let notices = notice::take(&mut db, tenant, topic, audience, MOST).await?;
    let Some(topic) = Topic::named(topic).filter(|_| !notices.is_empty()) else {
        // Of a version that knew more: nobody can be told in words we do not have.
        db.commit().await?;
        return Ok(());
    };
    let telling = Telling { config, tenant, name, topic, settings: &settings, now: Utc::now() };
    telling.hooks(&mut db, &notices).await?;
    if !settings.muted.iter().any(|muted| muted == topic.name) {
        match topic.for_users {
            true => telling.users(&mut db, &notices).await?,
            false => telling.administrators(&mut db, &notices).await?,
        }
    }
    db.commit().await?;
    Ok(())
}

/// One topic of one tenant.
struct Telling<'a> {
    config: &'a NoticesConfig,
    tenant: TenantId,
    name: &'a str,
    topic: Topic,
    settings: &'a Settings,
    now: DateTime<Utc>,
}

impl Telling<'_> {
    async fn users(&self, db: &mut PgConnection, notices: &[Notice]) -> anyhow::Result<()> {
        if !self.settings.notify_users || self.config.relays.is_empty() {
            return Ok(());
        }
        for notice in notices {
            let Some(address) = &notice.address else { continue };
            let values = json!({
                "tenant": self.name,
                "address": address,
                "primary": notice.primary.as_deref().unwrap_or_default(),
                "standby": notice.standby.as_deref().unwrap_or_default(),
                "reason": text(&notice.detail["reason"]),
                "starts_at": text(&notice.detail["starts_at"]),
            });
            let language = notice.language.as_deref().unwrap_or(&self.settings.language);
            for recipient in [Some(address), notice.alternate.as_ref()].into_iter().flatten() {
                self.mail(&mut *db, recipient, language, &values, notice).await?;
            }
        }
        Ok(())
    }

    async fn administrators(&self, db: &mut PgConnection, notices: &[Notice]) -> anyhow::Result<()> {
        if self.config.relays.is_empty() {
            return Ok(());
        }
        let mut recipients = self.settings.administrators.clone();
        recipients.extend(self.config.administrators.iter().cloned());
        recipients.sort_unstable();
        recipients.dedup();
        let values = self.values(notices);
        let first = &notices[0];
        for recipient in recipients {
            self.mail(&mut *db, &recipient, &self.settings.language, &values, first).await?;
        }
        Ok(())
    }

    /// What a mail to administrators is filled with: many of a kind in one.
    fn values(&self, notices: &[Notice]) -> Value {
        let items: Vec<Value> = notices.iter().take(NAMED).map(item).collect();
        let runs: Vec<Value> =
            notices.iter().filter_map(|notice| notice.run.as_ref()).take(NAMED).map(run_item).collect();
        json!({
            "tenant": self.name,
            "count": notices.len(),
            "more": notices.len().saturating_sub(NAMED),
            "public_url": self.config.public_url.as_deref().unwrap_or_default(),
            "items": items,
            "runs": runs,
        })
    }

    async fn mail(
        &self,
        db: &mut PgConnection,
        recipient: &str,
        language: &str,
        values: &Value,
        notice: &Notice,
    ) -> anyhow::Result<()> {
        if recipient.parse::<lettre::Address>().is_err() {
            // A log-in without a domain, such as `ana`: there is no address to write to.
            return Ok(());
        }
        let template = self.template(&mut *db, language).await?;
        let rendered = template::render(&template, values).or_else(|error| {
            tracing::warn!(
                topic = self.topic.name,
                part = error.part,
                error = error.detail,
                "A template of a tenant cannot be filled in; the words built in are used"
            );
            template::render(&Template::built_in(self.topic, language), values)
        });
        let Ok(rendered) = rendered else { return Ok(()) };
        let quiet = self.settings.quiet_from.zip(self.settings.quiet_to).filter(|_| !self.topic.urgent);
        let message = NewMessage {
            topic: self.topic.name.to_owned(),
            channel: "mail",
            recipient: recipient.to_owned(),
            subject: rendered.subject,
            text: rendered.text,
            html: rendered.html,
            body: String::new(),
            mailbox_id: notice.mailbox_id.filter(|_| self.topic.for_users),
            run_id: notice.run_id,
            not_before: quiet.and_then(|(from, to)| quiet::ends(self.now, from, to, self.settings.utc_offset_minutes)),
        };
        notice::post(db, self.tenant, &message, self.settings.per_hour).await?;
        Ok(())
    }

    async fn template(&self, db: &mut PgConnection, language: &str) -> anyhow::Result<Template> {
        let own = notice::templates(db, self.tenant).await?;
        let own = own.into_iter().find(|own| own.topic == self.topic.name && own.language == language);
        Ok(match own {
            Some(own) => Template { subject: own.subject, text: own.text, html: own.html },
            None => Template::built_in(self.topic, language),
        })
    }

    async fn hooks(&self, db: &mut PgConnection, notices: &[Notice]) -> anyhow::Result<()> {
        for hook in &self.config.hooks {
            if !hook.topics.is_empty() && !hook.topics.iter().any(|topic| topic == self.topic.name) {
                continue;
            }
            let items: Vec<Value> = notices.iter().map(item).collect();
            let runs: Vec<&Value> = notices.iter().filter_map(|notice| notice.run.as_ref()).collect();
            let body = json!({
                "type": self.topic.name,
                "timestamp": self.now,
                "data": { "tenant": self.name, "count": items.len(), "items": items, "runs": runs },
            });
            let message = NewMessage {
                topic: self.topic.name.to_owned(),
                channel: "hook",
                recipient: hook.name.clone(),
                body: body.to_string(),
                run_id: notices[0].run_id,
                ..NewMessage::default()
            };
            notice::post(&mut *db, self.tenant, &message, i32::MAX).await?;
        }
        Ok(())
    }
}

/// One thing in a list, as templates see it.
fn item(notice: &Notice) -> Value {
    let detail = &notice.detail;
    let server = ["server", "name"].into_iter().map(|key| text(&detail[key])).find(|name| !name.is_empty());
    let server = server.or_else(|| notice.primary.clone()).unwrap_or_default();
    json!({
        "name": notice.address.as_deref().unwrap_or(&server),
        "address": notice.address.as_deref().unwrap_or_default(),
        "server": server,
        "reason": text(&detail["reason"]),
        "remedy": text(&detail["remedy"]),
        "at": notice.created_at.format("%Y-%m-%d %H:%M").to_string(),
    })
}

/// A run with what it reached, as templates see it.
fn run_item(run: &Value) -> Value {
    let result = &run["result"];
    let none = Vec::new();
    let mailboxes = result["mailboxes"].as_array().unwrap_or(&none);
    let worst = |key: &str| mailboxes.iter().filter_map(|mailbox| mailbox[key].as_f64()).fold(0.0, f64::max);
    let failures: Vec<Value> = mailboxes
        .iter()
        .filter(|mailbox| mailbox["outcome"] == "failed")
        .take(NAMED)
        .map(|mailbox| {
            json!({ "address": text(&mailbox["address"]), "reason": text(&mailbox["reason"]), "remedy": text(&mailbox["remedy"]) })
        })
        .collect();
    json!({
        "id": text(&run["id"]),
        "kind": text(&run["kind"]),
        "state": text(&run["state"]),
        "reason": text(&run["reason"]),
        "requested_by": text(&run["requested_by"]),
        "done": result["done"].as_i64().unwrap_or(0),
        "failed": result["failed"].as_i64().unwrap_or(0),
        "seconds": format!("{:.1}", run["seconds"].as_f64().unwrap_or(0.0)),
        "rpo_seconds": format!("{:.1}", worst("rpo_seconds")),
        "rto_seconds": format!("{:.1}", worst("rto_seconds")),
        "failures": failures,
    })
}

/// A text, or none.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
