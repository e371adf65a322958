//! What people are told of, in the words built in.

use serde_json::{Value, json};

/// The languages with words built in.
pub const LANGUAGES: [&str; 2] = ["en", "de"];

/// One thing people are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: &'static str,
    /// The user of a mailbox, or else those who look after all of them.
    pub for_users: bool,
    /// Does not wait for the end of quiet hours.
    pub urgent: bool,
    words: [(&'static str, &'static str); 2],
}

const SIGNED_EN: &str =
    "This mail was sent by Understudy, which keeps your mailbox available. Nobody asks you for a password.\n";
const SIGNED_DE: &str =
    "Diese Mail kommt von Understudy, das Ihr Postfach verfügbar hält. Niemand fragt Sie nach einem Passwort.\n";

const LIST_EN: &str = "{% for item in items %}\n- {{ item.name }}: {{ item.reason }} {{ item.remedy }}\n{% endfor %}\n{% if more %}\n… and {{ more }} more.\n{% endif %}\n";

const ALL: [Topic; 14] = [
    user(
        "switch_announced",
        [
            (
                "Your mailbox moves on {{ starts_at }}",
                "On {{ starts_at }} your mailbox {{ address }} moves to the standby server.\n\nYou need not do anything: your mail program connects again by itself. Mail that arrives meanwhile is delivered.\n{% if reason %}\nWhy: {{ reason }}\n{% endif %}\n",
            ),
            (
                "Ihr Postfach zieht am {{ starts_at }} um",
                "Am {{ starts_at }} zieht Ihr Postfach {{ address }} auf den Ersatzserver um.\n\nSie müssen nichts tun: Ihr Mailprogramm verbindet sich von selbst neu. Mail, die dabei ankommt, wird zugestellt.\n{% if reason %}\nGrund: {{ reason }}\n{% endif %}\n",
            ),
        ],
    ),
    user(
        "switch_planned",
        [
            (
                "Your mailbox is being moved",
                "Your mailbox {{ address }} is being moved to the standby server now.\n\nYou need not do anything: your mail program connects again by itself.\n{% if reason %}\nWhy: {{ reason }}\n{% endif %}\n",
            ),
            (
                "Ihr Postfach wird umgezogen",
                "Ihr Postfach {{ address }} zieht jetzt auf den Ersatzserver um.\n\nSie müssen nichts tun: Ihr Mailprogramm verbindet sich von selbst neu.\n{% if reason %}\nGrund: {{ reason }}\n{% endif %}\n",
            ),
        ],
    ),
    user(
        "switch_done",
        [
            (
                "Your mailbox has been moved",
                "Your mailbox {{ address }} is on the standby server now. Nothing was lost, and you can work as usual.\n",
            ),
            (
                "Ihr Postfach ist umgezogen",
                "Ihr Postfach {{ address }} liegt jetzt auf dem Ersatzserver. Es ging nichts verloren, und Sie können wie gewohnt arbeiten.\n",
            ),
        ],
    ),
    urgent(user(
        "switch_emergency",
        [
            (
                "Your mailbox is on the standby server",
                "The mail server of your mailbox {{ address }} failed. Your mailbox is on the standby server now, and you can work as usual.\n\nChanges of the last moments before the failure may be missing; they come back when the server does.\n",
            ),
            (
                "Ihr Postfach liegt auf dem Ersatzserver",
                "Der Mailserver Ihres Postfachs {{ address }} ist ausgefallen. Ihr Postfach liegt jetzt auf dem Ersatzserver, und Sie können wie gewohnt arbeiten.\n\nÄnderungen aus den letzten Augenblicken vor dem Ausfall können fehlen; sie kommen zurück, sobald der Server wieder da ist.\n",
            ),
        ],
    )),
    user(
        "switchback_planned",
        [
            (
                "Your mailbox is being moved back",
                "Your mailbox {{ address }} is being moved back to its own server now.\n\nYou need not do anything: your mail program connects again by itself.\n",
            ),
            (
                "Ihr Postfach zieht zurück",
                "Ihr Postfach {{ address }} zieht jetzt auf seinen eigenen Server zurück.\n\nSie müssen nichts tun: Ihr Mailprogramm verbindet sich von selbst neu.\n",
            ),
        ],
    ),
    user(
        "switchback_done",
        [
            (
                "Your mailbox is back on its own server",
                "Your mailbox {{ address }} is back on its own server, with everything you did meanwhile.\n",
            ),
            (
                "Ihr Postfach ist zurück auf seinem Server",
                "Ihr Postfach {{ address }} ist zurück auf seinem eigenen Server, mit allem, was Sie inzwischen getan haben.\n",
            ),
        ],
    ),
    urgent(admin(
        "fault",
        [
            (
                "{{ count }} faulted in {{ tenant }}",
                "These mailboxes cannot be mirrored until somebody does something about it:\n\n",
            ),
            (
                "{{ count }} gestört bei {{ tenant }}",
                "Diese Postfächer können nicht gespiegelt werden, bis jemand etwas unternimmt:\n\n",
            ),
        ],
    )),
    urgent(admin(
        "stall",
        [
            (
                "{{ count }} not known to be in step in {{ tenant }}",
                "Nothing proves that changes to these mailboxes arrive:\n\n",
            ),
            (
                "{{ count }} nachweislos bei {{ tenant }}",
                "Nichts belegt, dass Änderungen an diesen Postfächern ankommen:\n\n",
            ),
        ],
    )),
    urgent(admin(
        "brake",
        [
            (
                "{{ count }} held by the brake in {{ tenant }}",
                "Much was removed at once in these mailboxes. Nothing is removed from the standby until somebody decides:\n\n",
            ),
            (
                "{{ count }} von der Bremse gehalten bei {{ tenant }}",
                "In diesen Postfächern wurde viel auf einmal entfernt. Auf dem Ersatzserver wird nichts entfernt, bis jemand entscheidet:\n\n",
            ),
        ],
    )),
    admin(
        "differences",
        [
            ("Differences in {{ count }} of {{ tenant }}", "A verification found that the two sides differ:\n\n"),
            (
                "Unterschiede bei {{ count }} von {{ tenant }}",
                "Eine Prüfung fand Unterschiede zwischen den beiden Seiten:\n\n",
            ),
        ],
    ),
    urgent(admin(
        "verdict",
        [
            ("Outage verdict in {{ tenant }}", "What watching the servers found:\n\n"),
            ("Ausfallurteil bei {{ tenant }}", "Was die Überwachung der Server ergab:\n\n"),
        ],
    )),
    admin(
        "run_ended",
        [
            (
                "{% for run in runs %}{{ run.kind }} {{ run.state }}: {{ run.done }} done, {{ run.failed }} failed{% if not loop.last %}; {% endif %}{% endfor %}",
                "{% for run in runs %}\nThe {{ run.kind }} {{ run.id }} is {{ run.state }}: {{ run.done }} mailboxes done, {{ run.failed }} failed, after {{ run.seconds }} s. RPO reached: {{ run.rpo_seconds }} s. RTO reached: {{ run.rto_seconds }} s.\n{% if run.reason %}\nWhy: {{ run.reason }}\n{% endif %}\n{% for mailbox in run.failures %}\n- {{ mailbox.address }}: {{ mailbox.reason }} {{ mailbox.remedy }}\n{% endfor %}\n{% endfor %}\n",
            ),
            (
                "{% for run in runs %}{{ run.kind }} {{ run.state }}: {{ run.done }} fertig, {{ run.failed }} gescheitert{% if not loop.last %}; {% endif %}{% endfor %}",
                "{% for run in runs %}\n{{ run.kind }} {{ run.id }} ist {{ run.state }}: {{ run.done }} Postfächer fertig, {{ run.failed }} gescheitert, nach {{ run.seconds }} s. Erreichte RPO: {{ run.rpo_seconds }} s. Erreichte RTO: {{ run.rto_seconds }} s.\n{% if run.reason %}\nGrund: {{ run.reason }}\n{% endif %}\n{% for mailbox in run.failures %}\n- {{ mailbox.address }}: {{ mailbox.reason }} {{ mailbox.remedy }}\n{% endfor %}\n{% endfor %}\n",
            ),
        ],
    ),
    admin(
        "certificate_expiring",
        [
            ("A certificate ends soon", "Certificates that end soon:\n\n"),
            ("Ein Zertifikat läuft ab", "Zertifikate, die bald ablaufen:\n\n"),
        ],
    ),
    urgent(admin(
        "disk_low",
        [
            ("A disk is running full", "Space is running out:\n\n"),
            ("Ein Datenträger läuft voll", "Der Platz wird knapp:\n\n"),
        ],
    )),
];

