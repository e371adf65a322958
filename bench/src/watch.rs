//! Looks at a standby as a mail program does, often enough to say when a change became visible.
//!
//! In: one mailbox on the standby. Out: the first moment each message was seen, flagged, gone and moved.
//! Keeps true: the same watching, with the same cost, for every peer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::imap::{Client, Response, list_after, quote};

/// A NOOP costs the server 0.1 ms; twenty of these in 10 ms are a fifth of a core and blur a latency by 5 ms.
const POLL: Duration = Duration::from_millis(10);

/// What can be seen of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sight {
    Arrived(Place),
    Flagged,
    Gone(Place),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Inbox,
    Archive,
}

pub(crate) type Sightings = HashMap<(Sight, String), Instant>;

/// Both folders of one mailbox, each selected on a connection of its own.
pub(crate) struct Watcher {
    views: [View; 2],
}

struct View {
    client: Client,
    place: Place,
    /// Message-IDs by sequence number; `None` for a message without one.
    messages: Vec<Option<String>>,
    /// How many there are, as the server last said.
    exists: usize,
}

impl Watcher {
    pub(crate) fn open(inbox: Client, archive: Client, archive_name: &str) -> Result<Self> {
        Ok(Self {
            views: [View::open(inbox, Place::Inbox, "INBOX")?, View::open(archive, Place::Archive, archive_name)?],
        })
    }

    /// Watches until told to stop and returns what appeared since it was opened.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> Result<Sightings> {
        let mut sightings = Sightings::new();
        while !stop.load(Ordering::Relaxed) {
            let next = Instant::now() + POLL;
            for view in &mut self.views {
                let seen = view.look()?;
                let now = Instant::now();
                for sight in seen {
                    sightings.entry(sight).or_insert(now);
                }
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(sightings)
    }
}

impl View {
    fn open(mut client: Client, place: Place, folder: &str) -> Result<Self> {
        let news = client.command(&format!("EXAMINE {}", quote(folder)))?;
        let mut view = Self { client, place, messages: Vec::new(), exists: 0 };
        view.take_in(&news)?;
        Ok(view)
    }

    fn look(&mut self) -> Result<Vec<(Sight, String)>> {
        let news = self.client.command("NOOP")?;
        self.take_in(&news)
    }

    fn take_in(&mut self, news: &[Response]) -> Result<Vec<(Sight, String)>> {
        let mut seen = Vec::new();
        self.note(news, &mut seen);
        if self.exists > self.messages.len() {
            let command = format!("FETCH {}:* (FLAGS BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])", self.messages.len() + 1);
            let fetched = self.client.command(&command)?;
            self.note(&fetched, &mut seen);
        }
        Ok(seen)
    }

    /// What a server says in answer to any command: with the messages asked for comes what else has changed meanwhile.
    fn note(&mut self, responses: &[Response], seen: &mut Vec<(Sight, String)>) {
        for response in responses {
            let mut words = response.text.split(' ').skip(1);
            let (Some(Ok(number)), Some(word)) = (words.next().map(str::parse::<usize>), words.next()) else {
                continue;
            };
            match word {
                "EXISTS" => self.exists = self.exists.max(number),
                "EXPUNGE" => {
                    self.exists = self.exists.saturating_sub(1);
                    if (1..=self.messages.len()).contains(&number) {
                        let gone = self.messages.remove(number - 1);
                        seen.extend(gone.map(|id| (Sight::Gone(self.place), id)));
                    }
                }
                "FETCH" => {
                    if let Some(header) = response.literals.first().filter(|_| number > self.messages.len()) {
                        let id = message_id(&String::from_utf8_lossy(header));
                        seen.extend(id.clone().map(|id| (Sight::Arrived(self.place), id)));
                        self.messages.resize(number, None);
                        self.messages[number - 1] = id;
                    }
                    self.note_flags(number, &response.text, seen);
                }
                _ => {}
            }
        }
    }

    fn note_flags(&self, number: usize, text: &str, seen: &mut Vec<(Sight, String)>) {
        let flagged = list_after(text, "FLAGS ").is_some_and(|flags| flags.contains("\\Flagged"));
        if let Some(Some(id)) = self.messages.get(number.wrapping_sub(1)).filter(|_| flagged) {
            seen.push((Sight::Flagged, id.clone()));
        }
    }
}

fn message_id(header: &str) -> Option<String> {
    Some(header.split_once('<')?.1.split_once('>')?.0.to_owned())
}
