//! Messages: generated from a seed, or odd ones from the field where they are at hand.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

/// Longest line of base64, as mail programs write it.
const BASE64_LINE: usize = 76;

/// Makes messages; the same seed makes the same ones.
pub struct Mail {
    random: StdRng,
    count: u32,
}

impl Mail {
    pub fn from_seed(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), count: 0 }
    }

    /// Any of the kinds below, small ones more often.
    pub fn any(&mut self) -> Vec<u8> {
        match self.random.random_range(0..10) {
            0..4 => {
                let size = self.random.random_range(0..3000);
                self.plain(size)
            }
            4..6 => {
                let size = self.random.random_range(1..60_000);
                self.with_attachment(size)
            }
            6 => self.eight_bit(),
            7 => self.nested(),
            8 => self.without_headers(),
            _ => self.odd_mime(),
        }
    }

    /// About `size` bytes of text.
    pub fn plain(&mut self, size: usize) -> Vec<u8> {
        let mut text = self.headers("text/plain; charset=us-ascii");
        text.push_str("\r\n");
        text.push_str(&self.words(size));
        text.into_bytes()
    }

    /// With an attachment of `size` bytes in base64.
    pub fn with_attachment(&mut self, size: usize) -> Vec<u8> {
        let mut content = vec![0; size];
        self.random.fill_bytes(&mut content);
        self.with_content(&content)
    }

    /// With exactly this attachment, so that it can come again.
    pub fn with_content(&mut self, content: &[u8]) -> Vec<u8> {
        let boundary = format!("=_{:08x}", self.random.next_u32());
        let mut text = self.headers(&format!("multipart/mixed; boundary=\"{boundary}\""));
        let words = self.words(200);
        let _ = write!(
            text,
            "\r\nThis is a message in parts.\r\n--{boundary}\r\nContent-Type: text/plain\r\n\r\n{words}\r\n--{boundary}\r\n\
             Content-Type: application/octet-stream; name=\"report.bin\"\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment; filename=\"report.bin\"\r\n\r\n"
        );
        let encoded = STANDARD.encode(content);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(BASE64_LINE));
            text.push_str(line);
            text.push_str("\r\n");
            rest = after;
        }
        let _ = write!(text, "--{boundary}--\r\n");
        text.into_bytes()
    }

    /// Bytes above 127, in headers too, in no character set anybody declared.
    fn eight_bit(&mut self) -> Vec<u8> {
        let mut message = self.headers("text/plain").into_bytes();
        message.extend_from_slice(b"X-Odd: caf\xe9 \xc3\xa9\r\nContent-Transfer-Encoding: 8bit\r\n\r\n");
        for _ in 0..self.random.random_range(1..40) {
            let line: Vec<u8> =
                (0..self.random.random_range(0..900)).map(|_| self.random.random_range(0x80..=0xff)).collect();
            message.extend_from_slice(&line);
            message.extend_from_slice(b"\r\n");
        }
        message
    }

    /// A message in a message.
    fn nested(&mut self) -> Vec<u8> {
        let inner = self.with_attachment(2000);
        let mut message = self.headers("message/rfc822").into_bytes();
        message.extend_from_slice(b"\r\n");
        message.extend_from_slice(&inner);
        message
    }

    fn without_headers(&mut self) -> Vec<u8> {
        self.count += 1;
        format!("\r\nonly text, number {} {}\r\n", self.count, self.random.next_u64()).into_bytes()
    }

    /// Parts that do not end, boundaries that do not match, base64 that is none, no line end at the end.
    fn odd_mime(&mut self) -> Vec<u8> {
        let mut text = self.headers("multipart/mixed; boundary=one");
        let size = self.random.random_range(0..5000);
        let words = self.words(size);
        let _ = write!(
            text,
            "\r\n--one\r\nContent-Type: multipart/alternative; boundary=two\r\n\r\n--two\r\nContent-Transfer-Encoding: base64\r\n\r\n\
             !!! not base64 {words} ===\r\n--three--\r\n--one\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=XX={words}"
        );
        text.into_bytes()
    }

    fn headers(&mut self, content_type: &str) -> String {
        self.count += 1;
        let (count, number) = (self.count, self.random.next_u64());
        format!(
            "From: Ann <ann@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: Message {count}\r\n\
             Date: Thu, 1 Jan 2026 12:00:00 +0000\r\nMessage-ID: <{number:016x}.{count}@example.org>\r\n\
             MIME-Version: 1.0\r\nContent-Type: {content_type}\r\n"
        )
    }

    fn words(&mut self, size: usize) -> String {
        let mut text = String::with_capacity(size + 80);
        let mut column = 0;
        while text.len() < size {
            let length = self.random.random_range(1..10);
            let word: String = (0..length).map(|_| char::from(self.random.random_range(b'a'..=b'z'))).collect();
            column += length + 1;
            text.push_str(&word);
            text.push_str(if column > 70 { "\r\n" } else { " " });
            column = if column > 70 { 0 } else { column };
        }
        text.push_str("\r\n");
        text
    }
}

/// Odd messages collected from public projects, as files by name; none where the collection is not at hand.
pub fn odd_mail() -> Result<Vec<(String, Vec<u8>)>> {
    let Some(archive) = odd_mail_archive() else { return Ok(Vec::new()) };
    let temp = crate::temp_dir("us-odd-")?;
    let unpacked = Command::new("tar").arg("--zstd").arg("-xf").arg(&archive).arg("-C").arg(temp.path()).output()?;
    ensure!(
        unpacked.status.success(),
        "could not unpack {}: {}",
        archive.display(),
        String::from_utf8_lossy(&unpacked.stderr)
    );
    let mut messages = Vec::new();
    collect(temp.path(), &mut messages)?;
    messages.sort();
    Ok(messages)
}

/// `../shared/mail` seen from the project's root.
fn odd_mail_archive() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    Some(root.join("../shared/mail/odd-mail.tar.zst")).filter(|path| path.exists())
}

fn collect(dir: &Path, messages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, messages)?;
        } else if path.extension().is_some_and(|extension| extension == "eml") {
            let name = path.file_name().context("a file without a name")?.to_string_lossy().into_owned();
            messages.push((name, fs::read(&path)?));
        }
    }
    Ok(())
}
