//! Hands in mail, as another mail server does.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Hands in one message; fails with the server's words when it is refused.
pub async fn deliver(server: SocketAddr, to: &str, subject: &str) -> Result<()> {
    say(server, "EHLO", to, &format!("From: sender@example.net\r\nTo: {to}\r\nSubject: {subject}\r\n\r\nHello.\r\n"))
        .await
}

/// Hands this message to a mail server itself, by LMTP.
pub async fn hand_over(server: SocketAddr, to: &str, message: &str) -> Result<()> {
    say(server, "LHLO", to, message).await
}

async fn say(server: SocketAddr, greeting: &str, to: &str, message: &str) -> Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(server).await?);
    answer(&mut stream).await?;
    for (command, good) in [
        (format!("{greeting} client.example.net"), '2'),
        ("MAIL FROM:<sender@example.net>".to_owned(), '2'),
        (format!("RCPT TO:<{to}>"), '2'),
        ("DATA".to_owned(), '3'),
        (format!("{message}."), '2'),
        ("QUIT".to_owned(), '2'),
    ] {
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        stream.flush().await?;
        let answer = answer(&mut stream).await?;
        ensure!(answer.starts_with(good), "{} was answered with {answer}", command.lines().next().unwrap_or_default());
    }
    Ok(())
}

/// The last line of an answer.
async fn answer(stream: &mut BufReader<TcpStream>) -> Result<String> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.context("the connection broke")?;
        ensure!(!line.is_empty(), "the connection ended");
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(line.trim().to_owned());
        }
    }
}
