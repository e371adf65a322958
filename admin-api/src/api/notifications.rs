//! `/notifications`: what people are told, in which words, when, and what became of it.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use chrono::{DateTime, NaiveTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use understudy_database::{notice, switch};
use understudy_notices::{LANGUAGES, Template as Words, Topic, check, is_address, render};
use understudy_protocol::MailboxId;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    api::mailboxes,
    auth::Caller,
    cursor::{self, Page},
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::{Body, Name, Params, given},
    state::Api,
};

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(settings, set_settings))
        .routes(routes!(templates))
        .routes(routes!(set_template, drop_template))
        .routes(routes!(preview))
        .routes(routes!(deliveries))
        .routes(routes!(announce))
        .routes(routes!(contact, set_contact))
}

/// A tenant's wishes about being told.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"administrators": ["ops@example.org"], "notify_users": true, "language": "en", "quiet_from": "22:00:00", "quiet_to": "06:00:00", "utc_offset_minutes": 60, "group_minutes": 15, "per_hour": 20, "muted": ["differences"]}))]
pub(crate) struct NotificationSettings {
    /// Who is told of faults, stalls, held mailboxes, verdicts and finished runs, besides those the configuration names.
    administrators: Vec<String>,
    /// Whether users of mailboxes are told of changes of side.
    notify_users: bool,
    /// The language of those who have no other.
    #[schema(example = "en")]
    language: String,
    /// Nothing that can wait is sent from this time of day …
    #[schema(value_type = Option<String>, example = "22:00:00")]
    quiet_from: Option<NaiveTime>,
    /// … to this one. Both, or neither.
    #[schema(value_type = Option<String>, example = "06:00:00")]
    quiet_to: Option<NaiveTime>,
    /// How far these times are ahead of UTC.
    utc_offset_minutes: i32,
    /// After a mail about something, more of its kind is collected for so long.
    group_minutes: i32,
    /// No address gets more mails an hour; the rest waits.
    per_hour: i32,
    /// Topics nobody is mailed about.
    muted: Vec<String>,
}

/// The words of a topic in a language.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NotificationTemplate {
    topic: String,
    language: String,
    /// For the user of a mailbox, or else for administrators.
    for_users: bool,
    /// Does not wait for the end of quiet hours.
    urgent: bool,
    /// The tenant's own words, or else those built in.
    own: bool,
    subject: String,
    text: String,
    html: String,
    /// The variables, with made-up values.
    sample: Value,
}

/// A tenant's own words.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"subject": "{{ address }} has moved", "text": "{{ address }} is on {{ standby }} now.", "html": "<p>{{ address }} is on {{ standby }} now.</p>"}))]
pub(crate) struct NewTemplate {
    subject: String,
    text: String,
    html: String,
}

/// Words to be filled in with the topic's sample. What is left out is as it would be sent now.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"topic": "switch_done", "language": "en", "subject": "{{ address }} has moved"}))]
pub(crate) struct PreviewRequest {
    #[schema(example = "switch_done")]
    topic: String,
    #[schema(example = "en")]
    language: String,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    html: Option<String>,
}

/// Words filled in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Preview {
    subject: String,
    text: String,
    html: String,
}

/// A mail or a hook, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Delivery {
    message_id: Uuid,
    topic: String,
    /// `mail` or `hook`.
    channel: String,
    /// An address, or the name of a webhook.
    recipient: String,
    subject: String,
    state: DeliveryState,
    created_at: DateTime<Utc>,
    /// Not tried before then.
    not_before: DateTime<Utc>,
    sent_at: Option<DateTime<Utc>>,
    attempts: i32,
    /// Where it was handed in last.
    via: Option<String>,
    /// What was said there.
    answer: Option<String>,
}

/// How far a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliveryState {
    Waiting,
    Sent,
    Failed,
}

