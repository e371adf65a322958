//! `/mailboxes`: what every interface shows of a protected mailbox. Protecting is in `protect`, doing in `actions`.

use axum::{Json, extract::State as Shared};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use understudy_database::{
    mailbox::{self, Filter, Match},
    part,
};
use understudy_protocol::{FolderPath, MailboxId};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::{policies, servers},
    auth::Caller,
    cursor::{self, Page},
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::{Body, Name, Params, given},
    nearest::nearest,
    state::Api,
};

/// The longest name of a policy or a group.
const LONGEST_LABEL: usize = 100;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, change, unprotect)).routes(routes!(problems))
}

/// A mailbox's state: what a person should know at one glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = MailboxState)]
pub(crate) enum State {
    Seeding,
    Mirroring,
    Paused,
    Held,
    Faulted,
    SwitchingOver,
    OnStandby,
    SwitchingBack,
}

impl State {
    pub(crate) const ALL: [Self; 8] = [
        Self::Seeding,
        Self::Mirroring,
        Self::Paused,
        Self::Held,
        Self::Faulted,
        Self::SwitchingOver,
        Self::OnStandby,
        Self::SwitchingBack,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Seeding => "seeding",
            Self::Mirroring => "mirroring",
            Self::Paused => "paused",
            Self::Held => "held",
            Self::Faulted => "faulted",
            Self::SwitchingOver => "switching_over",
            Self::OnStandby => "on_standby",
            Self::SwitchingBack => "switching_back",
        }
    }

    /// From the column, which is made of these.
    fn from_column(state: &str) -> Self {
        Self::ALL.into_iter().find(|known| known.as_str() == state).unwrap_or(Self::Faulted)
    }
}

/// A mailbox, as every interface shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Mailbox {
    #[schema(example = "ana@example.org")]
    address: String,
    primary: String,
    standby: String,
    /// The log-in on the standby.
    standby_address: String,
    policy: String,
    group: String,
    state: State,
    active_side: Side,
    epoch: i64,
    lag: Lag,
    progress: Progress,
    journal: Journal,
    /// How changes are noticed, such as `notify+qresync`.
    capability: String,
    /// Every folder has the primary's UIDVALIDITY and UIDs on the standby: mail programs notice no change of side.
    uid_continuity: bool,
    /// Folders that should have and lost it.
    uid_continuity_lost: Vec<LostFolder>,
    /// How many messages the standby does not hold as they are.
    set_aside: i64,
    protected_at: DateTime<Utc>,
    /// When the whole mailbox was last looked at.
    swept_at: Option<DateTime<Utc>>,
    last_transaction_at: Option<DateTime<Utc>>,
    /// When both sides were last compared and found equal.
    last_verified_at: Option<DateTime<Utc>>,
    /// How many differences the last comparison found; null before the first.
    differences: Option<i64>,
    /// Where the pipeline stopped, when it has not proven itself for a minute; null while it has.
    unproven: Option<Unproven>,
    /// What its messages came to on the link.
    traffic: Traffic,
    /// What stands in the way; null when nothing does.
    detail: Option<Detail>,
}

/// What became of messages on the link since protection began, in bytes.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct Traffic {
    /// Of the messages, as mail servers hold them; the others add up to it.
    message_bytes: u64,
    /// Crossed the link.
    new_bytes: u64,
    /// Had been there already: a part or a message that another one brought.
    deduplicated_bytes: u64,
    /// Saved by unwrapping base64 and by compression.
    compressed_bytes: u64,
}

impl From<part::Traffic> for Traffic {
    fn from(traffic: part::Traffic) -> Self {
        Self {
            message_bytes: traffic.messages,
            new_bytes: traffic.new,
            deduplicated_bytes: traffic.deduplicated,
            compressed_bytes: traffic.compressed,
        }
    }
}

/// A folder whose UIDs on the standby are not the primary's.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LostFolder {
    folder: String,
    reason: String,
}

impl LostFolder {
    fn all(column: Value) -> Vec<Self> {
        #[derive(Deserialize)]
        struct Lost {
            path: FolderPath,
            reason: String,
        }
        let lost: Vec<Lost> = serde_json::from_value(column).unwrap_or_default();
        lost.into_iter().map(|lost| Self { folder: lost.path.to_string(), reason: lost.reason }).collect()
    }
}

/// Where the user works.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Side {
    Primary,
    Standby,
}

