//! The built program as a shell sees it: exit codes, and what is said where.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the program with nothing of our own environment but what it needs.
fn understudy(dir: &Path, arguments: &[&str]) -> Output {
    understudy_with(dir, arguments, &[])
}

fn understudy_with(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("UNDERSTUDY__DATA_DIR", dir.join("data"))
        .envs(environment.iter().copied())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn help_and_version_are_no_errors() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in
        [&["--help"][..], &["help"], &["--version"], &["mailbox", "protect", "--help"], &["help", "mailbox", "wait"]]
    {
        let output = understudy(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(stdout(&understudy(dir.path(), &["--version"])), format!("understudy {}\n", env!("CARGO_PKG_VERSION")));
}

/// What the contract says that a command takes.
fn flags(command: &str) -> &'static [&'static str] {
    match command {
        "server add" => &[
            "--role",
            "--imap",
            "--ca",
            "--login",
            "--user",
            "--password-file",
            "--form",
            "--lmtp",
            "--doveadm",
            "--doveadm-key-file",
        ],
        "mailbox protect" => {
            &["--primary", "--standby", "--standby-address", "--policy", "--group", "--from-file", "--discover"]
        }
        "mailbox unprotect" => &["--keep-standby"],
        "mailbox wait" => &["--all", "--timeout"],
        "switchover" => &["--server", "--group", "--all", "--mode", "--wait"],
        "switchback" => &["--server", "--group", "--all", "--wait"],
        "status" => &["--watch"],
        "preflight" => &["--fix"],
        "token create" => &["--role", "--name"],
        "report billing" => &["--from", "--to", "--format"],
        "up" => &["--ready-file"],
        _ => &[],
    }
}

#[test]
fn every_command_of_the_contract_has_help() {
    let dir = tempfile::tempdir().unwrap();
    let commands = [
        "up",
        "source",
        "recovery",
        "admin",
        "server add",
        "server list",
        "server show",
        "server remove",
        "server check",
        "mailbox protect",
        "mailbox list",
        "mailbox show",
        "mailbox pause",
        "mailbox resume",
        "mailbox unprotect",
        "mailbox wait",
        "mailbox verify",
        "switchover",
        "switchback",
        "status",
        "events",
        "run list",
        "run show",
        "run cancel",
        "token create",
        "token list",
        "token revoke",
        "preflight",
        "link invite",
        "link join",
        "link list",
        "link revoke",
        "user add",
        "user list",
        "report billing",
        "report availability",
        "policy list",
        "policy show",
        "audit list",
        "audit verify",
        "config check",
        "config show",
        "completions",
    ];
    for command in commands {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.push("--help");
        let output = understudy(dir.path(), &arguments);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", stderr(&output));
        let help = stdout(&output);
        for flag in ["--config"].iter().chain(flags(command)) {
            assert!(help.contains(flag), "{command} does not take {flag}:\n{help}");
        }
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["mailbx"][..],
        &[],
        &["mailbox", "wait"],
        &["mailbox", "wait", "--all", "ana"],
        &["mailbox", "wait", "--all", "--timeout", "soon"],
        &["mailbox", "protect", "ana"],
        &["mailbox", "protect", "--discover", "--standby", "dr-1"],
        &["server", "add", "mail-a", "--role", "third", "--imap", "imaps://x", "--login", "master"],
        &["token", "create", "--name", "x", "--role", "emperor"],
    ] {
        let output = understudy(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_bad_configuration_ends_with_2_and_names_line_and_nearest_key() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("understudy.toml"), "data_dir = \"d\"\n\n[admin]\nlisten_on = \"127.0.0.1:1\"\n")
        .unwrap();
    let output = understudy(dir.path(), &["--config", "understudy.toml", "config", "check"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "error: the configuration has a mistake\n  \
         why: understudy.toml:4: unknown key \"listen_on\" in [admin]\n  \
         do:  did you mean \"listen\"?\n"
    );
    // Whatever else is asked for is refused the same way.
    assert_eq!(understudy(dir.path(), &["--config", "understudy.toml", "up"]).status.code(), Some(2));
    assert_eq!(understudy(dir.path(), &["--config", "understudy.toml", "status"]).status.code(), Some(2));
}

#[test]
fn several_mistakes_are_named_together() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("understudy.toml"), "data_dir = 1\n[admn]\n").unwrap();
    let output = understudy(dir.path(), &["config", "check", "--config", "understudy.toml"]);
    let said = stderr(&output);
    assert!(
        said.contains("2 mistakes") && said.contains("understudy.toml:1:") && said.contains("understudy.toml:2:"),
        "{said}"
    );
}

#[test]
fn a_missing_configuration_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let output = understudy_with(dir.path(), &["config", "show"], &[("UNDERSTUDY_CONFIG", "nowhere.toml")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot read the configuration nowhere.toml"), "{}", stderr(&output));
}

#[test]
fn a_good_configuration_is_shown_with_origins_and_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("understudy.toml"), "[database]\nurl = \"postgres://u:geheim@db/x\"\n").unwrap();
    let output = understudy_with(
        dir.path(),
        &["--config", "understudy.toml", "config", "show"],
        &[("UNDERSTUDY__ADMIN__LISTEN", "127.0.0.1:9090")],
    );
    let shown = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(shown.contains("postgres://u:***@db/x") && shown.contains("# understudy.toml:2"), "{shown}");
    assert!(shown.contains("# UNDERSTUDY__ADMIN__LISTEN") && !shown.contains("geheim"), "{shown}");
    let json = understudy(dir.path(), &["--config", "understudy.toml", "config", "show", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["recovery"]["listen"], "127.0.0.1:8443");
}

#[test]
fn without_a_running_understudy_a_command_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let output = understudy(dir.path(), &["status"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.contains("start it with `understudy up`"), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn an_address_that_does_not_answer_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let output = understudy_with(dir.path(), &["status"], &[("UNDERSTUDY_URL", "http://127.0.0.1:1")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("Understudy at http://127.0.0.1:1 did not answer"), "{}", stderr(&output));
    let output = understudy_with(dir.path(), &["status"], &[("UNDERSTUDY_URL", "mail.example.org")]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_role_alone_is_refused_without_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    // In clear text only.
    let clear = understudy_with(dir.path(), &["recovery"], &[("UNDERSTUDY__RECOVERY__PLAINTEXT", "true")]);
    assert_eq!(clear.status.code(), Some(2), "{}", stderr(&clear));
    assert!(stderr(&clear).contains("secret_file"), "{}", stderr(&clear));
    for (role, needs) in [("admin", "[database] url"), ("source", "understudy link join")] {
        let output = understudy(dir.path(), &[role]);
        assert_eq!(output.status.code(), Some(2), "{role}: {}", stderr(&output));
        assert!(stderr(&output).contains(needs), "{role}: {}", stderr(&output));
    }
}

#[test]
fn a_port_in_use_is_named_with_its_setting() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = understudy_with(dir.path(), &["up"], &[("UNDERSTUDY__ADMIN__LISTEN", &address)]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains(&format!("cannot listen on {address}")) && said.contains("under [admin]"), "{said}");
}

#[test]
fn completions_are_made_for_each_shell() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = understudy(dir.path(), &["completions", shell]);
        assert!(output.status.success() && stdout(&output).contains("understudy"), "{shell}");
    }
}

#[test]
fn a_database_that_does_not_answer_is_named_without_its_password() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [
        ("UNDERSTUDY__DATABASE__URL", "postgres://ann:geheim@127.0.0.1:1/mail"),
        ("UNDERSTUDY__ADMIN__LISTEN", "127.0.0.1:0"),
        ("UNDERSTUDY__RECOVERY__LISTEN", "127.0.0.1:0"),
    ];
    let output = understudy_with(dir.path(), &["up"], &environment);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("the database mail on 127.0.0.1 cannot be used"), "{said}");
    assert!(said.contains("refused") && !said.contains("geheim"), "{said}");
}
