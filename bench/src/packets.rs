//! A long, thin line of real packets that loses some: two network namespaces, and between them a relay that stands for the way.
//!
//! In: its delay, rate and loss. Out: programs and sockets at either end; bytes that came through.
//! How: a VXLAN tunnel whose packets pass through two sockets of ours in a third namespace. It does what `tc netem` does, also
//! where the kernel has no netem; it needs what makes namespaces: root.
//! Keeps true: namespaces end with this process, however it ends.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use understudy_tests::dovecot::Dovecot;

use crate::random::Random;
use crate::wire::{Line, Wire};

/// The far end of the line, as the near end sees it.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
/// The relay's two sockets, and whom each speaks to.
const TO_NEAR: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::new(10, 96, 0, 2)];
const TO_FAR: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 96, 0, 5), Ipv4Addr::new(10, 96, 0, 6)];
const VXLAN: u16 = 4789;
/// What a tunnel puts before an IP packet: its own head and Ethernet's.
const HEAD: usize = 8 + 14;
/// What a router holds before it drops, as time on the line.
const QUEUE: Duration = Duration::from_millis(100);
/// How often the relay looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);
const READY: Duration = Duration::from_secs(20);

/// How long, how thin and how bad.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// In each direction.
    pub(crate) delay: Duration,
    /// In each direction, with the heads of IP and TCP.
    pub(crate) bytes_a_second: u64,
    /// The share of packets that is lost, in each direction.
    pub(crate) lost: f64,
    /// What both ends' kernels do about it.
    pub(crate) congestion_control: &'static str,
}

/// The line and its two ends.
pub(crate) struct Packets {
    near: Namespace,
    far: Namespace,
    _between: Namespace,
    came_through: [Arc<AtomicU64>; 2],
    lost: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
}

impl Packets {
    pub(crate) fn lay(way: Way) -> Result<Self> {
        let [near, far, between] = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
        let (near_pid, far_pid) = (near.holder.id(), far.holder.id());
        between.ip(&[
            "link set lo up",
            &format!("link add to-near mtu 1600 type veth peer name line mtu 1600 netns {near_pid}"),
            &format!("link add to-far mtu 1600 type veth peer name line mtu 1600 netns {far_pid}"),
            &format!("addr add {}/30 dev to-near", TO_NEAR[0]),
            &format!("addr add {}/30 dev to-far", TO_FAR[0]),
            "link set to-near up",
            "link set to-far up",
        ])?;
        for (end, own, relay, address) in [(&near, TO_NEAR[1], TO_NEAR[0], NEAR), (&far, TO_FAR[1], TO_FAR[0], FAR)] {
            // One packet each: nobody between here and the relay takes large ones apart.
            let tunnel = format!(
                "link add across mtu 1500 gso_max_segs 1 type vxlan id 7 remote {relay} dstport {VXLAN} dev line nolearning"
            );
            end.ip(&[
                "link set lo up",
                &format!("addr add {own}/30 dev line"),
                "link set line up",
                &tunnel,
                &format!("addr add {address}/24 dev across"),
                "link set across up",
                &format!("route replace 10.98.0.0/24 dev across src {address} congctl {}", way.congestion_control),
            ])?;
        }
        let packets = Self {
            near,
            far,
            came_through: Default::default(),
            lost: Arc::default(),
            end: Arc::default(),
            _between: between,
        };
        packets.relay(way)?;
        Ok(packets)
    }

    fn relay(&self, way: Way) -> Result<()> {
        let (near, far) = self._between.within(|| {
            let (near, far) = (UdpSocket::bind((TO_NEAR[0], VXLAN))?, UdpSocket::bind((TO_FAR[0], VXLAN))?);
            for socket in [&near, &far] {
                socket.set_read_timeout(Some(LOOK))?;
            }
            Ok((near, far))
        })?;
        let ways = [(near.try_clone()?, far.try_clone()?, TO_FAR[1]), (far, near, TO_NEAR[1])];
        for (number, ((from, to, there), count)) in (0..).zip(ways.into_iter().zip(&self.came_through)) {
            let (sender, receiver) = channel();
            let relay = Relay { way, count: count.clone(), lost: self.lost.clone(), end: self.end.clone() };
            thread::spawn(move || relay.take(&from, &sender, Random::new(48, number)));
            thread::spawn(move || give(&receiver, &to, (there, VXLAN).into()));
        }
        Ok(())
    }

    /// What came through towards the far end so far, with the heads of IP and TCP, and what was sent twice.
    pub(crate) fn bytes_there(&self) -> u64 {
        self.came_through[0].load(Ordering::Relaxed)
    }

