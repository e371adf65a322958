//! What a server's definition must keep to. Pure.

use std::{net::IpAddr, path::Path};

use understudy_protocol::server::{LoginConfig, LoginMethod, Server, ServerRole};
use url::Url;

use crate::error::ProblemItem;

/// The longest name.
const LONGEST_NAME: usize = 64;

/// Everything that is wrong with `server`.
pub(crate) fn problems(server: &Server) -> Vec<ProblemItem> {
    let mut problems = Vec::new();
    problems.extend(name_problem(&server.name));
    problems.extend(url_problem("/imap", &server.imap, &["imaps", "imap", "imap+insecure"], Some("imap+insecure")));
    problems.extend(server.ca_file.as_deref().and_then(|file| file_problem("/ca_file", file)));
    if let Some(submission) = &server.submission {
        problems.extend(url_problem("/submission", submission, &["smtp", "smtps"], None));
    }
    if let Some(lmtp) = &server.lmtp {
        problems.extend(url_problem("/lmtp", lmtp, &["lmtp"], None));
    }
    if let Some(manage) = &server.manage {
        problems.extend(url_problem("/manage/doveadm", &manage.doveadm, &["https", "http"], Some("http")));
        problems.extend(file_problem("/manage/key_file", &manage.key_file));
    }
    if let Some(canary) = &server.canary {
        if canary.address.trim().is_empty() {
            problems.push(ProblemItem::at("/canary/address", "name the mailbox that is there for checks"));
        }
        problems.extend(canary.password_file.as_deref().and_then(|file| file_problem("/canary/password_file", file)));
    }
    login_problems("/login", &server.login, &mut problems);
    if let Some(login) = &server.return_login {
        login_problems("/return_login", login, &mut problems);
        if server.role == ServerRole::Standby {
            problems.push(ProblemItem::at("/return_login", "a standby is always written to; only a primary has one"));
        }
    }
    problems
}

fn name_problem(name: &str) -> Option<ProblemItem> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = starts_well && name.len() <= LONGEST_NAME && name.chars().all(known);
    let detail =
        format!("a name has 1 to {LONGEST_NAME} letters, digits, `-`, `_` or `.` and begins with a letter or digit");
    (!good).then(|| ProblemItem::at("/name", detail))
}

/// A URL of one of `schemes` that names a host and nothing else; the `plain` scheme only on loopback.
fn url_problem(pointer: &str, text: &str, schemes: &[&str], plain: Option<&str>) -> Option<ProblemItem> {
    let problem = |detail: String| Some(ProblemItem::at(pointer, detail));
    let forms: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://HOST")).collect();
    let expected = forms.join(" or ");
    let Ok(url) = Url::parse(text) else { return problem(format!("this is no URL; write {expected}")) };
    if !schemes.contains(&url.scheme()) {
        return problem(format!("`{}` is not known here; write {expected}", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return problem("a URL must not carry a user or a password; name them in `login` and a file".to_owned());
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return problem(format!("the URL names no host; write {expected}"));
    };
    if url.query().is_some() || url.fragment().is_some() {
        return problem("the URL ends with the host and port".to_owned());
    }
    if plain == Some(url.scheme()) && !is_loopback(host) {
        return problem(format!("`{}` sends passwords in the clear, so it is for loopback only", url.scheme()));
    }
    None
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn file_problem(pointer: &str, file: &Path) -> Option<ProblemItem> {
    let detail = "name the file by its whole path, from /, as the gateway sees it";
    (!file.is_absolute()).then(|| ProblemItem::at(pointer, detail))
}

fn login_problems(at: &str, login: &LoginConfig, problems: &mut Vec<ProblemItem>) {
    let user = login.user.as_deref().filter(|user| !user.is_empty());
    match (login.method, user) {
        (LoginMethod::Master, None) => problems.push(ProblemItem::at(format!("{at}/user"), "name the master user")),
        (LoginMethod::Authzid, None) => {
            problems.push(ProblemItem::at(format!("{at}/user"), "name the user who may act for all others"));
        }
        (LoginMethod::Each, Some(_)) => {
            problems.push(ProblemItem::at(format!("{at}/user"), "`each` logs in as each user; leave it out"));
        }
        _ => {}
    }
    match &login.password_file {
        Some(file) => problems.extend(file_problem(&format!("{at}/password_file"), file)),
        None => problems.push(ProblemItem::at(format!("{at}/password_file"), "name the file that holds the password")),
    }
    problems.extend(form_problem(at, login.method, login.form.as_deref()));
}

fn form_problem(at: &str, method: LoginMethod, form: Option<&str>) -> Option<ProblemItem> {
    let form = form?;
    if method != LoginMethod::Master {
        return Some(ProblemItem::at(format!("{at}/form"), "only a `master` log-in has a form"));
    }
    let detail = "the form names `{user}` and may name `{master}`, as in `{user}*{master}`";
    (!form.contains("{user}")).then(|| ProblemItem::at(format!("{at}/form"), detail))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use understudy_protocol::server::Manage;

    use super::*;

    fn server() -> Server {
        Server {
            name: "mail-a".to_owned(),
            role: ServerRole::Primary,
            imap: "imaps://mail-a.example.org".to_owned(),
            ca_file: None,
            login: LoginConfig {
                method: LoginMethod::Master,
                user: Some("understudy".to_owned()),
                password_file: Some(PathBuf::from("/etc/understudy/mail-a")),
                form: None,
            },
            return_login: None,
            lmtp: None,
            submission: None,
            manage: None,
            canary: None,
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Server), pointers: &[&str]) {
        let mut server = server();
        change(&mut server);
        let found: Vec<String> = problems(&server).into_iter().filter_map(|problem| problem.pointer).collect();
        assert_eq!(found, pointers);
    }

    #[test]
    fn a_definition_is_refused_at_the_member_that_is_wrong() {
        check(|_| {}, &[]);
        check(|server| server.name = "mail a".to_owned(), &["/name"]);
        check(|server| server.imap = "mail-a.example.org".to_owned(), &["/imap"]);
        check(|server| server.imap = "https://mail-a.example.org".to_owned(), &["/imap"]);
        check(|server| server.imap = "imaps://understudy:secret@mail-a.example.org".to_owned(), &["/imap"]);
        check(|server| server.imap = "imap+insecure://mail-a.example.org".to_owned(), &["/imap"]);
        check(|server| server.imap = "imap+insecure://127.0.0.1:1143".to_owned(), &[]);
        check(|server| server.imap = "imap+insecure://[::1]:1143".to_owned(), &[]);
        check(|server| server.ca_file = Some(PathBuf::from("ca.pem")), &["/ca_file"]);
        check(|server| server.login.user = None, &["/login/user"]);
        check(|server| server.login.password_file = None, &["/login/password_file"]);
        check(|server| server.login.form = Some("{master}".to_owned()), &["/login/form"]);
        check(|server| server.login.method = LoginMethod::Each, &["/login/user"]);
    }

    #[test]
    fn a_management_interface_has_a_url_and_a_key_file() {
        for role in [ServerRole::Primary, ServerRole::Standby] {
            let managed = |doveadm: &str, key_file: &str, expected: &[&str]| {
                let manage = Manage { doveadm: doveadm.to_owned(), key_file: PathBuf::from(key_file) };
                let change = |server: &mut Server| {
                    server.role = role;
                    server.manage = Some(manage);
                };
                check(change, expected);
            };
            managed("https://dr-1:8080", "/key", &[]);
            managed("imap://dr-1:8080", "/key", &["/manage/doveadm"]);
            managed("https://dr-1:8080", "key", &["/manage/key_file"]);
        }
    }
}
