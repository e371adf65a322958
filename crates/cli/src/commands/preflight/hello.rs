//! One greeting with a mail server: by `EHLO` or `LHLO`, and no mail.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// More than a mail server has to say of itself.
const LONGEST: u64 = 64 << 10;

/// What it says of itself, line by line, without the codes.
pub(super) async fn hello(host: &str, port: u16, verb: &str) -> io::Result<Vec<String>> {
    let (reading, mut writing) = TcpStream::connect((host, port)).await?.into_split();
    let mut reading = BufReader::new(reading.take(LONGEST));
    reply(&mut reading).await?;
    writing.write_all(format!("{verb} understudy.invalid\r\n").as_bytes()).await?;
    let said = reply(&mut reading).await?;
    // It was heard; a farewell that gets lost changes nothing.
    let _ = writing.write_all(b"QUIT\r\n").await;
    Ok(said)
}

async fn reply(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended the connection"));
        }
        if !line.starts_with('2') {
            return Err(io::Error::other(format!("it said {}", line.trim_end())));
        }
        lines.push(line.get(4..).unwrap_or_default().trim_end().to_owned());
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(lines);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A mail server that says this to one client, one part at a time: its port, and what runs it.
    pub(in super::super) async fn saying(says: &'static [&'static str]) -> (u16, impl Future<Output = ()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (reading, mut writing) = stream.into_split();
            let mut reading = BufReader::new(reading);
            for part in says {
                writing.write_all(part.as_bytes()).await.unwrap();
                let _ = reading.read_line(&mut String::new()).await;
            }
        };
        (port, said)
    }
}
