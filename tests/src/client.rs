//! A small IMAP client of its own, to act as a user and to look at what users see.
//!
//! Independent of Understudy's IMAP code on purpose. Plain TCP, one command at a time, a message at a time in memory.

mod name;
mod response;
mod snapshot;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};

pub use name::{decode, encode};
pub use response::Value;
pub use snapshot::{Folder, Message, Snapshot};

/// How long a server may take over one answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A logged-in connection.
pub struct Client {
    stream: BufReader<TcpStream>,
    next_tag: u32,
    /// How the server spells the user's own folders (RFC 2342).
    prefix: String,
    separator: String,
}

/// A tagged answer other than OK.
#[derive(Debug)]
pub struct Refused {
    pub verb: String,
    /// From the verdict on: `NO [OVERQUOTA] …`.
    pub answer: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} was refused: {}", self.verb, self.answer)
    }
}

impl std::error::Error for Refused {}

impl Client {
    /// Connects and logs in.
    pub async fn log_in(server: SocketAddr, user: &str, password: &str) -> Result<Self> {
        let stream = TcpStream::connect(server).await.with_context(|| format!("could not connect to {server}"))?;
        Self::log_in_over(stream, user, password).await
    }

    /// The same from a certain address of this machine.
    pub async fn log_in_from(source: Ipv4Addr, server: SocketAddr, user: &str, password: &str) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        Self::log_in_over(socket.connect(server).await?, user, password).await
    }

    async fn log_in_over(stream: TcpStream, user: &str, password: &str) -> Result<Self> {
        stream.set_nodelay(true)?;
        let (prefix, separator) = (String::new(), "/".to_owned());
        let mut client = Self { stream: BufReader::new(stream), next_tag: 0, prefix, separator };
        client.read_response().await.context("no greeting")?;
        client.command(&format!("LOGIN {} {}", quoted(user), quoted(password))).await?;
        client.learn_namespace().await?;
        Ok(client)
    }

    /// Learns prefix and separator of the user's own folders, so that callers can name folders alike on every server.
    async fn learn_namespace(&mut self) -> Result<()> {
        for response in self.command("NAMESPACE").await? {
            // `* NAMESPACE (("INBOX." ".")) …`
            let [_, kind, personal, ..] = response.as_slice() else { continue };
            let first = personal.list().first().map(Value::list).unwrap_or_default();
            if let ([prefix, separator, ..], true) = (first, kind.is("NAMESPACE")) {
                (self.prefix, self.separator) = (decode(&prefix.text()), separator.text());
            }
        }
        Ok(())
    }

    /// A folder's name as an argument. We write names with `/` between levels and without the server's prefix.
    fn folder_name(&self, folder: &str) -> String {
        if folder.eq_ignore_ascii_case("INBOX") {
            return quoted(folder);
        }
        quoted(&encode(&format!("{}{}", self.prefix, folder.replace('/', &self.separator))))
    }

    /// The other way round.
    fn readable(&self, name: &Value, separator: &Value) -> String {
        let name = decode(&name.text());
        // `INBOX.INBOX` is not INBOX.
        let stripped = name.strip_prefix(&self.prefix).filter(|rest| !rest.eq_ignore_ascii_case("INBOX"));
        let name = stripped.unwrap_or(&name);
        if separator.is("/") || *separator == Value::Nil {
            name.to_owned()
        } else {
            name.replace(&separator.text(), "/")
        }
    }

    /// Sends one command and collects its untagged answers.
    pub async fn command(&mut self, command: &str) -> Result<Vec<Vec<Value>>> {
        let mut untagged = Vec::new();
        self.each(command, |response| untagged.push(response)).await?;
        Ok(untagged)
    }

    /// Sends one command and hands on each untagged answer as it comes.
    async fn each(&mut self, command: &str, mut handle: impl FnMut(Vec<Value>)) -> Result<String> {
        let tag = self.send(command).await?;
        loop {
            let response = self.read_response().await.with_context(|| verb(command))?;
            if response.first().is_some_and(|first| first.is(&tag)) {
                return verdict(command, &response);
            }
            handle(response);
        }
    }

    async fn send(&mut self, command: &str) -> Result<String> {
        self.next_tag += 1;
        let tag = format!("t{}", self.next_tag);
        self.stream.write_all(format!("{tag} {command}\r\n").as_bytes()).await?;
        Ok(tag)
    }

    /// Appends a message and gives its UID, where the server says it.
    pub async fn append(
        &mut self,
        folder: &str,
        flags: &[&str],
        date: Option<&str>,
        message: &[u8],
    ) -> Result<Option<u32>> {
        let date = date.map(|date| format!("\"{date}\" ")).unwrap_or_default();
        let command = format!("APPEND {} ({}) {date}{{{}}}", self.folder_name(folder), flags.join(" "), message.len());
        let tag = self.send(&command).await?;
        loop {
            let response = self.read_response().await?;
            match response.first() {
                Some(first) if first.is("+") => break,
                Some(first) if first.is(&tag) => {
                    verdict(&command, &response)?;
                    bail!("the server took an APPEND without its message");
                }
                _ => {}
            }
        }
        self.stream.write_all(message).await?;
        self.stream.write_all(b"\r\n").await?;
        loop {
            let response = self.read_response().await?;
            if response.first().is_some_and(|first| first.is(&tag)) {
                // `OK [APPENDUID 1795294435 4] …`
                let text = verdict(&command, &response)?;
                let uid = text.split_once("[APPENDUID ").and_then(|(_, rest)| rest.split([' ', ']']).nth(1));
                return Ok(uid.and_then(|uid| uid.parse().ok()));
            }
        }
    }

    /// Appends many messages, by as few commands as servers take well (LITERAL+, MULTIAPPEND).
    pub async fn append_all(&mut self, folder: &str, messages: &[Vec<u8>]) -> Result<()> {
        const AT_ONCE: usize = 100;
        for batch in messages.chunks(AT_ONCE) {
            self.next_tag += 1;
            let tag = format!("t{}", self.next_tag);
            let mut command = format!("{tag} APPEND {}", self.folder_name(folder)).into_bytes();
            for message in batch {
                command.extend_from_slice(format!(" {{{}+}}\r\n", message.len()).as_bytes());
                command.extend_from_slice(message);
            }
            command.extend_from_slice(b"\r\n");
            self.stream.write_all(&command).await?;
            loop {
                let response = self.read_response().await?;
                if response.first().is_some_and(|first| first.is(&tag)) {
                    verdict("APPEND", &response)?;
                    break;
                }
            }
        }
        Ok(())
    }

    pub async fn select(&mut self, folder: &str) -> Result<()> {
        self.run(&format!("SELECT {}", self.folder_name(folder))).await
    }

    /// `items` such as `+FLAGS (\Seen)`; the folder is the selected one.
    pub async fn store(&mut self, uids: &str, items: &str) -> Result<()> {
        self.run(&format!("UID STORE {uids} {items}")).await
    }

    pub async fn copy(&mut self, uids: &str, folder: &str) -> Result<()> {
        self.run(&format!("UID COPY {uids} {}", self.folder_name(folder))).await
    }

    pub async fn move_to(&mut self, uids: &str, folder: &str) -> Result<()> {
        self.run(&format!("UID MOVE {uids} {}", self.folder_name(folder))).await
    }

    /// Copies every message of a folder, which stays selected.
    pub async fn copy_all(&mut self, from: &str, to: &str) -> Result<()> {
        self.select(from).await?;
        self.copy("1:*", to).await
    }

    /// Moves every message of a folder, which stays selected.
    pub async fn move_all(&mut self, from: &str, to: &str) -> Result<()> {
        self.select(from).await?;
        self.move_to("1:*", to).await
    }

    pub async fn expunge(&mut self, uids: &str) -> Result<()> {
        self.store(uids, "+FLAGS.SILENT (\\Deleted)").await?;
        self.run(&format!("UID EXPUNGE {uids}")).await
    }

    pub async fn create(&mut self, folder: &str) -> Result<()> {
        self.run(&format!("CREATE {}", self.folder_name(folder))).await
    }

    pub async fn delete(&mut self, folder: &str) -> Result<()> {
        self.run(&format!("DELETE {}", self.folder_name(folder))).await
    }

    /// Deletes a folder and makes another of its name. While another session has the old one open, Dovecot 2.3.19 may find it
    /// there again for a moment.
    pub async fn replace(&mut self, folder: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            self.delete(folder).await?;
            match self.create(folder).await {
                Err(error) if error.to_string().contains("[ALREADYEXISTS]") && began.elapsed() < PATIENCE => {}
                outcome => return outcome,
            }
        }
    }

    pub async fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.run(&format!("RENAME {} {}", self.folder_name(from), self.folder_name(to))).await
    }

    pub async fn subscribe(&mut self, folder: &str) -> Result<()> {
        self.run(&format!("SUBSCRIBE {}", self.folder_name(folder))).await
    }

    pub async fn unsubscribe(&mut self, folder: &str) -> Result<()> {
        self.run(&format!("UNSUBSCRIBE {}", self.folder_name(folder))).await
    }

    /// UIDs in a folder, which stays selected.
    pub async fn uids(&mut self, folder: &str) -> Result<Vec<u32>> {
        self.select(folder).await?;
        let found = self.command("UID SEARCH ALL").await?;
        let numbers = found.iter().filter(|response| response.get(1).is_some_and(|name| name.is("SEARCH")));
        Ok(numbers.flat_map(|response| &response[2..]).filter_map(|value| value.text().parse().ok()).collect())
    }

    /// Returns once the server has closed the connection: nobody counts the session any more.
    pub async fn log_out(mut self) {
        // The server may close first; either way the conversation is over.
        let _ = self.command("LOGOUT").await;
        let _ = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut Vec::new())).await;
    }

    /// A command whose untagged answers do not matter.
    pub async fn run(&mut self, command: &str) -> Result<()> {
        self.each(command, drop).await.map(drop)
    }

    async fn read_response(&mut self) -> Result<Vec<Value>> {
        match tokio::time::timeout(PATIENCE, self.read_whole_response()).await {
            Ok(response) => response,
            Err(_) => bail!("no answer from the mail server within {} s", PATIENCE.as_secs()),
        }
    }

    /// A line with the literals that belong to it.
    async fn read_whole_response(&mut self) -> Result<Vec<Value>> {
        let mut parts = Vec::new();
        loop {
            let mut line = Vec::new();
            self.stream.read_until(b'\n', &mut line).await?;
            if line.pop() != Some(b'\n') {
                bail!("the mail server closed the connection");
            }
            line.pop_if(|last| *last == b'\r');
            let literal = response::announced_literal(&line);
            parts.push((line, Vec::new()));
            let Some(length) = literal else { return response::parse(parts) };
            if let Some((_, literal)) = parts.last_mut() {
                literal.resize(length, 0);
                self.stream.read_exact(literal).await?;
            }
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The first word or two of a command, fit for an error: no password, no message.
fn verb(command: &str) -> String {
    let mut words = command.split(' ');
    match (words.next(), words.next()) {
        (Some("UID"), Some(second)) => format!("UID {second}"),
        (first, _) => first.unwrap_or_default().to_owned(),
    }
}

fn verdict(command: &str, response: &[Value]) -> Result<String> {
    let answer = response[1..].iter().map(Value::text).collect::<Vec<_>>().join(" ");
    match response.get(1) {
        Some(verdict) if verdict.is("OK") => Ok(answer),
        _ => Err(Refused { verb: verb(command), answer }.into()),
    }
}
