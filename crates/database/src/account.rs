//! Accounts of people: what they log in with, and what they may.
//!
//! Keeps true: a password is kept as Argon2id makes it, a recovery code as its digest; whatever an account may changes with all
//! its sessions ending.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use understudy_protocol::{Digest, TenantId};

use crate::Result;

/// An account, without what proves it.
#[derive(Clone, Debug)]
pub struct Account {
    pub account_id: i64,
    pub tenant_id: i64,
    pub name: String,
    pub role: String,
    pub group: Option<String>,
    pub mailbox: Option<String>,
    pub second_factor_at: Option<DateTime<Utc>>,
    pub disabled_at: Option<DateTime<Utc>>,
    pub last_login_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

/// What a log-in is checked against.
#[derive(Clone)]
pub struct Proof {
    pub account_id: i64,
    pub tenant_id: i64,
    pub name: String,
    pub password: Option<String>,
    /// Sealed; none where no second factor is in force.
    pub second_factor: Option<Vec<u8>>,
    pub is_disabled: bool,
}

/// A new account.
#[derive(Clone, Debug)]
pub struct NewAccount<'a> {
    pub tenant: TenantId,
    pub name: &'a str,
    pub role: &'a str,
    pub group: Option<&'a str>,
    pub mailbox: Option<&'a str>,
    pub password: Option<&'a str>,
}

/// What an account may from now on.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    pub role: &'a str,
    pub group: Option<&'a str>,
    pub mailbox: Option<&'a str>,
    pub is_disabled: bool,
}

macro_rules! select_accounts {
    ($tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Account,
            r#"select account_id, tenant_id, name, role, group_name as "group", mailbox_address as "mailbox",
                      second_factor_at, disabled_at, last_login_at, created_at
               from account "# + $tail
            $(, $argument)*
        )
    };
}

/// Makes an account. A name is taken once, in any case: constraint `account_name_unique`.
pub async fn create(executor: impl PgExecutor<'_>, new: &NewAccount<'_>) -> Result<i64> {
    let id = sqlx::query_scalar!(
        "insert into account (tenant_id, name, role, group_name, mailbox_address, password) values ($1, $2, $3, $4, $5, $6)
         returning account_id",
        new.tenant.0,
        new.name,
        new.role,
        new.group,
        new.mailbox,
        new.password
    );
    Ok(id.fetch_one(executor).await?)
}

/// The tenant's account of this name.
pub async fn get(executor: impl PgExecutor<'_>, tenant: TenantId, name: &str) -> Result<Option<Account>> {
    let account = select_accounts!("where tenant_id = $1 and lower(name) = lower($2)", tenant.0, name);
    Ok(account.fetch_optional(executor).await?)
}

/// One account.
pub async fn by_id(executor: impl PgExecutor<'_>, account_id: i64) -> Result<Option<Account>> {
    Ok(select_accounts!("where account_id = $1", account_id).fetch_optional(executor).await?)
}