const fn user(name: &'static str, words: [(&'static str, &'static str); 2]) -> Topic {
    Topic { name, for_users: true, urgent: false, words }
}

const fn admin(name: &'static str, words: [(&'static str, &'static str); 2]) -> Topic {
    Topic { name, for_users: false, urgent: false, words }
}

const fn urgent(topic: Topic) -> Topic {
    Topic { urgent: true, ..topic }
}

impl Topic {
    pub const ALL: [Self; 14] = ALL;

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name == name)
    }

    /// Subject, text and HTML built in; in English for a language without.
    pub(crate) fn words(self, language: &str) -> (String, String, String) {
        let index = LANGUAGES.iter().position(|known| *known == language).unwrap_or(0);
        let (subject, text) = self.words[index];
        let mut text = text.to_owned();
        if self.for_users {
            text.push_str("\n-- \n");
            text.push_str(if index == 1 { SIGNED_DE } else { SIGNED_EN });
        } else {
            if self.name != "run_ended" {
                text.push_str(LIST_EN);
            }
            text.push_str("{% if public_url %}\n\n{{ public_url }}\n{% endif %}\n");
        }
        let html = html_of(&text, LANGUAGES[index]);
        (subject.to_owned(), text, html)
    }

    /// What a template is given, with made-up values.
    #[must_use]
    pub fn sample(self) -> Value {
        if self.for_users {
            return json!({
                "tenant": "default", "address": "ana@example.org", "primary": "mail-a", "standby": "dr-1",
                "reason": "The server is being renewed.", "starts_at": "2026-11-28 22:00",
            });
        }
        json!({
            "tenant": "default", "count": 2, "more": 0, "public_url": "https://understudy.example.org",
            "items": [
                {"name": "ana@example.org", "address": "ana@example.org", "server": "mail-a", "at": "2026-11-21 22:04",
                 "reason": "the log-in was refused", "remedy": "Check its password file."},
                {"name": "bob@example.org", "address": "bob@example.org", "server": "mail-a", "at": "2026-11-21 22:05",
                 "reason": "the log-in was refused", "remedy": "Check its password file."},
            ],
            "runs": [{
                "id": "01932c0e-0000-7000-8000-000000000000", "kind": "switchover", "state": "done", "reason": "Maintenance.",
                "requested_by": "token ann", "done": 399, "failed": 1, "seconds": "41.2", "rpo_seconds": "0.0",
                "rto_seconds": "0.8", "failures": [{"address": "cy@example.org", "reason": "the mailbox is paused",
                "remedy": "Resume it."}],
            }],
        })
    }
}

/// The same words as paragraphs. Lines that only steer the template begin no line.
fn html_of(text: &str, language: &str) -> String {
    let paragraph = |paragraph: &str| {
        let mut html = String::new();
        for line in paragraph.lines() {
            html.push_str(line);
            html.push_str(if line.starts_with("{%") { "\n" } else { "<br>\n" });
        }
        format!("<p>\n{html}</p>\n")
    };
    let paragraphs: String = text.split("\n\n").filter(|text| !text.trim().is_empty()).map(paragraph).collect();
    format!(
        "<!doctype html>\n<html lang=\"{language}\">\n<body style=\"font-family: sans-serif\">\n{paragraphs}</body>\n</html>\n"
    )
}
