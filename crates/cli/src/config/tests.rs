use std::path::PathBuf;

use understudy_admin_api::SettingOrigin;

use super::*;

const FILE: &str = "understudy.toml";

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    parse(Some(PathBuf::from(FILE)), text, variables)
}

/// The one problem of a bad configuration, as "place: what | remedy".
#[track_caller]
fn refused(text: &str, variables: &[(&str, &str)]) -> String {
    match read(text, variables) {
        Err(ConfigError::Problems(problems)) => {
            assert_eq!(problems.len(), 1, "{problems:?}");
            format!("{} | {}", problems[0], problems[0].remedy)
        }
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("was accepted"),
    }
}

const FULL: &str = r#"
data_dir = "/srv/understudy"

[database]
url = "postgres://ann:geheim@db.example.org/understudy"

[admin]
listen = "127.0.0.1:0"
public_url = "https://understudy.example.org"

[recovery]
listen = "0.0.0.0:8443"
url = ["https://dr.example.org:8443"]

[source]
recovery_url = ["https://dr.example.org:8443"]

[content]
store = "file"

[link]
secret_file = "link.secret"

[[server]]
name = "mail-a"
role = "primary"
imap = "imaps://mail-a.example.org"
login = { as = "master", user = "understudy", password_file = "/etc/pw", form = "{user}*{master}" }

[[server]]
name = "dr-1"
role = "standby"
imap = "imap+insecure://127.0.0.1:1143"
lmtp = "lmtp://127.0.0.1:24"
[server.login]
as = "authzid"
user = "understudy"
password_file = "pw"
[server.manage]
doveadm = "http://127.0.0.1:8080"
key_file = "/etc/key"
"#;

#[test]
fn the_whole_file_is_understood() {
    let config = read(FULL, &[]).map_err(|error| format!("{error:?}")).unwrap().config;
    assert_eq!(config.data_dir, PathBuf::from("/srv/understudy"));
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:0");
    assert_eq!(config.recovery_urls.as_deref(), Some(&["https://dr.example.org:8443".to_owned()][..]));
    assert_eq!(config.servers.len(), 2);
    assert_eq!(config.servers[0].name, "mail-a");
    assert!(config.servers[1].login.password_file.as_ref().unwrap().is_absolute());
    assert_eq!(config.servers[1].manage.as_ref().unwrap().doveadm, "http://127.0.0.1:8080");
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = read("", &[]).map_err(|error| format!("{error:?}")).unwrap().config;
    assert_eq!(config.admin_listen, DEFAULT_ADMIN);
    assert!(config.database.is_none());
    assert!(matches!(config.link_secret, LinkSecret::Own));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
    assert_eq!(
        refused("\n[admin]\n# here\nlisen = \"127.0.0.1:1\"\n", &[]),
        "understudy.toml:4: unknown key \"lisen\" in [admin] | did you mean \"listen\"?"
    );
    assert_eq!(
        refused("[admn]\nlisten = \"127.0.0.1:1\"\n", &[]),
        "understudy.toml:1: unknown key \"admn\" at the top of the file | did you mean \"admin\"?"
    );
}

#[test]
fn an_unknown_key_of_a_server_is_named_with_its_line() {
    let text = FULL.replace("lmtp = ", "lmpt = ");
    let line = text.lines().position(|line| line.starts_with("lmpt")).unwrap() + 1;
    assert_eq!(
        refused(&text, &[]),
        format!("understudy.toml:{line}: unknown key \"lmpt\" in [server] | did you mean \"lmtp\"?")
    );
    let text = FULL.replace("user = \"understudy\", password", "usr = \"x\", user = \"understudy\", password");
    assert!(refused(&text, &[]).contains("unknown key \"usr\" in [server.login] | did you mean \"user\"?"));
}

#[test]
fn a_wrong_type_is_named_with_its_line() {
    assert_eq!(
        refused("data_dir = \"/x\"\n[recovery]\nplaintext = \"maybe\"\n", &[]),
        "understudy.toml:3: \"recovery.plaintext\" is a text | write true or false"
    );
    assert_eq!(refused("data_dir = 7\n", &[]), "understudy.toml:1: \"data_dir\" is a number | write a path in quotes");
    assert_eq!(refused("admin = 7\n", &[]), "understudy.toml:1: \"admin\" is a single value | write a table");
    assert!(refused("[admin]\nlisten = \"8080\"\n", &[]).contains(":2: \"admin.listen\" is no address to listen on"));
}

#[test]
fn broken_toml_is_named_with_its_line() {
    assert!(refused("data_dir = \"/x\"\n[admin\n", &[]).starts_with("understudy.toml:2: not valid TOML:"));
}

#[test]
fn a_choice_suggests_the_nearest_one() {
    let text = FULL.replace("role = \"standby\"", "role = \"stand-by\"");
    assert!(refused(&text, &[]).contains("did you mean \"standby\"?"));
    let text = FULL.replace("imaps://", "imapd://");
    assert!(refused(&text, &[]).contains("has the scheme imapd:// | did you mean \"imaps\"?"));
}

