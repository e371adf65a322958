//! Hands in mail, as another mail server does.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
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
    Ok(answers(stream).await?.pop().unwrap_or_default())
}

/// All of its lines.
async fn answers(stream: &mut BufReader<TcpStream>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.context("the connection broke")?;
        ensure!(!line.is_empty(), "the connection ended");
        let is_last = line.as_bytes().get(3) != Some(&b'-');
        lines.push(line.trim().to_owned());
        if is_last {
            return Ok(lines);
        }
    }
}

/// Hands in one message as a user does: logs in first. Says who the server is that then takes it.
pub async fn submit(server: SocketAddr, user: &str, password: &str, to: &str, subject: &str) -> Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(server).await?);
    answer(&mut stream).await?;
    let log_in = format!("AUTH PLAIN {}", BASE64_STANDARD.encode(format!("\0{user}\0{password}")));
    let mut who = String::new();
    for (command, good) in [
        ("EHLO client.example.net".to_owned(), '2'),
        (log_in, '2'),
        // Only now somebody else than the door answers.
        ("EHLO client.example.net".to_owned(), '2'),
        (format!("MAIL FROM:<{user}@example.org>"), '2'),
        (format!("RCPT TO:<{to}>"), '2'),
        ("DATA".to_owned(), '3'),
        (format!("From: {user}@example.org\r\nTo: {to}\r\nSubject: {subject}\r\n\r\nHello.\r\n."), '2'),
    ] {
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        stream.flush().await?;
        let lines = answers(&mut stream).await?;
        let last = lines.last().cloned().unwrap_or_default();
        ensure!(last.starts_with(good), "{} was answered with {last}", command.split(' ').next().unwrap_or_default());
        if command.starts_with("EHLO") {
            who = lines[0].get(4..).unwrap_or_default().to_owned();
        }
    }
    Ok(who)
}