/// The tenant's accounts after `after`, by name.
pub async fn list(
    executor: impl PgExecutor<'_>,
    tenant: TenantId,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Account>> {
    let accounts = select_accounts!(
        "where tenant_id = $1 and ($2::text is null or name > $2) order by name limit $3",
        tenant.0,
        after,
        limit
    );
    Ok(accounts.fetch_all(executor).await?)
}

/// Whether anybody has an account yet.
pub async fn is_any(executor: impl PgExecutor<'_>) -> Result<bool> {
    let any = sqlx::query_scalar!(r#"select exists (select from account) as "any!""#);
    Ok(any.fetch_one(executor).await?)
}

/// What a log-in under this name is checked against, whatever the tenant.
pub async fn proof(executor: impl PgExecutor<'_>, name: &str) -> Result<Option<Proof>> {
    let row = sqlx::query!(
        r#"select account_id, tenant_id, name, password,
                  case when second_factor_at is not null then second_factor end as second_factor,
                  disabled_at is not null as "is_disabled!"
           from account where lower(name) = lower($1)"#,
        name
    );
    Ok(row.fetch_optional(executor).await?.map(|row| Proof {
        account_id: row.account_id,
        tenant_id: row.tenant_id,
        name: row.name,
        password: row.password,
        second_factor: row.second_factor,
        is_disabled: row.is_disabled,
    }))
}

/// Changes what an account may, and ends its sessions.
pub async fn change(db: &mut PgConnection, account_id: i64, change: &Change<'_>) -> Result<()> {
    sqlx::query!(
        "update account set role = $2, group_name = $3, mailbox_address = $4,
             disabled_at = case when $5 then coalesce(disabled_at, now()) end
         where account_id = $1",
        account_id,
        change.role,
        change.group,
        change.mailbox,
        change.is_disabled
    )
    .execute(&mut *db)
    .await?;
    crate::session::end_all(db, account_id, None).await
}

/// Gives an account another password, and ends its sessions but `except`.
pub async fn set_password(
    db: &mut PgConnection,
    account_id: i64,
    password: &str,
    except: Option<uuid::Uuid>,
) -> Result<()> {
    sqlx::query!(
        "update account set password = $2, password_changed_at = now() where account_id = $1",
        account_id,
        password
    )
    .execute(&mut *db)
    .await?;
    crate::session::end_all(db, account_id, except).await
}

/// Takes an account away, with its sessions.
pub async fn delete(executor: impl PgExecutor<'_>, account_id: i64) -> Result<()> {
    sqlx::query!("delete from account where account_id = $1", account_id).execute(executor).await?;
    Ok(())
}

/// How many of the tenant's accounts can still administer, besides this one.
pub async fn other_administrators(executor: impl PgExecutor<'_>, tenant: TenantId, account_id: i64) -> Result<i64> {
    let others = sqlx::query_scalar!(
        r#"select count(*) as "others!" from account
           where tenant_id = $1 and account_id <> $2 and role = 'administrator' and disabled_at is null"#,
        tenant.0,
        account_id
    );
    Ok(others.fetch_one(executor).await?)
}

/// Keeps a second factor that is being set up; it is in force from [`confirm_second_factor`] on. False where one is in force.
pub async fn offer_second_factor(executor: impl PgExecutor<'_>, account_id: i64, sealed: &[u8]) -> Result<bool> {
    let offered = sqlx::query!(
        "update account set second_factor = $2, second_factor_step = 0 where account_id = $1 and second_factor_at is null",
        account_id,
        sealed
    );
    Ok(offered.execute(executor).await?.rows_affected() > 0)
}

/// The second factor, sealed, and whether it is in force.
pub async fn second_factor(executor: impl PgExecutor<'_>, account_id: i64) -> Result<Option<(Vec<u8>, bool)>> {
    let row = sqlx::query!(
        r#"select second_factor as "second_factor!", second_factor_at is not null as "in_force!"
           from account where account_id = $1 and second_factor is not null"#,
        account_id
    );
    Ok(row.fetch_optional(executor).await?.map(|row| (row.second_factor, row.in_force)))
}

/// Takes a time step as used; false when it, or a later one, was used before.
pub async fn use_step(executor: impl PgExecutor<'_>, account_id: i64, step: i64) -> Result<bool> {
    let used = sqlx::query!(
        "update account set second_factor_step = $2 where account_id = $1 and second_factor_step < $2",
        account_id,
        step
    );
    Ok(used.execute(executor).await?.rows_affected() > 0)
}

/// Puts the second factor in force, with these recovery codes and no others, and ends all sessions but `except`.
pub async fn confirm_second_factor(
    db: &mut PgConnection,
    account_id: i64,
    codes: &[Digest],
    except: Option<uuid::Uuid>,
) -> Result<()> {
    sqlx::query!("update account set second_factor_at = now() where account_id = $1", account_id)
        .execute(&mut *db)
        .await?;
    sqlx::query!("delete from recovery_code where account_id = $1", account_id).execute(&mut *db).await?;
    let digests: Vec<Vec<u8>> = codes.iter().map(|code| code.0.to_vec()).collect();
    sqlx::query!(
        "insert into recovery_code (account_id, digest) select $1, digest from unnest($2::bytea[]) as digest",
        account_id,
        &digests
    )
    .execute(&mut *db)
    .await?;
    crate::session::end_all(db, account_id, except).await
}

/// Takes the second factor away, and ends all sessions but `except`.
pub async fn drop_second_factor(db: &mut PgConnection, account_id: i64, except: Option<uuid::Uuid>) -> Result<()> {
    sqlx::query!(
        "update account set second_factor = null, second_factor_at = null, second_factor_step = 0 where account_id = $1",
        account_id
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("delete from recovery_code where account_id = $1", account_id).execute(&mut *db).await?;
    crate::session::end_all(db, account_id, except).await
}

/// Uses a recovery code up; false when it is none of the account's, or used.
pub async fn use_recovery_code(executor: impl PgExecutor<'_>, account_id: i64, code: &Digest) -> Result<bool> {
    let used = sqlx::query!(
        "update recovery_code set used_at = now() where account_id = $1 and digest = $2 and used_at is null",
        account_id,
        &code.0[..]
    );
    Ok(used.execute(executor).await?.rows_affected() > 0)
}

/// How many recovery codes are left.
pub async fn recovery_codes_left(executor: impl PgExecutor<'_>, account_id: i64) -> Result<i64> {
    let left = sqlx::query_scalar!(
        r#"select count(*) as "left!" from recovery_code where account_id = $1 and used_at is null"#,
        account_id
    );
    Ok(left.fetch_one(executor).await?)
}

/// Notes that somebody logged in.
pub async fn logged_in(executor: impl PgExecutor<'_>, account_id: i64) -> Result<()> {
    sqlx::query!("update account set last_login_at = now() where account_id = $1", account_id)
        .execute(executor)
        .await?;
    Ok(())
}
