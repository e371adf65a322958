//! The hooks before and after a change of side, each policy's once for a whole run.
//!
//! Keeps true: a hook that fails before a planned run stops it; before an emergency and after any run it is told and stops nothing.
//! A run that a crash interrupted calls them again, with the same id.

use serde_json::{Value, json};
use understudy_database::{health, run};
use understudy_protocol::{Side, messages::Trouble, policy::Hook};

use super::{Moving, steps::fault};
use crate::{runs::Runner, verify::internal};

impl Runner {
    /// Calls what is to be called before anybody is moved.
    pub(super) async fn before(&self, moving: &Moving<'_>, mailboxes: &[i64]) -> Result<(), Trouble> {
        if moving.order.dry_run {
            return Ok(());
        }
        let policies = health::policies_of(&self.pool, mailboxes).await.map_err(|error| internal(&error))?;
        let hooks: Vec<Hook> = policies.into_iter().flat_map(|policy| policy.before).collect();
        for (index, hook) in hooks.iter().enumerate() {
            let what = what(moving, "before", None);
            let id = format!("{}-before-{index}", moving.run.run_id);
            let Err(why) = self.hooked(moving, "before_hook", &id, hook, &what).await else { continue };
            if moving.order.emergency {
                continue;
            }
            let reason = format!("the hook {} that is called before a change of side failed: {why}", hook.name());
            let remedy = "See to what it says, or take the hook out of the policy; nobody was moved.";
            return Err(fault("hook", reason, remedy));
        }
        Ok(())
    }

    /// Calls what is to be called afterwards, with what came of it.
    pub(super) async fn after(&self, moving: &Moving<'_>, mailboxes: &[i64], result: &Value) {
        if moving.order.dry_run {
            return;
        }
        let policies = match health::policies_of(&self.pool, mailboxes).await {
            Ok(policies) => policies,
            Err(error) => {
                tracing::warn!(run.id = %moving.run.run_id, error = %error, "Could not see which hooks to call");
                return;
            }
        };
        let hooks: Vec<Hook> = policies.into_iter().flat_map(|policy| policy.after).collect();
        for (index, hook) in hooks.iter().enumerate() {
            let what = what(moving, "after", Some(result));
            let id = format!("{}-after-{index}", moving.run.run_id);
            // Whether it fails is told with the step.
            let _ = self.hooked(moving, "after_hook", &id, hook, &what).await;
        }
    }

    /// Calls one hook as a step of the run.
    async fn hooked(&self, moving: &Moving<'_>, step: &str, id: &str, hook: &Hook, what: &Value) -> Result<(), String> {
        let run = moving.run.run_id;
        let begun = async {
            let mut db = self.pool.acquire().await?;
            run::begin_step(&mut db, run, step, None).await
        };
        let position = begun.await.map_err(|error| error.to_string())?;
        let called = tokio::select! {
            called = self.hooks.call(hook, id, what) => called,
            () = moving.cancel.cancelled() => Err("somebody stopped the run".to_owned()),
        };
        let outcome = match &called {
            Ok(said) => format!("{}: {said}", hook.name()),
            Err(why) => format!("failed: {}: {why}", hook.name()),
        };
        let ended = async {
            let mut db = self.pool.acquire().await?;
            run::end_step(&mut db, run, position, &outcome).await
        };
        ended.await.map_err(|error| error.to_string())?;
        called.map(|_| ())
    }
}

/// What a hook is told.
fn what(moving: &Moving<'_>, when: &str, result: Option<&Value>) -> Value {
    let run = moving.run;
    let kind = if moving.order.target == Side::Standby { "switchover" } else { "switchback" };
    json!({
        "event": format!("{when}_{kind}"),
        "run": run.run_id,
        "mode": if moving.order.emergency { "emergency" } else { "planned" },
        "reason": run.reason,
        "requested_by": run.requested_by,
        "addresses": run.request["addresses"],
        "done": result.map(|result| result["done"].clone()),
        "failed": result.map(|result| result["failed"].clone()),
    })
}
