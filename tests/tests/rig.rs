//! The rig itself, without Understudy: what judges must be trustworthy.

use std::time::Duration;

use anyhow::Result;
use understudy_tests::client::{Client, Refused};
use understudy_tests::compare::compare;
use understudy_tests::dovecot::{Dovecot, Format, MASTER, MASTER_PASSWORD, Options, PASSWORD};
use understudy_tests::mail::{Mail, odd_mail};
use understudy_tests::proxy::{Mode, Proxy};
use understudy_tests::wait;

const PATIENCE: Duration = Duration::from_secs(120);

async fn ann(server: &Dovecot) -> Result<Client> {
    Client::log_in(server.imap_address(), "ann", PASSWORD).await
}

/// The same doings on any server.
async fn live_a_little(client: &mut Client) -> Result<()> {
    let mut mail = Mail::from_seed(7);
    for folder in ["Work", "Work/2026", "Entwürfe/台北", "R&D \"quoted\""] {
        client.create(folder).await?;
        client.append(folder, &["\\Seen", "$Important"], Some("17-Jul-1996 02:44:25 -0700"), &mail.any()).await?;
    }
    for _ in 0..20 {
        client.append("INBOX", &[], Some(" 1-Jan-2026 12:00:00 +0000"), &mail.any()).await?;
    }
    client.select("INBOX").await?;
    client.store("2:5", "+FLAGS (\\Flagged Later)").await?;
    client.copy("3,4", "Work").await?;
    client.move_to("5", "Work/2026").await?;
    client.expunge("7:9").await?;
    client.subscribe("Work").await?;
    client.rename("Work", "Done").await
}

#[tokio::test]
async fn the_same_doings_on_two_servers_compare_equal_and_one_more_does_not() -> Result<()> {
    let one = Dovecot::start(Options::new("one").users(["ann"]))?;
    let other = Dovecot::start(Options::new("other").users(["ann"]).format(Format::Maildir))?;
    let (mut ours, mut theirs) = (ann(&one).await?, ann(&other).await?);
    live_a_little(&mut ours).await?;
    live_a_little(&mut theirs).await?;
    let snapshot = ours.snapshot().await?;
    assert_eq!(snapshot.folders["INBOX"].messages.len(), 16);
    assert!(snapshot.folders.contains_key("Done/2026"), "{:?}", snapshot.folders.keys());
    assert!(snapshot.folders["INBOX"].messages[1].flags.contains("later"));
    let differences = compare(&snapshot, &theirs.snapshot().await?);
    assert!(differences.is_empty(), "{differences}");

    theirs.select("INBOX").await?;
    theirs.store("2", "+FLAGS (\\Answered)").await?;
    let differences = compare(&snapshot, &theirs.snapshot().await?);
    assert_eq!(differences.0.len(), 1, "{differences}");
    Ok(())
}

#[tokio::test]
async fn a_killed_server_comes_back_with_its_mail_on_the_same_ports() -> Result<()> {
    let mut server = Dovecot::start(Options::new("killed").users(["ann"]))?;
    ann(&server).await?.append("INBOX", &[], None, b"Subject: kept\r\n\r\n").await?;
    let before = server.ports().imap;
    // CPU time is counted in hundredths of a second.
    wait::until("a log-in shows in the CPU time", PATIENCE, async || {
        ann(&server).await?.log_out().await;
        Ok(server.cpu_seconds() > 0.0)
    })
    .await?;
    assert!(server.memory_bytes() > 0);
    server.kill()?;
    assert!(ann(&server).await.is_err());
    server.start_again()?;
    assert_eq!(server.ports().imap, before);
    assert_eq!(ann(&server).await?.uids("INBOX").await?, [1]);
    server.stop()
}