/// What is not yet applied.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct Lag {
    pub(crate) transactions: i64,
    /// Age of the oldest.
    pub(crate) seconds: f64,
    pub(crate) bytes: i64,
}

/// Of the first full copy. Totals are 0 while unknown.
#[derive(Debug, Serialize, ToSchema)]
struct Progress {
    messages_done: i64,
    messages_total: i64,
    bytes_done: i64,
    bytes_total: i64,
}

/// The last sequence numbers.
#[derive(Debug, Serialize, ToSchema)]
struct Journal {
    captured: i64,
    received: i64,
    applied: i64,
}

/// One sentence of why, one of what to do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Detail {
    pub(crate) kind: String,
    pub(crate) reason: String,
    pub(crate) remedy: String,
}

/// A pipeline that has not proven itself.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Unproven {
    /// `source_gateway`, `link`, `primary`, `shipping` or `standby`; of a canary also `capture` or `visible`.
    place: String,
    since: DateTime<Utc>,
    reason: String,
    remedy: String,
}

impl Detail {
    pub(crate) fn of(trouble: &Value) -> Self {
        let text = |name: &str| trouble[name].as_str().unwrap_or_default().to_owned();
        Self { kind: text("kind"), reason: text("reason"), remedy: text("remedy") }
    }
}

impl From<mailbox::Mailbox> for Mailbox {
    fn from(mailbox: mailbox::Mailbox) -> Self {
        Self {
            address: mailbox.address,
            primary: mailbox.primary,
            standby: mailbox.standby,
            standby_address: mailbox.standby_address,
            policy: mailbox.policy,
            group: mailbox.group,
            state: State::from_column(&mailbox.state),
            active_side: if mailbox.active_side == "standby" { Side::Standby } else { Side::Primary },
            epoch: mailbox.epoch,
            lag: Lag {
                transactions: mailbox.captured_seq - mailbox.applied_seq,
                seconds: mailbox.lag_seconds,
                bytes: mailbox.lag_bytes,
            },
            progress: Progress {
                messages_done: mailbox.messages_done,
                messages_total: mailbox.messages_total,
                bytes_done: mailbox.bytes_done,
                bytes_total: mailbox.bytes_total,
            },
            journal: Journal {
                captured: mailbox.captured_seq,
                received: mailbox.received_seq,
                applied: mailbox.applied_seq,
            },
            capability: mailbox.capability,
            uid_continuity: mailbox.uid_continuity,
            uid_continuity_lost: LostFolder::all(mailbox.continuity_lost),
            set_aside: mailbox.set_aside,
            protected_at: mailbox.created_at,
            swept_at: mailbox.swept_at,
            last_transaction_at: mailbox.last_transaction_at,
            last_verified_at: mailbox.last_verified_at,
            differences: mailbox.differences,
            unproven: mailbox.unproven.and_then(|unproven| serde_json::from_value(unproven).ok()),
            traffic: mailbox.traffic.and_then(|traffic| serde_json::from_value(traffic).ok()).unwrap_or_default(),
            detail: mailbox.trouble.as_ref().map(Detail::of),
        }
    }
}

/// How a mailbox is to be treated from now on; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"group": "board"}))]
pub(crate) struct MailboxChange {
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    group: Option<String>,
}

/// A mailbox taken out of protection.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Unprotected {
    address: String,
    primary: String,
    standby: String,
    standby_address: String,
    unprotected_at: DateTime<Utc>,
    /// The copy on the standby stays as it was last applied.
    standby_kept: bool,
}

/// A message that the standby does not hold as it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SetAside {
    /// For people: components joined with `/`.
    folder: String,
    path: Vec<String>,
    /// On the primary.
    uid: i64,
    size: i64,
    /// `refused` or `altered`.
    kind: String,
    reason: String,
}

