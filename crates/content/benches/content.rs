//! What the source gateway does with a message on its way out: take it apart, name its parts, pack them.
//!
//! The goal is 150 MB/s on one core, in octets of the messages.

use std::hint::black_box;

use base64::{Engine, prelude::BASE64_STANDARD};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng, rngs::StdRng};
use understudy_content::{Packer, Seen, compresses, copy, split};
use understudy_protocol::PartKey;

/// As in the data of `understudy-bench`: half of the octets in attachments, four in five of which do not compress.
fn messages() -> Vec<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(1);
    let words: Vec<String> = (0..2000).map(|n| format!("w{:x}", n * 7919 % 65_521)).collect();
    (0..400)
        .map(|number| {
            let mut text = format!("From: p{number}@example.org\r\nTo: all@example.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n");
            for _ in 0..3000 {
                text.push_str(&words[random.random_range(0..words.len())]);
                text.push(if random.random_bool(0.1) { '\n' } else { ' ' });
            }
            if number % 3 == 0 {
                let file: Vec<u8> = if number % 5 == 0 {
                    text.bytes().cycle().take(60_000).collect()
                } else {
                    (0..60_000).map(|_| random.random()).collect()
                };
                text.push_str("\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n");
                for line in BASE64_STANDARD.encode(file).as_bytes().chunks(76) {
                    text.push_str(std::str::from_utf8(line).unwrap_or_default());
                    text.push_str("\r\n");
                }
            }
            text.push_str("\r\n--b--\r\n");
            text.into_bytes()
        })
        .collect()
}

fn outbound(message: &[u8], key: &PartKey, packer: &mut Packer) -> Result<(), Box<dyn std::error::Error>> {
    let Some(split) = split(message, key)? else { return Ok(packer.write(message)?) };
    for cut in &split.cuts {
        let mut plain = None;
        cut.copy(message, |piece| {
            let packed = if *plain.get_or_insert_with(|| compresses(piece)) {
                packer.write(piece)
            } else {
                packer.write_as_is(piece)
            };
            packed.map_err(std::io::Error::other)
        })?;
    }
    packer.write(&split.recipe.encode())?;
    for (start, end) in split.own() {
        copy(message, start, end, |piece| packer.write(piece).map_err(std::io::Error::other))?;
    }
    Ok(())
}

fn benches(criterion: &mut Criterion) {
    let messages = messages();
    let key = PartKey::new([7; 32]);
    let mut group = criterion.benchmark_group("content");
    group.sample_size(20).throughput(Throughput::Bytes(messages.iter().map(|message| message.len() as u64).sum()));
    group.bench_function("split and hash", |bencher| {
        bencher.iter(|| messages.iter().filter_map(|message| split(black_box(message.as_slice()), &key).ok()).count());
    });
    group.bench_function("split, hash and pack", |bencher| {
        bencher.iter(|| {
            let mut packed = 0;
            let mut packer = Packer::new(&Seen::default()).ok();
            for message in &messages {
                if let Some(packer) = &mut packer {
                    let _ = outbound(black_box(message), &key, packer);
                    packed += packer.take().len();
                }
            }
            packed + packer.and_then(|packer| packer.finish().ok()).map_or(0, |(rest, _)| rest.len())
        });
    });
    group.finish();
}

criterion_group!(content, benches);
criterion_main!(content);