    /// Packets.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// What starts a program within starts it at the near end.
    pub(crate) fn near<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.near.within(act)
    }

    pub(crate) fn far<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.far.within(act)
    }

    /// Mail servers stand outside; each is found at the end that needs it under its own address.
    pub(crate) fn show(&self, servers: &[&Dovecot], standby: &Dovecot) -> Result<()> {
        for server in servers {
            forward(&self.near, server)?;
        }
        forward(&self.far, standby)
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

fn forward(end: &Namespace, server: &Dovecot) -> Result<()> {
    let address = server.imap_address();
    let listener = end.within(|| Ok(TcpListener::bind(address)?))?;
    Wire::on(listener, address, Line::default()).map(drop)
}

/// A network namespace, as long as its holder lives.
struct Namespace {
    holder: Child,
    link: File,
}

impl Namespace {
    fn new() -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("could not run unshare (util-linux)")?;
        let deadline = Instant::now() + READY;
        let path = format!("/proc/{}/ns/net", holder.id());
        let ours = std::fs::read_link("/proc/self/ns/net")?;
        // Of one that has ended there is nothing to read.
        while !std::fs::read_link(&path).is_ok_and(|theirs| theirs != ours) {
            if holder.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("no network namespace can be made here (that takes root)");
            }
            thread::sleep(Duration::from_millis(5));
        }
        let link = File::open(path)?;
        Ok(Self { holder, link })
    }

    fn within<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                move_into_link_name_space(self.link.as_fd(), Some(LinkNameSpaceType::Network))?;
                act()
            });
            there.join().expect("a thread in a namespace panicked")
        })
    }

    fn ip(&self, commands: &[&str]) -> Result<()> {
        for command in commands {
            let output = self.within(|| Ok(Command::new("ip").args(command.split(' ')).output()?))?;
            ensure!(output.status.success(), "ip {command} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Without its input it ends by itself.
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}

// The way ----------------------------------------------------------------------------------------------------------------------

struct Relay {
    way: Way,
    count: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
}

type Packet = (Instant, Vec<u8>);

impl Relay {
    fn take(&self, from: &UdpSocket, to: &std::sync::mpsc::Sender<Packet>, mut random: Random) {
        let mut buffer = vec![0; 1 << 16];
        let mut free = Instant::now();
        while !self.end.load(Ordering::Relaxed) {
            let length = match from.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => return,
            };
            let now = Instant::now();
            free = free.max(now);
            let packet = &mut buffer[..length];
            if random.chance(self.way.lost) || free - now > QUEUE {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let bytes = length.saturating_sub(HEAD);
            free += Duration::from_secs_f64(bytes as f64 / self.way.bytes_a_second as f64);
            self.count.fetch_add(bytes as u64, Ordering::Relaxed);
            finish_checksum(packet);
            if to.send((free + self.way.delay, packet.to_vec())).is_err() {
                return;
            }
        }
    }
}

fn give(from: &Receiver<Packet>, to: &UdpSocket, there: SocketAddr) {
    while let Ok((due, packet)) = from.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // What the kernel has no room for is lost, as on any line.
        let _ = to.send_to(&packet, there);
    }
}

/// A kernel leaves the checksum of TCP to the network card; here is none.
fn finish_checksum(packet: &mut [u8]) {
    let Some(ip) = packet.get_mut(HEAD..) else { return };
    if ip.len() < 20 || ip[0] >> 4 != 4 || ip[9] != 6 {
        return;
    }
    let (head, end) = (usize::from(ip[0] & 15) * 4, usize::from(u16::from_be_bytes([ip[2], ip[3]])));
    if end > ip.len() || head + 20 > end {
        return;
    }
    let checksum = head + 16;
    ip[checksum..checksum + 2].fill(0);
    let words = |bytes: &[u8]| -> u64 {
        bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low))).sum()
    };
    let mut sum = words(&ip[12..20]) + 6 + (end - head) as u64 + words(&ip[head..end]);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !(sum as u16);
    ip[checksum..checksum + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_checksum_adds_up() {
        let mut packet = vec![0; HEAD + 20 + 20 + 3];
        let ip = &mut packet[HEAD..];
        ip[0] = 0x45;
        ip[3] = 43;
        ip[9] = 6;
        ip[12..20].copy_from_slice(&[10, 98, 0, 1, 10, 98, 0, 2]);
        ip[40..].copy_from_slice(b"abc");
        finish_checksum(&mut packet);
        let ip = &packet[HEAD..];
        let tcp = ip[20..].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
        let pseudo = ip[12..20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum = tcp.chain(pseudo).sum::<u32>() + 6 + 23;
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
