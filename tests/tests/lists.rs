//! Lists of mailboxes and configuration files: half-bad ones change nothing and say where they are bad.

use std::fs;

use anyhow::{Context as _, Result};
use understudy_tests::dovecot::{Dovecot, MASTER, Options};
use understudy_tests::scenario::{PRIMARY, STANDBY, Scenario};

async fn addresses(scenario: &Scenario) -> Result<Vec<String>> {
    let list = scenario.stack.json(&["mailbox", "list"]).await?;
    let list = list.as_array().or_else(|| list["items"].as_array()).context("not a list")?.clone();
    let mut addresses: Vec<String> =
        list.iter().filter_map(|mailbox| Some(mailbox["address"].as_str()?.to_owned())).collect();
    addresses.sort();
    Ok(addresses)
}

#[tokio::test]
async fn a_half_bad_list_changes_nothing_unless_told_to_skip() -> Result<()> {
    let scenario = Scenario::start(&["ann", "bob", "cleo"]).await?;
    let list = scenario.stack.dir().join("list.csv");
    let protect = async |more: &[&str]| {
        let path = list.display().to_string();
        scenario.stack.command(&[&["mailbox", "protect", "--from-file", &path], more].concat()).await
    };
    fs::write(
        &list,
        format!("address,primary,standby\nann,{PRIMARY},{STANDBY}\nbob,mail-b,{STANDBY}\ncleo,{PRIMARY},{STANDBY}\n"),
    )?;
    let refused = protect(&[]).await?;
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    assert!(
        refused.stderr.contains('3') && refused.stderr.contains(PRIMARY),
        "line and nearest name: {}",
        refused.stderr
    );
    assert_eq!(addresses(&scenario).await?, Vec::<String>::new());

    let partly = protect(&["--skip-invalid"]).await?.expect(3)?;
    assert!(partly.stdout.contains("bob") || partly.stderr.contains("bob"), "{partly:?}");
    assert_eq!(addresses(&scenario).await?, ["ann", "cleo"]);

    fs::write(&list, format!("address,primary,standby\nann,{PRIMARY},{STANDBY}\nbob,{PRIMARY},{STANDBY}\n"))?;
    protect(&[]).await?.expect(0)?;
    assert_eq!(addresses(&scenario).await?, ["ann", "bob", "cleo"], "protecting again changes nothing");
    scenario.settle_and_compare(&["ann", "bob", "cleo"]).await
}

#[tokio::test]
async fn a_primary_with_a_management_interface_names_all_its_users() -> Result<()> {
    let users = ["ann", "bob", "cleo"];
    let scenario = Scenario::start(&users).await?;
    let listing = Dovecot::start(Options::new("mail-b").users(users).without_fsync().managed())?;
    let (imap, doveadm) = (listing.imap_url(), listing.doveadm_url());
    let password = listing.master_password_file().display().to_string();
    let key = listing.key_file().context("no key")?.display().to_string();
    let login = ["--login", "master", "--user", MASTER, "--password-file", &password];
    let add = [&["server", "add", "mail-b", "--role", "primary", "--imap", &imap], &login[..]].concat();
    scenario.stack.command(&add).await?.expect(0)?;
    let protect = ["mailbox", "protect", "--discover", "--primary", "mail-b", "--standby", STANDBY, "--yes"];
    let refused = scenario.stack.command(&protect).await?.expect(1)?;
    assert!(refused.stderr.contains("server change mail-b --doveadm"), "{refused:?}");

    // As it was told.
    let change = ["server", "change", "mail-b", "--doveadm", &doveadm, "--doveadm-key-file", &key];
    scenario.stack.command(&change).await?.expect(0)?;
    let discovered = scenario.stack.command(&protect).await?.expect(0)?;
    assert!(discovered.stdout.contains("3 users"), "{discovered:?}");
    assert_eq!(addresses(&scenario).await?, users);
    scenario.settle().await?;
    scenario.stack.command(&["mailbox", "verify", "--all", "--deep"]).await?.expect(0)?;

    // Only primaries are asked.
    let refused =
        scenario.stack.command(&["mailbox", "protect", "--discover", "--primary", STANDBY, "--standby", STANDBY]);
    assert_ne!(refused.await?.code, 0);
    Ok(())
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_its_line_and_the_nearest_name() -> Result<()> {
    let scenario = Scenario::start(&[]).await?;
    let path = scenario.stack.dir().join("wrong.toml");
    fs::write(&path, "data_dir = \"data\"\n\n[admin]\nlisen = \"127.0.0.1:0\"\n")?;
    let path = path.display().to_string();
    let refused = scenario.stack.command(&["--config", &path, "config", "check"]).await?;
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("4") && refused.stderr.contains("listen"), "{}", refused.stderr);
    let refused = scenario.stack.command(&["mailbox", "show", "nobody"]).await?.expect(1)?;
    assert!(refused.stderr.contains("nobody"), "{}", refused.stderr);
    Ok(())
}
