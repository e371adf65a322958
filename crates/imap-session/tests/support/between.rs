//! Somebody between the client and a real server, who says more than the server did before TLS begins.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
};

/// What a client would take for the answers to its log-in, if it read on (CVE-2011-0411).
const ANSWERS: &[u8] = b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nA0001 OK done\r\nA0002 OK logged in\r\n";
/// How a TLS client begins (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;

/// When it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// In one piece with the server's OK to STARTTLS.
    WithTheOk,
    /// As the answer to the client's first octets of TLS.
    AfterTheHello,
}

/// The port to connect to instead of the server's, for one client; whether anything was said there.
pub(crate) async fn inject(server: u16, when: When) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (hello, injected) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let said = Arc::clone(&injected);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("a client");
        let server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server");
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::spawn(up(from_client, to_server, Arc::clone(&hello)));
        down(from_server, to_client, when, &hello, &said).await;
    });
    (port, injected)
}

async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, hello: Arc<Notify>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if buffer[0] == HANDSHAKE {
            hello.notify_one();
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}

async fn down(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, when: When, hello: &Notify, said: &AtomicBool) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let mut piece = buffer[..count].to_vec();
        if piece.windows(9).any(|window| window == b"Begin TLS") {
            said.store(true, Ordering::SeqCst);
            if when == When::AfterTheHello {
                to.write_all(&piece).await.expect("passed on");
                hello.notified().await;
                piece.clear();
            }
            piece.extend_from_slice(ANSWERS);
        }
        if to.write_all(&piece).await.is_err() {
            break;
        }
    }
}