#[tokio::test]
async fn a_read_only_master_can_look_and_change_nothing() -> Result<()> {
    let server = Dovecot::start(Options::new("guarded").users(["ann"]).read_only_master())?;
    let mut user = ann(&server).await?;
    live_a_little(&mut user).await?;
    user.log_out().await;
    let mut master = Client::log_in(server.imap_address(), &format!("ann*{MASTER}"), MASTER_PASSWORD).await?;
    let before = master.snapshot().await?;
    assert_eq!(before.folders["INBOX"].messages.len(), 16);
    // Not among them: SUBSCRIBE, which Dovecot's ACLs do not guard.
    for command in ["CREATE new", "DELETE Done", "RENAME Done Gone"] {
        let refused = master.run(command).await.unwrap_err();
        assert!(refused.is::<Refused>(), "{command}: {refused}");
    }
    let append = master.append("INBOX", &[], None, b"Subject: no\r\n\r\n").await.unwrap_err();
    assert!(append.is::<Refused>(), "{append}");
    master.select("INBOX").await?;
    // Some are refused, some are accepted and do nothing.
    let _ = master.store("1", "+FLAGS (\\Flagged)").await;
    let _ = master.expunge("1").await;
    let _ = master.copy("1", "Done").await;
    let _ = master.move_to("1", "Done").await;
    let after = ann(&server).await?.snapshot().await?;
    let differences = compare(&before, &after);
    assert!(differences.is_empty(), "{differences}");
    Ok(())
}

#[tokio::test]
async fn a_server_can_be_many_things() -> Result<()> {
    let options = Options::new("many")
        .users(["ann"])
        .tls()
        .many_sessions()
        .quota("*:storage=20K")
        .capability("IMAP4rev1 LITERAL+ UIDPLUS");
    let mut server = Dovecot::start(options)?;
    server.set_user("late", "other-secret")?;
    Client::log_in(server.imap_address(), "late", "other-secret").await?;
    let mut client = ann(&server).await?;
    let capability = client.command("CAPABILITY").await?;
    assert!(capability.iter().flatten().all(|value| !value.is("QRESYNC")), "{capability:?}");
    let big = client.append("INBOX", &[], None, &Mail::from_seed(1).plain(50_000)).await.unwrap_err();
    assert!(big.to_string().contains("OVERQUOTA"), "{big}");
    assert!(server.ca_file().unwrap().exists());
    Ok(())
}

#[tokio::test]
async fn the_proxy_cuts_and_counts() -> Result<()> {
    let server = Dovecot::start(Options::new("behind").users(["ann"]))?;
    let proxy = Proxy::to(server.imap_address()).await?;
    let mut client = Client::log_in(proxy.address(), "ann", PASSWORD).await?;
    client.append("INBOX", &[], None, &Mail::from_seed(1).plain(10_000)).await?;
    assert!(proxy.bytes_to_server() > 10_000);
    proxy.set(Mode::Cut);
    assert!(client.run("NOOP").await.is_err());
    assert!(Client::log_in(proxy.address(), "ann", PASSWORD).await.is_err());
    proxy.set(Mode::Pass);
    Client::log_in(proxy.address(), "ann", PASSWORD).await?.run("NOOP").await
}

#[tokio::test]
async fn the_proxy_lets_just_so_much_pass() -> Result<()> {
    let server = Dovecot::start(Options::new("metered").users(["ann"]))?;
    let proxy = Proxy::to(server.imap_address()).await?;
    let mut client = Client::log_in(proxy.address(), "ann", PASSWORD).await?;
    client.append("INBOX", &[], None, &Mail::from_seed(1).plain(300_000)).await?;
    proxy.allow(100_000);
    let limit = proxy.bytes_to_client() + 100_000;
    let reading = tokio::spawn(async move { client.snapshot().await });
    wait::until("all that may pass has passed", PATIENCE, async || Ok(proxy.bytes_to_client() == limit)).await?;
    Client::log_in(server.imap_address(), "ann", PASSWORD).await?.log_out().await;
    assert!(proxy.bytes_to_client() == limit && !reading.is_finished());
    proxy.set(Mode::Pass);
    assert_eq!(reading.await??.folders["INBOX"].messages.len(), 1);
    Ok(())
}

#[test]
fn odd_mail_is_found_where_it_is() -> Result<()> {
    let messages = odd_mail()?;
    assert!(messages.is_empty() || messages.len() > 1000, "{} odd messages", messages.len());
    Ok(())
}
