//! `/users`: the accounts of a tenant's people.
//!
//! Keeps true: nobody gets a password that others have, nor a default one: it is chosen, or made and shown once; what an account may
//! changes at once, because its sessions end.

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};
use understudy_database::account::{self, Account, Change, NewAccount};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::tokens::narrow_problem,
    auth::{Caller, Role},
    caller::By,
    cursor::{self, Page},
    error::{ApiError, Kind, Problem, ProblemItem, Result},
    extract::{Body, Name, Params},
    idempotency::ShownOnce,
    login::{password_problem, random_words},
    state::Api,
};

/// The longest name.
const LONGEST_NAME: usize = 100;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(get, change, remove))
        .routes(routes!(set_password))
        .routes(routes!(reset_second_factor))
}

/// Somebody's account.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct User {
    #[schema(example = "ann")]
    name: String,
    role: Role,
    /// Only the mailboxes of this group.
    group: Option<String>,
    /// The mailbox of a `user`.
    mailbox: Option<String>,
    second_factor: bool,
    disabled_at: Option<DateTime<Utc>>,
    last_login_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl From<Account> for User {
    fn from(account: Account) -> Self {
        Self {
            name: account.name,
            role: Role::from_column(&account.role),
            group: account.group,
            mailbox: account.mailbox,
            second_factor: account.second_factor_at.is_some(),
            disabled_at: account.disabled_at,
            last_login_at: account.last_login_at,
            created_at: account.created_at,
        }
    }
}

/// An account to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "ann", "role": "operator", "password": "correct horse battery"}))]
pub(crate) struct NewUser {
    /// What the person logs in with; must be new, in any case.
    #[schema(example = "ann")]
    name: String,
    role: Role,
    /// Only the mailboxes of this group; for a viewer or an operator.
    #[serde(default)]
    group: Option<String>,
    /// The mailbox of a `user`.
    #[serde(default)]
    mailbox: Option<String>,
    /// One is made and shown once, when left out.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    password: Option<SecretString>,
}

/// An account just made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeUser {
    #[serde(flatten)]
    user: User,
    /// The password, where it was made here: the only time it is shown. Null when it was chosen, and when this answer is given again to
    /// the same `Idempotency-Key`.
    password: Option<String>,
}

/// What to change; what is left out stays, null takes away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"role": "viewer", "group": "board"}))]
pub(crate) struct UserChange {
    #[serde(default)]
    role: Option<Role>,
    #[serde(default, deserialize_with = "given_or_null")]
    #[schema(value_type = Option<String>)]
    group: Option<Option<String>>,
    #[serde(default, deserialize_with = "given_or_null")]
    #[schema(value_type = Option<String>)]
    mailbox: Option<Option<String>>,
    /// Whether the account opens nothing any more.
    #[serde(default)]
    disabled: Option<bool>,
}

fn given_or_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// Another password for somebody.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"password": "a password told on the telephone"}))]
pub(crate) struct PasswordChange {
    /// One is made and shown once, when left out.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    password: Option<SecretString>,
}

/// A password just made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadePassword {
    /// Null when it was chosen, and when this answer is given again to the same `Idempotency-Key`.
    password: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    limit: Option<i64>,
    after: Option<String>,
}

/// The tenant's accounts, by name.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", params(Paging), responses((status = 200, body = Page<User>)))]
async fn list(State(api): State<Api>, caller: Caller, Params(paging): Params<Paging>) -> Result<Json<Page<User>>> {
    let limit = cursor::limit(paging.limit)?;
    let after: Option<String> = cursor::decode(paging.after.as_deref())?;
    let accounts = account::list(&api.pool, caller.tenant, after.as_deref(), limit + 1).await?;
    Ok(Json(Page::of(accounts, limit, |account| account.name.clone(), User::from)))
}

/// Makes an account.
#[utoipa::path(post, path = "/api/v1/users", tag = "users", request_body = NewUser,
    responses((status = 201, body = MadeUser), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn add(State(api): State<Api>, caller: Caller, Body(new): Body<NewUser>) -> Result<Response> {
    let mut errors = Vec::new();
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == '/';
    if new.name.is_empty() || new.name.len() > LONGEST_NAME || new.name.contains(odd) {
        let detail = format!("a name has 1 to {LONGEST_NAME} characters, without spaces and `/`");
        errors.push(ProblemItem::at("/name", detail));
    }
    errors.extend(narrow_problem(new.role, new.group.as_deref(), new.mailbox.as_deref()));
    let (password, made) = match new.password {
        Some(chosen) => (chosen.expose_secret().to_owned(), None),
        None => made_password(),
    };
    if made.is_none() {
        errors.extend(password_problem(&new.name, &password).map(|detail| ProblemItem::at("/password", detail)));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(errors));
    }
    let kept = api.login.passwords.keep(password).await?;
    let account = NewAccount {
        tenant: caller.tenant,
        name: &new.name,
        role: new.role.as_str(),
        group: new.group.as_deref(),
        mailbox: new.mailbox.as_deref(),
        password: Some(&kept),
    };
    let mut transaction = caller.begin(&api, "").await?;
    account::create(&mut *transaction, &account).await.map_err(|error| match error.constraint() {
        Some("account_name_unique") => ApiError::new(
            Kind::Conflict,
            format!("there is an account `{}`, perhaps of another tenant", new.name),
            "choose another name, such as the person's mail address",
        ),
        _ => error.into(),
    })?;
    transaction.commit().await?;
    let user = find(&api, &caller, &new.name).await?.into();
    let location = [(header::LOCATION, "/api/v1/users")];
    let body = Json(MadeUser { user, password: made });
    Ok((StatusCode::CREATED, location, Extension(ShownOnce("password")), body).into_response())
}