impl From<mailbox::SetAside> for SetAside {
    fn from(message: mailbox::SetAside) -> Self {
        Self {
            folder: message.path.to_string(),
            path: message.path.components().to_vec(),
            uid: message.uid,
            size: message.size,
            kind: message.kind,
            reason: message.reason,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    state: Option<State>,
    /// Name of the primary or the standby.
    server: Option<String>,
    group: Option<String>,
    /// A part of the address, in any case.
    q: Option<String>,
    limit: Option<i64>,
    after: Option<String>,
}

/// Which of several mailboxes with the same address is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WhichParams {
    /// Name of the primary, where the address is protected on several.
    pub(crate) primary: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UnprotectParams {
    /// Name of the primary, where the address is protected on several.
    primary: Option<String>,
    /// The copy on the standby always stays; `false` is refused.
    keep_standby: Option<bool>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ProblemsParams {
    /// Name of the primary, where the address is protected on several.
    primary: Option<String>,
    limit: Option<i64>,
    after: Option<String>,
}

/// Protected mailboxes, by address and primary.
#[utoipa::path(get, path = "/api/v1/mailboxes", tag = "mailboxes", params(ListParams),
    responses((status = 200, body = Page<Mailbox>), (status = 404, body = Problem)))]
async fn list(
    Shared(api): Shared<Api>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Mailbox>>> {
    let limit = cursor::limit(params.limit)?;
    let after: Option<(String, String)> = cursor::decode(params.after.as_deref())?;
    let server = given(params.server.as_ref());
    if let Some(name) = server {
        servers::find(&api, &caller, name).await?;
    }
    let filter = Filter {
        state: params.state.map(State::as_str),
        server,
        group: given(params.group.as_ref()),
        part: given(params.q.as_ref()),
        after: after.as_ref().map(|(address, primary)| (address.as_str(), primary.as_str())),
        limit: limit + 1,
    };
    let mailboxes = mailbox::list(&api.pool, &caller.scope, &filter).await?;
    let key = |mailbox: &mailbox::Mailbox| (mailbox.address.clone(), mailbox.primary.clone());
    Ok(Json(Page::of(mailboxes, limit, key, Mailbox::from)))
}

/// One mailbox.
#[utoipa::path(get, path = "/api/v1/mailboxes/{address}", tag = "mailboxes",
    params(("address" = String, Path), WhichParams),
    responses((status = 200, body = Mailbox), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn get(
    Shared(api): Shared<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
) -> Result<Json<Mailbox>> {
    let mailbox = find(&api, &caller, &address, which.primary.as_deref()).await?;
    Ok(Json(mailbox.into()))
}

/// Changes policy or group.
#[utoipa::path(patch, path = "/api/v1/mailboxes/{address}", tag = "mailboxes",
    params(("address" = String, Path), WhichParams), request_body = MailboxChange,
    responses((status = 200, body = Mailbox), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn change(
    Shared(api): Shared<Api>,
    caller: Caller,
    Name(address): Name,
    Params(which): Params<WhichParams>,
    Body(change): Body<MailboxChange>,
) -> Result<Json<Mailbox>> {
    let mut errors = Vec::new();
    errors.extend(change.policy.as_deref().and_then(|policy| label_problem("/policy", policy)));
    errors.extend(change.group.as_deref().filter(|group| !group.is_empty()).and_then(|g| label_problem("/group", g)));
    if let Some(policy) = change.policy.as_deref().filter(|_| errors.is_empty()) {
        errors.extend(policies::missing(&api, &caller, "/policy", policy).await?);
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let mailbox = find(&api, &caller, &address, which.primary.as_deref()).await?;
    let id = MailboxId(mailbox.mailbox_id);
    let mut transaction = caller.begin(&api, "").await?;
    mailbox::update(&mut transaction, id, change.policy.as_deref(), change.group.as_deref()).await?;
    transaction.commit().await?;
    Ok(Json(shown(&api, id).await?))
}

/// Takes a mailbox out of protection. What is on the standby stays there.
#[utoipa::path(delete, path = "/api/v1/mailboxes/{address}", tag = "mailboxes",
    params(("address" = String, Path), UnprotectParams),
    responses((status = 200, body = Unprotected), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn unprotect(
    Shared(api): Shared<Api>,
    caller: Caller,
    Name(address): Name,
    Params(params): Params<UnprotectParams>,
) -> Result<Json<Unprotected>> {
    if params.keep_standby == Some(false) {
        return Err(ApiError::new(
            Kind::Invalid,
            "Understudy does not delete mail from a standby",
            "unprotect the mailbox, then delete it with the standby server's own tools",
        ));
    }
    let mailbox = find(&api, &caller, &address, params.primary.as_deref()).await?;
    if !matches!(mailbox.phase.as_str(), "seeding" | "mirroring") {
        return Err(ApiError::new(
            Kind::Conflict,
            "the user of this mailbox works on the standby, or is being moved",
            "bring the mailbox home first: `understudy switchback`; without protection its log-ins go to the primary",
        ));
    }
    let mut transaction = caller.begin(&api, "").await?;
    let at = mailbox::unprotect(&mut transaction, MailboxId(mailbox.mailbox_id), &caller.name).await?;
    transaction.commit().await?;
    Ok(Json(Unprotected {
        address: mailbox.address,
        primary: mailbox.primary,
        standby: mailbox.standby,
        standby_address: mailbox.standby_address,
        unprotected_at: at,
        standby_kept: true,
    }))
}

/// The messages that the standby does not hold as they are, each with the reason.
#[utoipa::path(get, path = "/api/v1/mailboxes/{address}/problems", tag = "mailboxes",
    params(("address" = String, Path), ProblemsParams),
    responses((status = 200, body = Page<SetAside>), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn problems(
    Shared(api): Shared<Api>,
    caller: Caller,
    Name(address): Name,
    Params(params): Params<ProblemsParams>,
) -> Result<Json<Page<SetAside>>> {
    let limit = cursor::limit(params.limit)?;
    let after = cursor::decode(params.after.as_deref())?;
    let mailbox = find(&api, &caller, &address, params.primary.as_deref()).await?;
    let messages = mailbox::set_aside(&api.pool, MailboxId(mailbox.mailbox_id), after, limit + 1).await?;
    Ok(Json(Page::of(messages, limit, |message| (message.folder_id, message.uid), SetAside::from)))
}

/// What is wrong with the name of a policy or a group.
pub(crate) fn label_problem(pointer: &str, label: &str) -> Option<ProblemItem> {
    let good = !label.is_empty() && label.trim() == label && label.len() <= LONGEST_LABEL;
    let good = good && !label.chars().any(char::is_control);
    let detail = format!("a name has 1 to {LONGEST_LABEL} characters and no space at its ends");
    (!good).then(|| ProblemItem::at(pointer, detail))
}

/// A mailbox as it now is.
pub(crate) async fn shown(api: &Api, mailbox: MailboxId) -> Result<Mailbox> {
    let mailbox = mailbox::get(&api.pool, mailbox).await?;
    mailbox.map(Mailbox::from).ok_or_else(|| {
        ApiError::new(Kind::NotFound, "the mailbox is protected no longer", "`understudy mailbox list` names them all")
    })
}

/// The mailbox an address means.
pub(crate) async fn find(api: &Api, caller: &Caller, address: &str, primary: Option<&str>) -> Result<mailbox::Mailbox> {
    if let Some(name) = primary {
        servers::find(api, caller, name).await?;
    }
    let matches = mailbox::matching(&api.pool, &caller.scope, &[address.to_owned()], primary).await?;
    let meant = meant(address, &matches);
    let found = match meant.as_slice() {
        [] => return Err(unknown(api, caller, address).await?),
        [one] => mailbox::get(&api.pool, one.mailbox).await?,
        several => return Err(ambiguous(address, several)),
    };
    match found {
        Some(mailbox) => Ok(mailbox),
        None => Err(unknown(api, caller, address).await?),
    }
}

/// Of the mailboxes an address may mean: those spelled exactly so, or else all that differ only in case.
pub(crate) fn meant<'a>(address: &str, matches: impl IntoIterator<Item = &'a Match>) -> Vec<&'a Match> {
    let all: Vec<&Match> = matches.into_iter().collect();
    let exact: Vec<&Match> = all.iter().copied().filter(|found| found.address == address).collect();
    if exact.is_empty() { all } else { exact }
}

/// For people: the mailboxes an address may mean.
pub(crate) fn choices(several: &[&Match]) -> String {
    let choices: Vec<String> = several.iter().map(|m| format!("`{}` on `{}`", m.address, m.primary)).collect();
    choices.join(", ")
}

fn ambiguous(address: &str, several: &[&Match]) -> ApiError {
    let detail = format!("`{address}` may mean {}", choices(several));
    ApiError::new(Kind::Ambiguous, detail, "spell it exactly and add `?primary=NAME`")
}

async fn unknown(api: &Api, caller: &Caller, address: &str) -> Result<ApiError> {
    let all = mailbox::all(&api.pool, &caller.scope).await?;
    let nearest = nearest(address, all.iter().map(|(_, known)| known.as_str()));
    Ok(ApiError::not_found("protected mailbox", address, nearest, "`understudy mailbox list` names them all"))
}