#[test]
fn the_environment_wins_over_the_file_and_may_add_servers() {
    let loaded = read(
        FULL,
        &[
            ("UNDERSTUDY__ADMIN__LISTEN", "127.0.0.1:9999"),
            ("UNDERSTUDY__SOURCE__RECOVERY_URL", "https://a.example.org:1, https://b.example.org:2"),
            ("UNDERSTUDY__SERVER__1__LMTP", "lmtp://127.0.0.1:2424"),
            ("UNDERSTUDY__SERVER__2__NAME", "mail-b"),
            ("UNDERSTUDY__SERVER__2__ROLE", "primary"),
            ("UNDERSTUDY__SERVER__2__IMAP", "imaps://mail-b.example.org"),
            ("UNDERSTUDY__SERVER__2__LOGIN__AS", "each"),
            ("UNDERSTUDY__SERVER__2__LOGIN__PASSWORD_FILE", "/etc/each"),
            ("UNDERSTUDY_URL", "not ours"),
        ],
    );
    let config = loaded.map_err(|error| format!("{error:?}")).unwrap().config;
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9999");
    assert_eq!(config.recovery_urls.unwrap().len(), 2);
    assert_eq!(config.servers[1].lmtp.as_deref(), Some("lmtp://127.0.0.1:2424"));
    assert_eq!(config.servers[2].name, "mail-b");
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest_key() {
    assert_eq!(
        refused("", &[("UNDERSTUDY__ADMIN__LISTN", "x")]),
        "UNDERSTUDY__ADMIN__LISTN: unknown key \"listn\" in [admin] | did you mean \"listen\"?"
    );
}

#[test]
fn clear_text_stays_on_this_machine_and_is_asked_for() {
    let accepted = |text: &str| read(text, &[]).map_err(|error| format!("{error:?}")).unwrap().config;
    let pair = "pair the sites";
    assert!(refused("[recovery]\nlisten = \"0.0.0.0:1\"\nplaintext = true\n", &[]).contains(pair));
    assert!(refused("[source]\nrecovery_url = \"http://dr.example.org:1\"\n", &[]).contains(pair));
    assert!(refused("[source]\nplaintext = true\nrecovery_url = \"http://dr.example.org:1\"\n", &[]).contains(pair));
    assert!(refused("[source]\nrecovery_url = \"http://127.0.0.1:1\"\n", &[]).contains("plaintext = true"));
    assert!(refused("[source]\nplaintext = true\nrecovery_url = \"https://127.0.0.1:1\"\n", &[]).contains("remove"));
    assert!(!accepted("[recovery]\nlisten = \"0.0.0.0:1\"\n").recovery_plaintext);
    assert!(accepted("[source]\nplaintext = true\nrecovery_url = \"http://127.0.0.1:1\"\n").source_plaintext);
}

#[test]
fn passwords_do_not_cross_the_network_in_the_clear() {
    let text = FULL.replace("127.0.0.1:1143", "dr.example.org:143");
    assert!(refused(&text, &[]).contains("\"imap\" sends passwords to dr.example.org unencrypted"));
}

#[test]
fn what_a_server_lacks_is_named_once() {
    let text = FULL.replace("imap = \"imaps://mail-a.example.org\"\n", "");
    assert!(refused(&text, &[]).contains("this [[server]] has no \"imap\""));
    let text = FULL.replace("name = \"dr-1\"", "name = \"mail-a\"");
    assert!(refused(&text, &[]).contains("a second server is named \"mail-a\""));
}

#[test]
fn where_a_front_door_takes_mail_is_understood() {
    let door = |kind: &str, more: &str| {
        format!(
            "[[front_door]]\nname = \"imap-1\"\nkind = \"{kind}\"\ndoveadm = \"https://imap-1\"\nkey_file = \"key\"\n{more}"
        )
    };
    let both = "lmtp = \"lmtp://imap-1.example.org\"\nlmtp_fallback = \"lmtp://[::1]:2424\"\n";
    let config = read(&door("dovecot", both), &[]).map_err(|error| format!("{error:?}")).unwrap().config;
    let [found] = config.mail_doors.as_slice() else { panic!("{:?}", config.mail_doors) };
    assert_eq!((found.name.as_str(), &found.lmtp), ("imap-1", &("imap-1.example.org".to_owned(), 24)));
    assert_eq!(found.fallback, Some(("::1".to_owned(), 2424)));
    assert!(read(&door("dovecot", ""), &[]).unwrap().config.mail_doors.is_empty());
    assert!(refused(&door("nginx", both), &[]).contains("\"imap-1\" is no Dovecot proxy and takes no mail"));
    let alone = "lmtp_fallback = \"lmtp://imap-1:2424\"\n";
    assert!(refused(&door("dovecot", alone), &[]).contains("\"imap-1\" has no `lmtp` with a host"));
}

#[test]
fn no_secret_is_shown_by_any_means() {
    let loaded =
        read(FULL, &[("UNDERSTUDY__LINK__SECRET", "verborgen")]).map_err(|error| format!("{error:?}")).unwrap();
    let shown = show(&loaded);
    assert!(shown.contains("postgres://ann:***@db.example.org/understudy"), "{shown}");
    assert!(shown.contains("[[server]]\nname = \"mail-a\""), "{shown}");
    let debug = format!("{:?}", loaded.config);
    for text in [shown, debug] {
        assert!(!text.contains("geheim") && !text.contains("verborgen"), "{text}");
    }
}

#[test]
fn a_secret_in_the_file_is_refused() {
    assert!(refused("[link]\nsecret = \"x\"\n", &[]).contains("is a secret written into the configuration file"));
}

#[test]
fn what_is_shown_can_be_read_again() {
    let shown = show(&read(&FULL.replace(":geheim", ""), &[]).map_err(|error| format!("{error:?}")).unwrap());
    let again = show(&read(&shown, &[]).map_err(|error| format!("{error:?}")).unwrap());
    let values = |text: &str| {
        text.lines().filter_map(|line| line.split(" #").next()).map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(values(&shown), values(&again));
}

#[test]
fn any_text_is_a_configuration_or_says_what_is_wrong() {
    understudy_fuzz::run("config", |input| {
        let text = String::from_utf8_lossy(input);
        match read(&text, &[]) {
            Ok(loaded) => show(&loaded).chars().filter(|c| !c.is_ascii_digit()).collect::<String>(),
            Err(ConfigError::Problems(problems)) => {
                assert!(problems.iter().all(|problem| !problem.to_string().is_empty() && !problem.remedy.is_empty()));
                problems.first().map(|problem| problem.to_string().chars().take(60).collect()).unwrap_or_default()
            }
            Err(error) => format!("{error:?}"),
        }
    });
}

#[test]
fn the_brake_and_the_pace_of_verification_are_understood() {
    let loaded = read("", &[]).unwrap();
    assert_eq!(loaded.config.brake, understudy_gateway_recovery::BrakeConfig::default());
    assert_eq!(loaded.config.verify_every, Some(Duration::from_secs(86_400)));
    let text = "[brake]\nshare = \"80%\"\nmessages = 200\nwithin = \"1h\"\n[verify]\nevery = \"off\"\n";
    let config = read(text, &[]).unwrap().config;
    assert!((config.brake.share - 0.8).abs() < 1e-9 && config.brake.enabled);
    assert_eq!((config.brake.messages, config.brake.within), (200, Duration::from_secs(3600)));
    assert_eq!(config.verify_every, None);
    assert!(!read("[brake]\nshare = \"off\"\n", &[]).unwrap().config.brake.enabled);
    assert_eq!(read("", &[("UNDERSTUDY__BRAKE__MESSAGES", "7")]).unwrap().config.brake.messages, 7);
    assert_eq!(
        refused("[brake]\nshare = \"half\"\n", &[]),
        "understudy.toml:2: \"brake.share\" cannot be \"half\" | write a part in per cent, such as \"50%\", or \"off\""
    );
    assert_eq!(
        refused("[brake]\nmessages = -1\n", &[]),
        "understudy.toml:2: \"brake.messages\" cannot be -1 | write a whole number"
    );
    assert_eq!(
        refused("[brake]\nwithin = \"off\"\n", &[]),
        "understudy.toml:2: \"brake.within\" cannot be \"off\" | write a duration, such as \"10m\""
    );
}

#[test]
fn people_see_each_value_with_its_place_and_no_secret() {
    let loaded = read(FULL, &[("UNDERSTUDY__VERIFY__EVERY", "12h")]).map_err(|error| format!("{error:?}")).unwrap();
    let shown = loaded.config.shown;
    let of = |key: &str| {
        let found = shown.iter().find(|setting| setting.key == key).unwrap_or_else(|| panic!("{key} is not shown"));
        (found.value.to_string(), found.origin, found.place.clone())
    };
    assert_eq!(
        of("verify.every"),
        ("\"12h\"".into(), SettingOrigin::Environment, Some("UNDERSTUDY__VERIFY__EVERY".into()))
    );
    assert_eq!(of("content.keep"), ("\"30d\"".into(), SettingOrigin::Default, None));
    assert_eq!(of("admin.listen"), ("\"127.0.0.1:0\"".into(), SettingOrigin::File, Some("understudy.toml:8".into())));
    assert_eq!(of("source.recovery_url").0, "[\"https://dr.example.org:8443\"]");
    assert_eq!(of("brake.messages").1, SettingOrigin::Default);
    assert!(of("database.url").0.contains("ann:***@"), "{:?}", of("database.url"));
    assert!(!format!("{shown:?}").contains("geheim"));
    assert!(!shown.iter().any(|setting| setting.key.starts_with("server.")), "servers have a screen of their own");
}
