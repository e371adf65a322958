#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as expected")]

use std::net::IpAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

fn target(url: &str, allowed: &[&str]) -> Target {
    Target {
        url: Url::parse(url).unwrap(),
        secret: SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        allowed: Allowed::try_from(allowed).unwrap(),
    }
}

/// Answers one request with `answer` and gives back what was asked.
async fn other_side(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !String::from_utf8_lossy(&asked).ends_with("{\"a\":1}") {
            let mut piece = [0; 4096];
            let length = stream.read(&mut piece).await.unwrap();
            assert!(length > 0, "the request ended early: {}", String::from_utf8_lossy(&asked));
            asked.extend_from_slice(&piece[..length]);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    });
    (port, asked)
}

/// The example of the Standard Webhooks specification.
#[test]
fn signs_as_the_standard_says() {
    let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
    assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn knows_private_addresses_in_every_dress() {
    let private = [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "fc00::1",
        "fd00::1",
        "ff02::1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
        "2001::1",
        "::127.0.0.1",
    ];
    for text in private {
        assert!(is_private(text.parse::<IpAddr>().unwrap()), "{text} is private");
    }
    for text in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"] {
        assert!(!is_private(text.parse::<IpAddr>().unwrap()), "{text} is public");
    }
}

#[test]
fn refuses_targets_before_anything_is_sent() {
    let none = Allowed::default();
    for url in [
        "http://example.org/",
        "ftp://example.org/",
        "https://user@example.org/",
        "https://a:b@example.org/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
    ] {
        assert!(check_url(&Url::parse(url).unwrap(), &none).is_err(), "{url} must be refused");
    }
    assert!(check_url(&Url::parse("https://hooks.example.org/a").unwrap(), &none).is_ok());
    let here = Allowed::try_from(&["127.0.0.1"][..]).unwrap();
    assert!(check_url(&Url::parse("http://127.0.0.1:1/").unwrap(), &here).is_ok());
    assert!(check_url(&Url::parse("http://127.0.0.2:1/").unwrap(), &here).is_err());
}

/// A name that means this machine is found out when it is resolved.
#[tokio::test]
async fn refuses_names_that_mean_private_addresses() {
    let refused = send(&target("https://localhost:9/", &[]), "m", "{}").await.unwrap_err();
    assert!(matches!(refused, Error::Forbidden(_)) && refused.is_permanent(), "{refused}");
}

#[tokio::test]
async fn sends_one_signed_post() {
    let (port, asked) = other_side("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let target = target(&format!("http://localhost:{port}/hook"), &["127.0.0.1", "::1"]);
    let delivered = send(&target, "message-1", r#"{"a":1}"#).await.unwrap();
    assert_eq!(delivered, Delivered { status: 200, answer: "ok".to_owned() });
    let asked = asked.await.unwrap().to_lowercase();
    assert!(asked.starts_with("post /hook http/1.1"), "{asked}");
    for header in
        ["webhook-id: message-1", "webhook-signature: v1,", "webhook-timestamp: ", "content-type: application/json"]
    {
        assert!(asked.contains(header), "{header} is missing: {asked}");
    }
}

#[tokio::test]
async fn follows_no_redirect() {
    let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let (port, _asked) = other_side(answer).await;
    let target = target(&format!("http://127.0.0.1:{port}/"), &["127.0.0.1"]);
    let refused = send(&target, "m", r#"{"a":1}"#).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { status: 302, .. }) && !refused.is_permanent(), "{refused}");
}
