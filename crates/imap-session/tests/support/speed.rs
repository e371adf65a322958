//! How fast octets and rows pass through. Figures are printed; the bounds are far below what an optimised build does.

use std::{io, time::Instant};

use super::script::{CAPABILITIES, Script, session, step};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use understudy_imap_session::{Append, BodySink, ContentSource, FolderName};
use understudy_protocol::{Uid, UidSet};

struct Count(u64);

impl BodySink for Count {
    fn start(&mut self, _uid: Uid, _size: u64) -> io::Result<()> {
        Ok(())
    }
    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0 += bytes.len() as u64;
        Ok(())
    }
    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn missing(&mut self, _uid: Uid) {
        panic!("all are there");
    }
}

struct Xs;

impl ContentSource for Xs {
    async fn read(&mut self, _index: usize, _offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        buf.fill(b'x');
        Ok(buf.len())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_streams() {
    const SIZE: usize = 512 << 20;
    let script = Script::logged_in(CAPABILITIES, |mut stream: BufReader<TcpStream>| async move {
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("a command");
        let tag = line.split(' ').next().expect("a tag");
        stream.write_all(format!("* 1 FETCH (UID 1 BODY[] {{{SIZE}}}\r\n").as_bytes()).await.expect("sent");
        let block = vec![b'y'; 256 << 10];
        for _ in 0..SIZE / block.len() {
            stream.write_all(&block).await.expect("sent");
        }
        stream.write_all(format!(")\r\n{tag} OK done\r\n").as_bytes()).await.expect("sent");
    })
    .await;
    let mut session = script.open().await.expect("opened");
    let began = Instant::now();
    let mut count = Count(0);
    session.bodies(&UidSet::range(Uid(1), Uid(1)), &mut count).await.expect("streamed");
    assert_eq!(count.0, SIZE as u64);
    println!("body: {:.0} MB/s", SIZE as f64 / 1e6 / began.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_read() {
    const ROWS: u32 = 300_000;
    let mut answer = String::new();
    for uid in 1..=ROWS {
        answer.push_str(&format!(
            "* {uid} FETCH (UID {uid} FLAGS (\\Seen $Work) INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" RFC822.SIZE 20480 EMAILID (M0123456789abcdef01234567))\r\n"
        ));
    }
    answer.push_str("<tag> OK done\r\n");
    let mut session = session(vec![step("FETCH", answer)]).await;
    let began = Instant::now();
    let rows = session.rows(&UidSet::range(Uid(1), Uid(ROWS))).await.expect("rows");
    assert_eq!(rows.len(), ROWS as usize);
    println!("rows: {:.0}/s", f64::from(ROWS) / began.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_appended() {
    const MESSAGES: usize = 10_000;
    const SIZE: u64 = 20 << 10;
    let script = Script::logged_in(CAPABILITIES, |mut stream: BufReader<TcpStream>| async move {
        let mut tag = [0; 3];
        stream.read_exact(&mut tag).await.expect("a tag");
        let mut block = vec![0; 256 << 10];
        let mut last = [0; 2];
        let mut taken = 0;
        // Until the octets of all messages and the end of the command are there.
        while taken < MESSAGES as u64 * SIZE || last != *b"\r\n" {
            let count = stream.read(&mut block).await.expect("more");
            taken += count as u64;
            last.copy_from_slice(&block[count.saturating_sub(2)..count]);
        }
        let tag = String::from_utf8_lossy(&tag);
        let answer = format!("{}OK [APPENDUID 1 1:{MESSAGES}] done\r\n", tag);
        stream.write_all(answer.as_bytes()).await.expect("sent");
    })
    .await;
    let mut session = script.open().await.expect("opened");
    let one = Append { flags: vec![], internal_date: "17-Jul-1996 02:44:25 -0700".into(), size: SIZE };
    let began = Instant::now();
    let appended = session.append_batch(&FolderName::from("INBOX"), &vec![one; MESSAGES], &mut Xs).await;
    assert_eq!(appended.expect("appended").uids.len(), MESSAGES);
    println!("append: {:.0} MB/s", MESSAGES as f64 * SIZE as f64 / 1e6 / began.elapsed().as_secs_f64());
}