impl DeliveryState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::Failed => "failed",
        }
    }

    fn of(column: &str) -> Self {
        match column {
            "sent" => Self::Sent,
            "failed" => Self::Failed,
            _ => Self::Waiting,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeliveryFilter {
    #[param(inline)]
    state: Option<DeliveryState>,
    /// A part of the address.
    recipient: Option<String>,
    limit: Option<i64>,
    after: Option<String>,
}

/// A switchover to be told ahead, to the users of the mailboxes selected.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"server": "mail-a", "starts_at": "2026-11-28 22:00", "reason": "The server is being renewed."}))]
pub(crate) struct Announcement {
    /// The primary whose mailboxes move; all of the tenant, without it and without a group.
    #[serde(default)]
    server: Option<String>,
    #[serde(default)]
    group: Option<String>,
    /// When, in the words that users shall read.
    #[schema(example = "2026-11-28 22:00")]
    starts_at: String,
    #[serde(default)]
    reason: String,
}

/// How many users are told.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Announced {
    mailboxes: i64,
}

/// Where else a mailbox's user is told.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"alternate": "ana@example.net", "language": "de"}))]
pub(crate) struct Contact {
    /// An address outside the mailbox.
    #[serde(default)]
    #[schema(example = "ana@example.net")]
    alternate: Option<String>,
    /// The tenant's, when left out.
    #[serde(default)]
    #[schema(example = "de")]
    language: Option<String>,
}

fn address(pointer: String, text: &str, errors: &mut Vec<ProblemItem>) {
    if text.len() > 254 || !is_address(text) {
        errors.push(ProblemItem::at(pointer, format!("`{text}` is no mail address")));
    }
}

fn language(pointer: &str, text: &str, errors: &mut Vec<ProblemItem>) {
    if !LANGUAGES.contains(&text) {
        errors.push(ProblemItem::at(pointer, format!("one of {}", LANGUAGES.join(", "))));
    }
}

fn topic(name: &str) -> Result<Topic> {
    Topic::named(name).ok_or_else(|| {
        let nearest = crate::nearest::nearest(name, Topic::ALL.iter().map(|topic| topic.name));
        ApiError::not_found("topic", name, nearest, "`GET /api/v1/notifications/templates` names them all")
    })
}

fn refuse(errors: Vec<ProblemItem>) -> Result<()> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(errors)) }
}

/// A tenant's wishes.
#[utoipa::path(get, path = "/api/v1/notifications/settings", tag = "notifications",
    responses((status = 200, body = NotificationSettings)))]
async fn settings(State(api): State<Api>, caller: Caller) -> Result<Json<NotificationSettings>> {
    let settings = notice::settings(&api.pool, caller.tenant).await?;
    Ok(Json(NotificationSettings {
        administrators: settings.administrators,
        notify_users: settings.notify_users,
        language: settings.language,
        quiet_from: settings.quiet_from,
        quiet_to: settings.quiet_to,
        utc_offset_minutes: settings.utc_offset_minutes,
        group_minutes: settings.group_minutes,
        per_hour: settings.per_hour,
        muted: settings.muted,
    }))
}

/// Sets all of a tenant's wishes.
#[utoipa::path(put, path = "/api/v1/notifications/settings", tag = "notifications", request_body = NotificationSettings,
    responses((status = 200, body = NotificationSettings), (status = 422, body = Problem)))]
async fn set_settings(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NotificationSettings>,
) -> Result<Json<NotificationSettings>> {
    let mut errors = Vec::new();
    for (index, text) in new.administrators.iter().enumerate() {
        address(format!("/administrators/{index}"), text, &mut errors);
    }
    if new.administrators.len() > 50 {
        errors.push(ProblemItem::at("/administrators", "at most 50; use a mailing list"));
    }
    language("/language", &new.language, &mut errors);
    for (index, name) in new.muted.iter().enumerate() {
        if Topic::named(name).is_none() {
            errors.push(ProblemItem::at(format!("/muted/{index}"), format!("`{name}` is no topic")));
        }
    }
    if new.quiet_from.is_some() != new.quiet_to.is_some() {
        errors.push(ProblemItem::at("/quiet_to", "quiet hours have a beginning and an end, or neither"));
    }
    for (pointer, number, least, most) in [
        ("/utc_offset_minutes", new.utc_offset_minutes, -840, 840),
        ("/group_minutes", new.group_minutes, 0, 1440),
        ("/per_hour", new.per_hour, 1, 1000),
    ] {
        if !(least..=most).contains(&number) {
            errors.push(ProblemItem::at(pointer, format!("from {least} to {most}")));
        }
    }
    refuse(errors)?;
    let kept = notice::Settings {
        administrators: new.administrators.clone(),
        notify_users: new.notify_users,
        language: new.language.clone(),
        quiet_from: new.quiet_from,
        quiet_to: new.quiet_to,
        utc_offset_minutes: new.utc_offset_minutes,
        group_minutes: new.group_minutes,
        per_hour: new.per_hour,
        muted: new.muted.clone(),
    };
    let mut db = caller.begin(&api, "").await?;
    notice::set_settings(&mut *db, caller.tenant, &kept).await?;
    db.commit().await?;
    Ok(Json(new))
}

/// Every topic in every language, in the tenant's own words or in those built in.
#[utoipa::path(get, path = "/api/v1/notifications/templates", tag = "notifications",
    responses((status = 200, body = Page<NotificationTemplate>)))]
