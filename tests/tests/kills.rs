//! Anything may be killed at any moment; nothing is lost, doubled or reordered.

use std::time::Duration;

use anyhow::Result;
use understudy_tests::client::Client;
use understudy_tests::mail::Mail;
use understudy_tests::proxy::Mode;
use understudy_tests::scenario::Scenario;

use crate::mirroring::fill;
use crate::times;

/// Enough to be in the middle of it when a quarter is done.
const MESSAGES: usize = 400;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The whole product with its database, as in a power failure.
    Understudy,
    /// Only the program; its database goes on as an orphan.
    Program,
    Postgres,
    Primary,
    Standby,
    SourceGateway,
    RecoveryGateway,
    Link,
}

impl Victim {
    async fn scenario(self) -> Result<Scenario> {
        match self {
            Self::SourceGateway | Self::RecoveryGateway | Self::Link => Scenario::apart(&["ann", "bob"]).await,
            _ => Scenario::start(&["ann", "bob"]).await,
        }
    }

    /// Kills it; what does not come back by itself is started again.
    async fn strike(self, scenario: &mut Scenario) -> Result<()> {
        match self {
            Self::Understudy => {
                scenario.stack.kill()?;
                scenario.stack.start().await
            }
            Self::Program => {
                scenario.stack.kill_role("up")?;
                scenario.stack.start().await
            }
            Self::SourceGateway => {
                scenario.stack.kill_role("source")?;
                scenario.stack.start().await
            }
            Self::RecoveryGateway => {
                scenario.stack.kill_role("recovery")?;
                scenario.stack.start().await
            }
            Self::Postgres => scenario.stack.kill_postgres().await,
            Self::Primary => {
                scenario.primary.kill()?;
                scenario.primary.start_again()
            }
            Self::Standby => {
                scenario.standby.kill()?;
                scenario.standby.start_again()
            }
            Self::Link => {
                scenario.stack.link()?.set(Mode::Cut);
                // Not a wait for anything: the outage itself.
                tokio::time::sleep(Duration::from_millis(300)).await;
                scenario.stack.link()?.set(Mode::Pass);
                Ok(())
            }
        }
    }
}

async fn killed_while_seeding(victim: Victim) -> Result<()> {
    let mut scenario = victim.scenario().await?;
    let mut mail = Mail::from_seed(20);
    fill(&mut scenario.log_in("ann").await?, &mut mail, MESSAGES * times(10)).await?;
    scenario.protect(&["ann", "bob"]).await?;
    for quarter in 1..=3 {
        scenario.until_messages_done("ann", (MESSAGES * times(10) * quarter / 4) as u64).await?;
        victim.strike(&mut scenario).await?;
    }
    scenario.settle_and_compare(&["ann", "bob"]).await
}

async fn killed_during_live_traffic(victim: Victim) -> Result<()> {
    let mut scenario = victim.scenario().await?;
    let mut mail = Mail::from_seed(21);
    fill(&mut scenario.log_in("ann").await?, &mut mail, 40).await?;
    scenario.protect(&["ann", "bob"]).await?;
    scenario.settle().await?;
    for _ in 0..4 * times(10) {
        // The primary may have ended the session.
        let mut ann = scenario.log_in("ann").await?;
        some_traffic(&mut ann, &mut mail).await?;
        victim.strike(&mut scenario).await?;
    }
    some_traffic(&mut scenario.log_in("ann").await?, &mut mail).await?;
    scenario.settle_and_compare(&["ann", "bob"]).await
}

async fn some_traffic(client: &mut Client, mail: &mut Mail) -> Result<()> {
    for _ in 0..8 {
        client.append("INBOX", &["$New"], None, &mail.any()).await?;
    }
    let uids = client.uids("INBOX").await?;
    let uid = |index: usize| uids[index % uids.len()].to_string();
    client.store(&uid(0), "+FLAGS (\\Seen)").await?;
    client.copy(&uid(1), "Work").await?;
    client.move_to(&uid(2), "Entwürfe").await?;
    client.expunge(&uid(3)).await?;
    client.append("Work/2026/März", &["\\Seen"], None, &mail.any()).await.map(drop)
}

macro_rules! killed_at_any_moment {
    ($($seeding:ident, $live:ident: $victim:ident;)*) => {$(
        #[tokio::test]
        async fn $seeding() -> Result<()> {
            killed_while_seeding(Victim::$victim).await
        }

        #[tokio::test]
        async fn $live() -> Result<()> {
            killed_during_live_traffic(Victim::$victim).await
        }
    )*};
}

killed_at_any_moment! {
    seeding_survives_a_power_failure, traffic_survives_a_power_failure: Understudy;
    seeding_survives_the_program_being_killed, traffic_survives_the_program_being_killed: Program;
    seeding_survives_the_database_being_killed, traffic_survives_the_database_being_killed: Postgres;
    seeding_survives_the_primary_being_killed, traffic_survives_the_primary_being_killed: Primary;
    seeding_survives_the_standby_being_killed, traffic_survives_the_standby_being_killed: Standby;
    seeding_survives_the_source_gateway_being_killed, traffic_survives_the_source_gateway_being_killed: SourceGateway;
    seeding_survives_the_recovery_gateway_being_killed, traffic_survives_the_recovery_gateway_being_killed: RecoveryGateway;
    seeding_survives_the_link_being_cut, traffic_survives_the_link_being_cut: Link;
}

#[tokio::test]
async fn a_restart_does_not_fetch_the_mail_again() -> Result<()> {
    let mut scenario = Scenario::apart(&["ann"]).await?;
    let mut mail = Mail::from_seed(22);
    let mut ann = scenario.log_in("ann").await?;
    for _ in 0..20 {
        ann.append("INBOX", &[], None, &mail.with_attachment(200_000)).await?;
    }
    scenario.protect(&["ann"]).await?;
    scenario.settle().await?;
    let before = scenario.stack.link()?.bytes_to_server();
    for role in ["source", "recovery"] {
        scenario.stack.kill_role(role)?;
        scenario.stack.start().await?;
    }
    ann.append("INBOX", &[], None, &mail.plain(100)).await?;
    scenario.settle_and_compare(&["ann"]).await?;
    let crossed = scenario.stack.link()?.bytes_to_server() - before;
    assert!(crossed < 200_000, "{crossed} bytes crossed the link for one small message");
    Ok(())
}
