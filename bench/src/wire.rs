//! A line between two sites: counts every byte that passes, can be long and thin, and can be cut.
//!
//! In: where it leads to, its delay and its rate. Out: an address in front of it, and bytes so far, both directions added.
//! Keeps true: order; what is under way is bounded, as it is on a line.
//! Not here: packets and their loss (`packets`).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Read and passed on at once, in bytes.
const PIECE_BYTES: usize = 8 << 10;
/// Pieces under way in one direction of a connection: more than a long fat line holds.
const UNDER_WAY: usize = 512;

/// How long and how thin.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Line {
    /// In each direction.
    pub(crate) delay: Duration,
    /// In each direction, all connections together; 0: no limit.
    pub(crate) bytes_a_second: u64,
}

/// A line that is in use until the benchmark ends.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    pub(crate) fn to(target: SocketAddr, line: Line) -> Result<Self> {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, target, line)
    }

    /// From wherever somebody listens.
    pub(crate) fn on(listener: TcpListener, target: SocketAddr, line: Line) -> Result<Self> {
        let (bytes, cut, open) = (Arc::default(), Arc::default(), Arc::default());
        let wire = Self { address: listener.local_addr()?, bytes, cut, open };
        let this = wire.clone();
        thread::spawn(move || {
            let directions = [Arc::<Pace>::default(), Arc::default()];
            for near in listener.incoming().flatten() {
                if this.cut.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(target) else { continue };
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let (Ok(near_again), Ok(far_again)) = (near.try_clone(), far.try_clone()) else { continue };
                this.open().extend(near.try_clone());
                for ((from, to), pace) in [(near, far_again), (far, near_again)].into_iter().zip(&directions) {
                    pass(from, to, line, pace.clone(), this.bytes.clone());
                }
            }
        });
        Ok(wire)
    }

    /// From now on nothing passes.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        for stream in self.open().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn mend(&self) {
        self.cut.store(false, Ordering::Relaxed);
    }

    fn open(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that has passed.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// When the next byte of one direction may go.
#[derive(Debug, Default)]
struct Pace(Mutex<Option<Instant>>);

impl Pace {
    fn wait(&self, bytes: usize, line: Line) {
        if line.bytes_a_second == 0 {
            return;
        }
        let takes = Duration::from_secs_f64(bytes as f64 / line.bytes_a_second as f64);
        let until = {
            let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let until = free.map_or_else(Instant::now, |at| at.max(Instant::now())) + takes;
            *free = Some(until);
            until
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, line: Line, pace: Arc<Pace>, bytes: Arc<AtomicU64>) {
    let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    thread::spawn(move || {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(read @ 1..) = from.read(&mut piece) {
            pace.wait(read, line);
            bytes.fetch_add(read as u64, Ordering::Relaxed);
            if sender.send((Instant::now() + line.delay, piece[..read].to_vec())).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Read);
    });
    thread::spawn(move || {
        let _ = deliver(&receiver, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

fn deliver(receiver: &Receiver<(Instant, Vec<u8>)>, to: &mut TcpStream) -> io::Result<()> {
    while let Ok((due, piece)) = receiver.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        to.write_all(&piece)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_counted_and_late() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
        let line = Line { delay: Duration::from_millis(30), bytes_a_second: 1_000_000 };
        let wire = Wire::to(listener.local_addr().expect("bound"), line).expect("a wire");
        let began = Instant::now();
        let mut near = TcpStream::connect(wire.address()).expect("connects");
        near.write_all(&[7; 20_000]).expect("writes");
        near.shutdown(Shutdown::Write).expect("shuts");
        let (mut far, _) = listener.accept().expect("accepts");
        let mut all = Vec::new();
        far.read_to_end(&mut all).expect("reads");
        assert_eq!(all, [7; 20_000]);
        assert_eq!(wire.bytes(), 20_000);
        assert!(began.elapsed() >= Duration::from_millis(49), "{:?}", began.elapsed());
    }
}