async fn templates(State(api): State<Api>, caller: Caller) -> Result<Json<Page<NotificationTemplate>>> {
    let own = notice::templates(&api.pool, caller.tenant).await?;
    let mut items = Vec::new();
    for topic in Topic::ALL {
        for language in LANGUAGES {
            let mine = own.iter().find(|own| own.topic == topic.name && own.language == language);
            items.push(shown(topic, language, mine));
        }
    }
    Ok(Json(Page { items, next: None }))
}

fn shown(topic: Topic, language: &str, own: Option<&notice::Template>) -> NotificationTemplate {
    let words = own.map_or_else(|| Words::built_in(topic, language), words);
    NotificationTemplate {
        topic: topic.name.to_owned(),
        language: language.to_owned(),
        for_users: topic.for_users,
        urgent: topic.urgent,
        own: own.is_some(),
        subject: words.subject,
        text: words.text,
        html: words.html,
        sample: topic.sample(),
    }
}

fn words(own: &notice::Template) -> Words {
    Words { subject: own.subject.clone(), text: own.text.clone(), html: own.html.clone() }
}

/// Sets a tenant's own words. They are tried with the topic's sample: a variable that is not there is refused.
#[utoipa::path(put, path = "/api/v1/notifications/templates/{topic}/{language}", tag = "notifications",
    params(("topic" = String, Path), ("language" = String, Path)), request_body = NewTemplate,
    responses((status = 200, body = NotificationTemplate), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn set_template(
    State(api): State<Api>,
    caller: Caller,
    Path((name, spoken)): Path<(String, String)>,
    Body(new): Body<NewTemplate>,
) -> Result<Json<NotificationTemplate>> {
    let topic = topic(&name)?;
    let mut errors = Vec::new();
    language("/language", &spoken, &mut errors);
    let words = Words { subject: new.subject, text: new.text, html: new.html };
    errors.extend(wrong_words(topic, &words));
    refuse(errors)?;
    let own = notice::Template {
        topic: topic.name.to_owned(),
        language: spoken,
        subject: words.subject,
        text: words.text,
        html: words.html,
    };
    let mut db = caller.begin(&api, "").await?;
    notice::set_template(&mut *db, caller.tenant, &own).await?;
    db.commit().await?;
    Ok(Json(shown(topic, &own.language, Some(&own))))
}

fn wrong_words(topic: Topic, words: &Words) -> Vec<ProblemItem> {
    let mut errors: Vec<ProblemItem> = check(topic, words)
        .into_iter()
        .map(|error| ProblemItem::at(format!("/{}", error.part), error.detail))
        .collect();
    if words.subject.trim().is_empty() {
        errors.push(ProblemItem::at("/subject", "a mail has a subject"));
    }
    errors
}

/// Goes back to the words built in. Safe to repeat.
#[utoipa::path(delete, path = "/api/v1/notifications/templates/{topic}/{language}", tag = "notifications",
    params(("topic" = String, Path), ("language" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
async fn drop_template(
    State(api): State<Api>,
    caller: Caller,
    Path((name, spoken)): Path<(String, String)>,
) -> Result<StatusCode> {
    let topic = topic(&name)?;
    let mut db = caller.begin(&api, "").await?;
    notice::drop_template(&mut *db, caller.tenant, topic.name, &spoken).await?;
    db.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Fills words in with the topic's sample, as a mail would be. Nothing is kept or sent.
#[utoipa::path(post, path = "/api/v1/notifications/preview", tag = "notifications", request_body = PreviewRequest,
    responses((status = 200, body = Preview), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn preview(State(api): State<Api>, caller: Caller, Body(asked): Body<PreviewRequest>) -> Result<Json<Preview>> {
    let topic = topic(&asked.topic)?;
    let mut errors = Vec::new();
    language("/language", &asked.language, &mut errors);
    refuse(errors)?;
    let own = notice::templates(&api.pool, caller.tenant).await?;
    let own = own.iter().find(|own| own.topic == topic.name && own.language == asked.language);
    let now = own.map_or_else(|| Words::built_in(topic, &asked.language), words);
    let words = Words {
        subject: asked.subject.unwrap_or(now.subject),
        text: asked.text.unwrap_or(now.text),
        html: asked.html.unwrap_or(now.html),
    };
    refuse(wrong_words(topic, &words))?;
    let rendered = render(&words, &topic.sample())
        .map_err(|error| ApiError::invalid(vec![ProblemItem::at(format!("/{}", error.part), error.detail)]))?;
    Ok(Json(Preview { subject: rendered.subject, text: rendered.text, html: rendered.html }))
}

/// What was sent, newest first: to whom, when, by which relay, and what was answered.
#[utoipa::path(get, path = "/api/v1/notifications/deliveries", tag = "notifications", params(DeliveryFilter),
    responses((status = 200, body = Page<Delivery>)))]
async fn deliveries(
    State(api): State<Api>,
    caller: Caller,
    Params(filter): Params<DeliveryFilter>,
) -> Result<Json<Page<Delivery>>> {
    let limit = cursor::limit(filter.limit)?;
    let after: Option<(DateTime<Utc>, Uuid)> = cursor::decode(filter.after.as_deref())?;
    let state = filter.state.map(DeliveryState::as_str);
    let recipient = given(filter.recipient.as_ref());
    let rows = notice::log(&api.pool, caller.tenant, state, recipient, after, limit + 1).await?;
    let show = |row: notice::Logged| Delivery {
        message_id: row.message_id,
        topic: row.topic,
        channel: row.channel,
        recipient: row.recipient,
        subject: row.subject,
        state: DeliveryState::of(&row.state),
        created_at: row.created_at,
        not_before: row.not_before,
        sent_at: row.sent_at,
        attempts: row.attempts,
        via: row.via,
        answer: row.answer,
    };
    Ok(Json(Page::of(rows, limit, |row| (row.created_at, row.message_id), show)))
}

/// Tells users ahead that their mailboxes will be moved. Nothing is moved by it.
#[utoipa::path(post, path = "/api/v1/notifications/announcements", tag = "notifications", request_body = Announcement,
    responses((status = 202, body = Announced), (status = 422, body = Problem)))]
async fn announce(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<Announcement>,
) -> Result<(StatusCode, Json<Announced>)> {
    let mut errors = Vec::new();
    for (pointer, text, least, most) in [("/starts_at", &new.starts_at, 1, 60), ("/reason", &new.reason, 0, 500)] {
        if text.trim().len() < least || text.len() > most || text.chars().any(char::is_control) {
            errors.push(ProblemItem::at(pointer, format!("{least} to {most} characters on one line")));
        }
    }
    refuse(errors)?;
    if caller.scope.group.is_some() && caller.scope.group != new.group {
        let detail = "you look after the mailboxes of one group";
        return Err(ApiError::new(Kind::Forbidden, detail, "name that group in `group`"));
    }
    let mut db = caller.begin(&api, &new.reason).await?;
    let selector =
        switch::Selector { server: new.server.as_deref(), group: new.group.as_deref(), ..switch::Selector::default() };
    let selected = switch::selected(&mut *db, &caller.scope, &selector).await?;
    let ids: Vec<i64> = selected.into_iter().map(|(mailbox, _)| mailbox.0).collect();
    let detail = json!({ "starts_at": new.starts_at.trim(), "reason": new.reason.trim() });
    let mailboxes = notice::announce(&mut *db, caller.tenant, &ids, "switch_announced", &detail).await?;
    db.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(Announced { mailboxes })))
}

