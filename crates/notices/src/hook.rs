//! A message of the outbox as a hook.

use understudy_database::notice::{Attempt, Next, Outgoing};

use crate::{NoticesConfig, post::again};

/// The longest answer that the log keeps.
const KEPT: usize = 500;

/// Sends a hook once; what happened and what comes next.
pub(crate) async fn send(config: &NoticesConfig, message: &Outgoing) -> (Vec<Attempt>, Next) {
    let Some(hook) = config.hooks.iter().find(|hook| hook.name == message.recipient) else {
        let answer = "the configuration does not name this hook any more".to_owned();
        return (vec![Attempt { via: message.recipient.clone(), outcome: "refused", answer }], Next::Failed);
    };
    let via = hook.target.url.host_str().unwrap_or_default().to_owned();
    let id = format!("msg_{}", message.message_id.simple());
    match understudy_webhook::send(&hook.target, &id, &message.body).await {
        Ok(delivered) => {
            let answer = format!("{} {}", delivered.status, short(&delivered.answer));
            (vec![Attempt { via, outcome: "sent", answer }], Next::Sent)
        }
        Err(error) => {
            let answer = match &error {
                understudy_webhook::Error::Refused { status, answer } => format!("{status} {}", short(answer)),
                other => other.to_string(),
            };
            let next = if error.is_permanent() { Next::Failed } else { again(message) };
            let outcome = if next == Next::Failed { "refused" } else { "deferred" };
            (vec![Attempt { via, outcome, answer }], next)
        }
    }
}

fn short(answer: &str) -> String {
    answer.chars().filter(|c| !c.is_control()).take(KEPT).collect()
}
