//! A minimal blocking IMAP client: the load, the `copy` limit and the watchers run on it.
//!
//! In: one plain socket to a server on loopback. Out: responses with their literals beside them.
//! Keeps true: a tagged NO or BAD is an error, and so is a connection that ends before the tag.
//! Not here: the product's own session layer; a yardstick must not be made of what it measures.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Long enough for a server that syncs 8 MB to a busy disk; a hang ends in an error.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// One message on its way into a server.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) flags: String,
    pub(crate) internal_date: String,
    pub(crate) bytes: Vec<u8>,
}

/// One untagged response: its text, and the literals taken out of it in order.
#[derive(Debug, Default)]
pub(crate) struct Response {
    pub(crate) text: String,
    pub(crate) literals: Vec<Vec<u8>>,
}

/// A folder as the server lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    /// In modified UTF-7, unquoted.
    pub(crate) name: String,
    pub(crate) selectable: bool,
}

/// One logged-in conversation.
pub(crate) struct Client {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
    last_tag: u64,
}

impl Client {
    pub(crate) fn connect(server: SocketAddr, user: &str, password: &str) -> Result<Self> {
        let writer =
            TcpStream::connect(server).with_context(|| format!("could not connect to the mail server at {server}"))?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(READ_TIMEOUT))?;
        let reader = BufReader::with_capacity(256 * 1024, writer.try_clone()?);
        let mut client = Self { writer, reader, last_tag: 0 };
        client.read_response().context("the mail server sent no greeting")?;
        client
            .command(&format!("LOGIN {} {}", quote(user), quote(password)))
            .with_context(|| format!("could not log in as {user}"))?;
        Ok(client)
    }

    /// Sends one command and returns its untagged responses after the tagged OK.
    pub(crate) fn command(&mut self, command: &str) -> Result<Vec<Response>> {
        let mut responses = Vec::new();
        self.command_each(command, |response| {
            responses.push(response);
            Ok(())
        })?;
        Ok(responses)
    }

    /// Like [`Self::command`], handing over each response as it comes, so that a folder need not fit in memory.
    pub(crate) fn command_each(&mut self, command: &str, each: impl FnMut(Response) -> Result<()>) -> Result<()> {
        let tag = self.next_tag();
        self.writer.write_all(format!("{tag} {command}\r\n").as_bytes())?;
        self.finish_each(&tag, each).with_context(|| format!("the command {:?} failed", first_words(command)))
    }

    /// Sends one MULTIAPPEND without waiting for its answer; [`Self::finish`] takes the tag.
    pub(crate) fn send_append(&mut self, folder: &str, messages: &[Message]) -> Result<String> {
        let tag = self.next_tag();
        let mut out = Vec::with_capacity(64 * 1024);
        out.extend_from_slice(format!("{tag} APPEND {}", quote(folder)).as_bytes());
        for message in messages {
            let head = format!(" ({}) \"{}\" {{{}+}}\r\n", message.flags, message.internal_date, message.bytes.len());
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(&message.bytes);
            if out.len() > 512 * 1024 {
                self.writer.write_all(&out)?;
                out.clear();
            }
        }
        out.extend_from_slice(b"\r\n");
        self.writer.write_all(&out)?;
        Ok(tag)
    }

    pub(crate) fn append(&mut self, folder: &str, messages: &[Message]) -> Result<()> {
        let tag = self.send_append(folder, messages)?;
        self.finish(&tag)
    }

    /// Waits for the tagged OK of a command sent earlier.
    pub(crate) fn finish(&mut self, tag: &str) -> Result<()> {
        self.finish_each(tag, |_| Ok(()))
    }

    pub(crate) fn folders(&mut self) -> Result<Vec<Folder>> {
        let responses = self.command("LIST \"\" \"*\"")?;
        responses.iter().filter_map(|response| parse_list(&response.text)).map(Ok).collect()
    }

    /// Number of messages in all folders.
    pub(crate) fn count_messages(&mut self) -> Result<u64> {
        let responses = self.command("LIST \"\" \"*\" RETURN (STATUS (MESSAGES))")?;
        Ok(responses
            .iter()
            .filter(|response| response.text.starts_with("* STATUS "))
            .filter_map(|response| number_after(&response.text, "(MESSAGES "))
            .sum())
    }

    fn next_tag(&mut self) -> String {
        self.last_tag += 1;
        format!("b{}", self.last_tag)
    }

    fn finish_each(&mut self, tag: &str, mut each: impl FnMut(Response) -> Result<()>) -> Result<()> {
        loop {
            let response = self.read_response()?;
            let Some(verdict) = response.text.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) else {
                each(response)?;
                continue;
            };
            if !verdict.starts_with("OK") {
                bail!("the mail server answered {verdict:?}");
            }
            return Ok(());
        }
    }

    fn read_response(&mut self) -> Result<Response> {
        let mut response = Response::default();
        loop {
            let mut line = Vec::new();
            if self.reader.read_until(b'\n', &mut line)? == 0 {
                bail!("the mail server closed the connection");
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            response.text.push_str(line);
            let Some(size) = literal_size(line) else {
                return Ok(response);
            };
            let mut literal = vec![0; size];
            self.reader.read_exact(&mut literal)?;
            response.literals.push(literal);
        }
    }
}

/// The number that follows `key` in a response.
pub(crate) fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = &text[text.find(key)? + key.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// What stands between the parentheses that follow `key`.
pub(crate) fn list_after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let rest = &text[text.find(key)? + key.len()..];
    rest.strip_prefix('(')?.split(')').next()
}

pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn literal_size(line: &str) -> Option<usize> {
    let open = line.rfind('{')?;
    line[open + 1..].strip_suffix('}')?.parse().ok()
}

fn parse_list(text: &str) -> Option<Folder> {
    let rest = text.strip_prefix("* LIST (")?;
    let (attributes, rest) = rest.split_once(") ")?;
    let (_separator, name) = rest.split_once(' ')?;
    let name = match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => name.to_owned(),
    };
    let attributes = attributes.to_ascii_lowercase();
    let selectable = !attributes.contains("\\noselect") && !attributes.contains("\\nonexistent");
    Some(Folder { name, selectable })
}

fn first_words(command: &str) -> String {
    command.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_lines_give_names_and_whether_they_can_be_selected() {
        let folder = parse_list(r#"* LIST (\HasNoChildren) "/" "Old \"mail\"""#).unwrap();
        assert_eq!(folder, Folder { name: "Old \"mail\"".into(), selectable: true });
        let folder = parse_list(r#"* LIST (\Noselect \HasChildren) "/" Work"#).unwrap();
        assert_eq!(folder, Folder { name: "Work".into(), selectable: false });
    }

    #[test]
    fn numbers_and_lists_are_found_by_the_word_before_them() {
        let text = r"* 12 FETCH (UID 7 FLAGS (\Seen $Work) MODSEQ (9))";
        assert_eq!(number_after(text, "UID "), Some(7));
        assert_eq!(list_after(text, "FLAGS "), Some(r"\Seen $Work"));
    }
}
