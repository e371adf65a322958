//! A copy of the routes that a Dovecot proxy uses while the database does not answer: a `passwd-file`.
//!
//! Keeps true: the file is replaced whole; a reader never finds half of it, and notices every new one. Mail for a mailbox that is
//! changing sides goes to neither of them by it.

use std::{
    fmt::Write as _,
    fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use understudy_database::front_door::Form;

/// The file's text. Log-ins that such a file cannot hold are left out.
pub(crate) fn text(forms: &[Form], homes: &[Form]) -> String {
    let mut text = String::with_capacity(forms.len() * 120);
    text.push_str("# Written by Understudy; changes are lost. Format: service/log-in, then where it goes.\n");
    for form in forms {
        // Fields end at colons, extra fields at spaces.
        let words = [&form.form, &form.address, &form.login, &form.host];
        if words.iter().any(|word| word.contains([':', ' ', '\t', '\n', '\r'])) {
            continue;
        }
        let _ = writeln!(
            text,
            "{}/{}:{} user={} destuser={}",
            form.service,
            form.form,
            place(form),
            form.address,
            form.login
        );
    }
    for home in homes {
        // A domain can be asked for, nobody's name begins with an asterisk.
        let _ = writeln!(text, "{}/*@{}:{}", home.service, home.form, place(home));
    }
    text
}

/// A port of the proxy's own machine at which nobody answers: what is delivered there is put off with 451.
const NOWHERE: &str = "::::::nopassword=y proxy=y proxy_timeout=10 host=127.0.0.1 port=1";

fn place(form: &Form) -> String {
    if form.held && form.service == "lmtp" {
        return NOWHERE.to_owned();
    }
    let tls = match form.tls.as_deref() {
        Some("ssl") => " ssl=yes",
        Some(_) => " starttls=yes",
        None => "",
    };
    format!("::::::nopassword=y proxy=y proxy_timeout=10 host={} port={}{tls}", form.host, form.port)
}

/// Replaces the file, unless it says the same already. Answers whether it did.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|before| before == text.as_bytes()) {
        return Ok(false);
    }
    let fresh = PathBuf::from(format!("{}.new", path.display()));
    let mut file = fs::File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    // Dovecot compares whole seconds and the length: two changes within a second must differ in time.
    if let Ok(before) = fs::metadata(path).and_then(|metadata| metadata.modified()) {
        file.set_modified(SystemTime::now().max(before + Duration::from_secs(1)))?;
    }
    // The log-in checks of a proxy run as another user. There is no secret in it.
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o644))?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(form: &str) -> Form {
        Form {
            form: form.to_owned(),
            address: "ana".to_owned(),
            login: "ana@dr".to_owned(),
            service: "imap".to_owned(),
            host: "dr-1.example.org".to_owned(),
            port: 993,
            tls: Some("ssl".to_owned()),
            held: false,
        }
    }

    #[test]
    fn a_log_in_that_would_break_the_file_is_left_out() {
        let text = text(&[form("ana"), form("a:b"), form("a b")], &[form("")]);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "imap/ana:::::::nopassword=y proxy=y proxy_timeout=10 host=dr-1.example.org port=993 ssl=yes user=ana destuser=ana@dr",
                "imap/*@:::::::nopassword=y proxy=y proxy_timeout=10 host=dr-1.example.org port=993 ssl=yes"
            ]
        );
    }

    #[test]
    fn mail_for_who_is_changing_sides_is_put_off() {
        let held = |service: &str| Form { service: service.to_owned(), held: true, ..form("ana") };
        let text = text(&[held("imap"), held("lmtp")], &[]);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "imap/ana:::::::nopassword=y proxy=y proxy_timeout=10 host=dr-1.example.org port=993 ssl=yes user=ana destuser=ana@dr",
                "lmtp/ana:::::::nopassword=y proxy=y proxy_timeout=10 host=127.0.0.1 port=1 user=ana destuser=ana@dr"
            ]
        );
    }

    #[test]
    fn every_new_file_is_a_second_younger() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("routes");
        assert!(replace(&path, "one").expect("written"));
        let first = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("a time");
        assert!(!replace(&path, "one").expect("looked at"));
        assert!(replace(&path, "two").expect("written"));
        let second = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("a time");
        assert!(second >= first + Duration::from_secs(1));
    }
}
