//! What a mail server can do, and what each thing means for mirroring.

use understudy_imap_session::{Address, Capabilities, Error, Login, Session};
use understudy_protocol::{
    messages::{Finding, ServerCheck},
    server::{LoginMethod, Server, ServerRole},
};

use crate::{software, trouble::explain};

/// A capability, whom it matters to, and what it means to have or to lack it.
struct Meaning {
    name: &'static str,
    role: Option<ServerRole>,
    with: &'static str,
    without: &'static str,
}

const MEANINGS: [Meaning; 10] = [
    Meaning {
        name: "QRESYNC",
        role: Some(ServerRole::Primary),
        with: "changes and removals are read from the server's journal; nothing is listed twice",
        without: "removals are found by comparing lists of UIDs; that costs more in large folders",
    },
    Meaning {
        name: "CONDSTORE",
        role: Some(ServerRole::Primary),
        with: "changed flags are read from the server's journal",
        without: "flags are compared message by message, every 15 seconds; changes arrive later and cost more",
    },
    Meaning {
        name: "NOTIFY",
        role: Some(ServerRole::Primary),
        with: "the server says at once when any folder changed",
        without: "folders other than INBOX are asked by timer",
    },
    Meaning {
        name: "IDLE",
        role: Some(ServerRole::Primary),
        with: "the server says at once when INBOX changed",
        without: "INBOX is asked by timer",
    },
    Meaning {
        name: "LIST-STATUS",
        role: None,
        with: "all folders are looked over in one round trip",
        without: "every folder is asked by itself",
    },
    Meaning {
        name: "UIDPLUS",
        role: Some(ServerRole::Standby),
        with: "removals name exactly the messages meant, and the server says which UIDs new messages got",
        without: "messages cannot be removed one by one: this server cannot hold an exact mirror",
    },
    Meaning {
        name: "MULTIAPPEND",
        role: Some(ServerRole::Standby),
        with: "many messages are written by one command, all or none; several times as fast",
        without: "messages are written one by one; the first copy takes longer",
    },
    Meaning {
        name: "LITERAL+",
        role: Some(ServerRole::Standby),
        with: "messages are sent without waiting for leave",
        without: "every message waits for one more round trip",
    },
    Meaning {
        name: "MOVE",
        role: Some(ServerRole::Standby),
        with: "messages can be moved in one step",
        without: "moves are made of a copy and a removal",
    },
    Meaning {
        name: "SPECIAL-USE",
        role: None,
        with: "the purpose of folders (Sent, Drafts, …) is known",
        without: "the purpose of folders is not known and not mirrored",
    },
];

/// Logs in as `address` and says what the server offers. Without an address only the way there is tried.
pub async fn check(server: &Server, address: Option<&str>, mask: &[String]) -> ServerCheck {
    let opened = async {
        let at = Address::parse(&server.imap, server.ca_file.clone())?;
        let login = match address {
            Some(address) => Login::for_user(&server.login, address).await?,
            None => anybody(server).await?,
        };
        let mut session = Session::open(&at, &login).await?;
        session.mask(mask);
        Ok(session)
    };
    match opened.await {
        Ok(session) => {
            let capabilities = session.capabilities().clone();
            let mut findings = vec![ok("log-in", "the log-in works")];
            if let Some(software) = session.software() {
                findings.push(ok("software", software));
            }
            findings.extend(survey(&capabilities, server.role));
            findings.extend(software::findings(session.software().unwrap_or_default(), server.role));
            if server.role == ServerRole::Primary {
                findings.push(ok("capture", &format!("changes are captured by {}", session.level())));
            }
            session.logout().await;
            ServerCheck { capabilities: capabilities.iter().map(ToString::to_string).collect(), findings }
        }
        Err(error) => ServerCheck { capabilities: Vec::new(), findings: vec![failed(server, address, &error)] },
    }
}

/// Some log-in, to see whether the server answers at all.
async fn anybody(server: &Server) -> Result<Login, Error> {
    let user = server.login.user.clone().unwrap_or_else(|| "understudy".to_owned());
    match server.login.method {
        LoginMethod::Each => Ok(Login::Password { user, password: String::new().into() }),
        LoginMethod::Master | LoginMethod::Authzid => Login::for_user(&server.login, &user).await,
    }
}

fn failed(server: &Server, address: Option<&str>, error: &Error) -> Finding {
    let trouble = explain(&server.name, error);
    if address.is_none() && error.kind() == "login_refused" {
        return Finding {
            level: "note".to_owned(),
            name: "log-in".to_owned(),
            meaning: "the server answers; whether the log-in works can only be tried with a mailbox".to_owned(),
            remedy: "Name a mailbox with --address, or protect one.".to_owned(),
        };
    }
    Finding { level: "failed".to_owned(), name: trouble.kind, meaning: trouble.reason, remedy: trouble.remedy }
}

fn survey(capabilities: &Capabilities, role: ServerRole) -> Vec<Finding> {
    MEANINGS
        .iter()
        .filter(|meaning| meaning.role.is_none_or(|only| only == role))
        .map(|meaning| {
            let has = capabilities.has(meaning.name) || (meaning.name == "CONDSTORE" && capabilities.has("QRESYNC"));
            if has {
                return ok(meaning.name, meaning.with);
            }
            let essential = meaning.name == "UIDPLUS";
            Finding {
                level: if essential { "failed" } else { "note" }.to_owned(),
                name: meaning.name.to_owned(),
                meaning: format!("not offered: {}", meaning.without),
                remedy: if essential { "Use a standby server that offers UIDPLUS (RFC 4315)." } else { "" }.to_owned(),
            }
        })
        .collect()
}

fn ok(name: &str, meaning: &str) -> Finding {
    Finding { level: "ok".to_owned(), name: name.to_owned(), meaning: meaning.to_owned(), remedy: String::new() }
}
