//! Calls what operators put beside Understudy: a command in the folder of hooks, or a signed request.
//!
//! In: a [`Hook`] of a policy and what happened, as JSON. Out: what it answered, or why that is a failure.
//! Keeps true: only files in that one folder are run, without a shell and without our environment; what takes too long is ended.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};
use understudy_protocol::policy::Hook;
use understudy_webhook::{Allowed, Target};

/// So much of what a command says is kept.
const LONGEST_ANSWER: u64 = 2000;
/// What commands find as PATH.
const SEARCHED: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where commands and secrets of hooks lie. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Hooks {
    folder: Option<Arc<Path>>,
}

impl Hooks {
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder: folder.map(Into::into) }
    }

    /// Calls a hook. `id` stays the same however often it is called for the same.
    pub(crate) async fn call(&self, hook: &Hook, id: &str, what: &Value) -> Result<String, String> {
        let limit = Duration::try_from_secs_f64(hook.timeout_seconds()).unwrap_or(Duration::from_secs(30));
        let called = async {
            match (&hook.command, &hook.webhook) {
                (Some(command), _) => run(&self.file(command)?, what).await,
                (None, Some(url)) => self.send(url, hook, id, what).await,
                (None, None) => Err("it names neither a command nor a webhook".to_owned()),
            }
        };
        let late = || Err(format!("it was not done within {} s", limit.as_secs_f64()));
        timeout(limit, called).await.unwrap_or_else(|_| late())
    }

    fn file(&self, name: &str) -> Result<PathBuf, String> {
        let folder = self.folder.as_deref();
        let folder = folder.ok_or("this recovery gateway has no folder of hooks: set `hooks` under [recovery]")?;
        Ok(folder.join(name))
    }

    async fn send(&self, url: &str, hook: &Hook, id: &str, what: &Value) -> Result<String, String> {
        let secret = self.file(hook.secret_file.as_deref().unwrap_or_default())?;
        let text = tokio::fs::read_to_string(&secret).await;
        let text = text.map_err(|error| format!("its secret {} cannot be read: {error}", secret.display()))?;
        let networks: &[&str] = if hook.allow_private { &["0.0.0.0/0", "::/0"] } else { &[] };
        let target = Target {
            url: url.parse().map_err(|error| format!("{url} is no URL: {error}"))?,
            secret: SecretString::from(text.lines().next().unwrap_or_default()),
            allowed: Allowed::try_from(networks)?,
        };
        let delivered = understudy_webhook::send(&target, id, &what.to_string()).await;
        delivered.map(|delivered| format!("answered {}", delivered.status)).map_err(|error| error.to_string())
    }
}

async fn run(file: &Path, what: &Value) -> Result<String, String> {
    let event = what["event"].as_str().unwrap_or_default();
    let mut child = Command::new(file)
        .current_dir("/")
        .env_clear()
        .env("PATH", SEARCHED)
        .env("UNDERSTUDY_EVENT", event)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{} cannot be run: {error}", file.display()))?;
    let (mut input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let told = async {
        if let Some(input) = &mut input {
            // Who does not read it does not need it.
            let _ = input.write_all(what.to_string().as_bytes()).await;
        }
        drop(input);
    };
    let ((), said, complained, ended) = tokio::join!(told, beginning(output), beginning(errors), child.wait());
    let ended = ended.map_err(|error| format!("{} was lost: {error}", file.display()))?;
    let said = format!("{said}{complained}");
    let said = said.trim();
    match ended.success() {
        true => Ok(if said.is_empty() { "done".to_owned() } else { said.to_owned() }),
        false => Err(format!("it ended with {ended}{}{said}", if said.is_empty() { "" } else { ": " })),
    }
}

/// The beginning of what somebody says; the rest is read and forgotten.
async fn beginning(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut said = Vec::new();
    let _ = (&mut stream).take(LONGEST_ANSWER).read_to_end(&mut said).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&said).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    fn folder(script: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hook");
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    async fn called(script: &str, seconds: f64) -> Result<String, String> {
        let folder = folder(script);
        let hooks = Hooks::new(Some(folder.path().to_owned()));
        let hook = Hook { command: Some("hook".to_owned()), timeout_seconds: Some(seconds), ..Hook::default() };
        hooks.call(&hook, "1", &json!({ "event": "before_switchover" })).await
    }

    #[tokio::test]
    async fn a_command_is_told_what_happens_and_sees_nothing_of_ours() {
        let said = called("#!/bin/sh\necho \"$UNDERSTUDY_EVENT $CARGO_MANIFEST_DIR\" && cat\n", 60.0).await.unwrap();
        assert_eq!(said, "before_switchover \n{\"event\":\"before_switchover\"}");
    }

    #[tokio::test]
    async fn failures_and_delays_are_told() {
        let failed = called("#!/bin/sh\necho not today >&2\nexit 3\n", 60.0).await.unwrap_err();
        assert_eq!(failed, "it ended with exit status: 3: not today");
        assert_eq!(called("#!/bin/sh\nexec sleep 600\n", 0.2).await.unwrap_err(), "it was not done within 0.2 s");
        let nowhere = Hooks::new(None);
        let hook = Hook { command: Some("hook".to_owned()), ..Hook::default() };
        assert!(nowhere.call(&hook, "1", &json!({})).await.unwrap_err().contains("no folder of hooks"));
    }
}
