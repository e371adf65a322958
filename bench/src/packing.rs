//! How fast messages are taken apart, named and packed, as the source gateway does it for a first copy.
//!
//! In: the data that `seed` copies. Out: bytes of messages a second of CPU of one thread.
//! Not here: the same with criterion's care, in `cargo bench -p understudy-content`.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use understudy_content::{Packer, Seen, compresses, copy, split};
use understudy_protocol::PartKey;

use crate::peer::Peer;
use crate::report::{Goal, Report, Section, median};
use crate::settings::Settings;
use crate::workload::Workload;

const MESSAGES: u32 = 2_000;
const LEAST_MESSAGES: u32 = 500;
/// Messages of one shipment, about.
const SHIPMENT_BYTES: usize = 16 << 20;
const MB: f64 = 1_000_000.0;

pub(crate) fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    if !settings.measures(Peer::Understudy) {
        return Ok(());
    }
    let workload = Workload::one_large(f64::from(settings.scaled(MESSAGES, LEAST_MESSAGES)) / 20_000.0);
    let messages: Vec<Vec<u8>> =
        (0..workload.messages_each).map(|index| workload.message(0, index).message.bytes).collect();
    let bytes: usize = messages.iter().map(Vec::len).sum();
    let mut section = Section::new(format!("Taking apart, naming and packing {} messages", messages.len()));
    section.figure("messages", bytes as f64 / MB, "MB");
    let (mut rates, mut packed) = (Vec::new(), 0);
    for _ in 0..settings.rounds {
        let began = cpu();
        packed = pack(&messages)?;
        rates.push(bytes as f64 / (cpu() - began).as_secs_f64() / MB);
    }
    section.figure("packed", packed as f64 / MB, "MB");
    section.goal("messages a second of one core, median", median(&rates), "MB/s", Goal::AtLeast(150.0));
    report.add(section);
    Ok(())
}

/// As the shipper does: each part once, each shipment a stream of its own.
fn pack(messages: &[Vec<u8>]) -> Result<usize> {
    let key = PartKey::new([0; 32]);
    let (mut packed, mut sent) = (0, HashSet::new());
    let mut packer = Packer::new(&Seen::default())?;
    let mut taken = 0;
    for message in messages {
        let message = message.as_slice();
        if let Some(split) = split(message, &key)? {
            for cut in split.cuts.iter().filter(|cut| sent.insert(cut.part.digest)) {
                let mut plain = None;
                cut.copy(message, |piece| {
                    let plain = *plain.get_or_insert_with(|| compresses(piece));
                    let done = if plain { packer.write(piece) } else { packer.write_as_is(piece) };
                    done.map_err(io::Error::other)
                })?;
            }
            packer.write(&split.recipe.encode())?;
            for (start, end) in split.own() {
                copy(message, start, end, |piece| packer.write(piece).map_err(io::Error::other))?;
            }
        } else {
            packer.write(message)?;
        }
        packed += packer.take().len();
        taken += message.len();
        if taken >= SHIPMENT_BYTES {
            packed += std::mem::replace(&mut packer, Packer::new(&Seen::default())?).finish()?.0.len();
            taken = 0;
        }
    }
    Ok(packed + packer.finish()?.0.len())
}

/// CPU of this thread so far: other work on the machine does not count.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