/// Where else the mailbox's user is told, and in which language.
#[utoipa::path(get, path = "/api/v1/mailboxes/{address}/contact", tag = "notifications",
    params(("address" = String, Path)),
    responses((status = 200, body = Contact), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn contact(State(api): State<Api>, caller: Caller, Name(text): Name) -> Result<Json<Contact>> {
    let mailbox = mailboxes::find(&api, &caller, &text, None).await?;
    let contact = notice::contact(&api.pool, MailboxId(mailbox.mailbox_id)).await?;
    Ok(Json(Contact { alternate: contact.alternate, language: contact.language }))
}

/// Sets where else the mailbox's user is told, and in which language.
#[utoipa::path(put, path = "/api/v1/mailboxes/{address}/contact", tag = "notifications",
    params(("address" = String, Path)), request_body = Contact,
    responses((status = 200, body = Contact), (status = 404, body = Problem), (status = 409, body = Problem),
              (status = 422, body = Problem)))]
async fn set_contact(
    State(api): State<Api>,
    caller: Caller,
    Name(text): Name,
    Body(new): Body<Contact>,
) -> Result<Json<Contact>> {
    let mailbox = mailboxes::find(&api, &caller, &text, None).await?;
    let mut errors = Vec::new();
    if let Some(alternate) = &new.alternate {
        address("/alternate".to_owned(), alternate, &mut errors);
    }
    if let Some(spoken) = &new.language {
        language("/language", spoken, &mut errors);
    }
    refuse(errors)?;
    let kept = notice::Contact { alternate: new.alternate.clone(), language: new.language.clone() };
    let mut db = caller.begin(&api, "").await?;
    notice::set_contact(&mut *db, MailboxId(mailbox.mailbox_id), &kept).await?;
    db.commit().await?;
    Ok(Json(new))
}