/// A password nobody knows yet, and once more to show it.
fn made_password() -> (String, Option<String>) {
    let password = random_words(4, 5);
    (password.clone(), Some(password))
}

/// One account.
#[utoipa::path(get, path = "/api/v1/users/{name}", tag = "users", params(("name" = String, Path)),
    responses((status = 200, body = User), (status = 404, body = Problem)))]
async fn get(State(api): State<Api>, caller: Caller, Name(name): Name) -> Result<Json<User>> {
    Ok(Json(find(&api, &caller, &name).await?.into()))
}

/// Changes what an account may. Its sessions end.
#[utoipa::path(patch, path = "/api/v1/users/{name}", tag = "users", params(("name" = String, Path)),
    request_body = UserChange,
    responses((status = 200, body = User), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn change(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Body(wanted): Body<UserChange>,
) -> Result<Json<User>> {
    let there = find(&api, &caller, &name).await?;
    let role = wanted.role.unwrap_or(Role::from_column(&there.role));
    let group = wanted.group.unwrap_or_else(|| there.group.clone());
    let mailbox = wanted.mailbox.unwrap_or_else(|| there.mailbox.clone());
    let is_disabled = wanted.disabled.unwrap_or(there.disabled_at.is_some());
    if let Some(problem) = narrow_problem(role, group.as_deref(), mailbox.as_deref()) {
        return Err(ApiError::invalid(vec![problem]));
    }
    if role != Role::Administrator || is_disabled {
        refuse_last(&api, &caller, &there).await?;
    }
    let change = Change { role: role.as_str(), group: group.as_deref(), mailbox: mailbox.as_deref(), is_disabled };
    let mut transaction = caller.begin(&api, "").await?;
    account::change(&mut transaction, there.account_id, &change).await?;
    transaction.commit().await?;
    Ok(Json(find(&api, &caller, &name).await?.into()))
}

/// Takes an account away, and ends its sessions. What it did stays in the audit.
#[utoipa::path(delete, path = "/api/v1/users/{name}", tag = "users", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove(State(api): State<Api>, caller: Caller, Name(name): Name) -> Result<StatusCode> {
    let there = find(&api, &caller, &name).await?;
    refuse_last(&api, &caller, &there).await?;
    let mut transaction = caller.begin(&api, "").await?;
    account::delete(&mut *transaction, there.account_id).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives an account another password, and ends its sessions.
#[utoipa::path(post, path = "/api/v1/users/{name}/password", tag = "users", params(("name" = String, Path)),
    request_body = PasswordChange,
    responses((status = 200, body = MadePassword), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn set_password(
    State(api): State<Api>,
    caller: Caller,
    Name(name): Name,
    Body(wanted): Body<PasswordChange>,
) -> Result<Response> {
    let there = find(&api, &caller, &name).await?;
    let (password, made) = match wanted.password {
        Some(chosen) => (chosen.expose_secret().to_owned(), None),
        None => made_password(),
    };
    if made.is_none()
        && let Some(detail) = password_problem(&there.name, &password)
    {
        return Err(ApiError::invalid(vec![ProblemItem::at("/password", detail)]));
    }
    let kept = api.login.passwords.keep(password).await?;
    let mut transaction = caller.begin(&api, "").await?;
    account::set_password(&mut transaction, there.account_id, &kept, None).await?;
    transaction.commit().await?;
    Ok((Extension(ShownOnce("password")), Json(MadePassword { password: made })).into_response())
}

/// Takes an account's second factor away, for somebody who lost it. Its sessions end.
#[utoipa::path(post, path = "/api/v1/users/{name}/reset-second-factor", tag = "users", params(("name" = String, Path)),
    responses((status = 200, body = User), (status = 404, body = Problem)))]
async fn reset_second_factor(State(api): State<Api>, caller: Caller, Name(name): Name) -> Result<Json<User>> {
    let there = find(&api, &caller, &name).await?;
    let mut transaction = caller.begin(&api, "").await?;
    account::drop_second_factor(&mut transaction, there.account_id, None).await?;
    transaction.commit().await?;
    Ok(Json(find(&api, &caller, &name).await?.into()))
}

async fn find(api: &Api, caller: &Caller, name: &str) -> Result<Account> {
    let found = if name.contains('\0') { None } else { account::get(&api.pool, caller.tenant, name).await? };
    found.ok_or_else(|| ApiError::not_found("account", name, None, "`understudy user list` names them all"))
}

/// Somebody must be left who can make accounts; on the console one always can.
async fn refuse_last(api: &Api, caller: &Caller, there: &Account) -> Result<()> {
    let is_administrator = there.role == Role::Administrator.as_str() && there.disabled_at.is_none();
    if !is_administrator || caller.by == By::Local {
        return Ok(());
    }
    if account::other_administrators(&api.pool, caller.tenant, there.account_id).await? > 0 {
        return Ok(());
    }
    Err(ApiError::new(
        Kind::Conflict,
        format!("`{}` is the last administrator", there.name),
        "make another one first: `understudy user add NAME --role administrator`",
    ))
}
