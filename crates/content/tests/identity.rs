//! Whatever a message looks like, it comes back octet for octet; what two messages share is known as one part.

use std::{
    collections::HashMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use understudy_content::{LONGEST_PART, Layout, Recipe, Source, Split, copy, split};
use understudy_protocol::{ContentRef, Digest, PartKey};

fn key() -> PartKey {
    PartKey::new([7; 32])
}

/// Takes a message apart, puts it together from what would travel, and fails the test where that is another message.
fn there_and_back(message: &[u8]) -> Option<Split> {
    let split = split(message, &key()).expect("bytes in memory")?;
    let recipe = Recipe::decode(&split.recipe.encode(), message.len() as u64).expect("our own recipe");
    assert_eq!(recipe, split.recipe);
    let mut own = Vec::new();
    for (start, end) in split.own() {
        copy(message, start, end, |piece| {
            own.extend_from_slice(piece);
            Ok(())
        })
        .expect("bytes in memory");
    }
    let mut parts: HashMap<Digest, Vec<u8>> = HashMap::new();
    for cut in &split.cuts {
        let mut part = Vec::new();
        cut.copy(message, |piece| {
            part.extend_from_slice(piece);
            Ok(())
        })
        .expect("bytes in memory");
        assert_eq!(cut.part, ContentRef { digest: key().digest(&part), size: part.len() as u64 });
        parts.insert(cut.part.digest, part);
    }
    assert_eq!(own.len() as u64, recipe.own_bytes());
    let layout = Layout::new(&recipe);
    assert_eq!(layout.size(), message.len() as u64);
    let read = |start: usize, buffer: &mut [u8]| {
        let mut filled = 0;
        while filled < buffer.len() {
            let need = layout.need((start + filled) as u64, buffer.len() - filled).expect("not at the end");
            let from = match need.source {
                Source::Own => &own,
                Source::Part(number) => &parts[&layout.parts()[number].digest],
            };
            let stored = &from[need.start as usize..need.start as usize + need.length];
            let made = need.render(stored, &mut buffer[filled..]).expect("as needed");
            assert!(made > 0);
            filled += made;
        }
    };
    let mut back = vec![0; message.len()];
    read(0, &mut back);
    assert!(layout.need(message.len() as u64, 1).is_none());
    assert!(back == message, "a message of {} octets came back as another", message.len());
    // From anywhere, as far as wanted.
    let mut random = StdRng::seed_from_u64(message.len() as u64);
    for _ in 0..20 {
        let start = random.random_range(0..message.len());
        let length = random.random_range(0..300.min(message.len() - start) + 1);
        let mut some = vec![0; length];
        read(start, &mut some);
        assert!(some == message[start..start + length], "{length} octets from {start}");
    }
    Some(split)
}

fn seed() -> u64 {
    let seed = std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("UNDERSTUDY_SEED={seed}");
    seed
}

/// A message with parts within parts, wrapped in all the ways that mail programs have found, and some that they have not.
fn random_message(random: &mut StdRng, files: &[Vec<u8>]) -> Vec<u8> {
    let ending = ["\r\n", "\n"][random.random_range(0..2)];
    let mut out = format!("From: a@example.org{ending}Subject: {}{ending}", random.random::<u32>()).into_bytes();
    part(random, files, ending, 0, &mut out);
    // Damage: a few octets changed, removed or doubled.
    if random.random_bool(0.4) {
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..out.len());
            match random.random_range(0..3) {
                0 => out[at] = random.random(),
                1 => drop(out.remove(at)),
                _ => out.insert(at, out[at]),
            }
        }
    }
    if random.random_bool(0.1) {
        out.truncate(random.random_range(1..=out.len()));
    }
    out
}

fn part(random: &mut StdRng, files: &[Vec<u8>], ending: &str, depth: u32, out: &mut Vec<u8>) {
    match random.random_range(0..if depth < 4 { 10 } else { 8 }) {
        0 => {
            let text = "words and words ".repeat(random.random_range(0..4000));
            out.extend_from_slice(format!("{ending}{text}").as_bytes());
        }
        1 => {
            out.extend_from_slice(ending.as_bytes());
            out.extend_from_slice(&files[random.random_range(0..files.len())]);
        }
        2..8 => {
            let file = &files[random.random_range(0..files.len())];
            let text = BASE64_STANDARD.encode(file);
            let line = [76, 76, 76, 72, 64, 60, 75, 1000, usize::MAX][random.random_range(0..9)];
            out.extend_from_slice(format!("Content-Transfer-Encoding: Base64{ending}{ending}").as_bytes());
            let lines: Vec<&[u8]> = text.as_bytes().chunks(line).collect();
            out.extend_from_slice(&lines.join(ending.as_bytes()));
            out.extend_from_slice(ending.repeat(random.random_range(0..4)).as_bytes());
        }
        8 => {
            out.extend_from_slice(
                format!("Content-Type: message/rfc822{ending}{ending}Subject: in{ending}").as_bytes(),
            );
            part(random, files, ending, depth + 1, out);
        }
        _ => {
            let boundary = ["=_x", "x", "a b", "--", "long-long-long"][random.random_range(0..5)];
            let head = format!("Content-Type: multipart/mixed;{ending} boundary=\"{boundary}\"{ending}{ending}");
            out.extend_from_slice(head.as_bytes());
            for _ in 0..random.random_range(0..4) {
                out.extend_from_slice(format!("{ending}--{boundary}{ending}").as_bytes());
                part(random, files, ending, depth + 1, out);
            }
            out.extend_from_slice(format!("{ending}--{boundary}--{ending}").as_bytes());
        }
    }
}

#[test]
fn random_messages_come_back() {
    let mut random = StdRng::seed_from_u64(seed());
    let files: Vec<Vec<u8>> = [1, 3000, 3072, 3500, 40_000, 100_001]
        .into_iter()
        .map(|size| (0..size).map(|_| random.random()).collect())
        .collect();
    let rounds = if std::env::var_os("UNDERSTUDY_LONG").is_some() { 20_000 } else { 400 };
    let mut taken_apart = 0;
    for _ in 0..rounds {
        let message = random_message(&mut random, &files);
        taken_apart += u32::from(there_and_back(&message).is_some());
    }
    assert!(taken_apart > rounds / 10, "only {taken_apart} of {rounds} had parts");
}

#[test]
fn a_part_is_known_by_what_it_contains() {
    let mut random = StdRng::seed_from_u64(1);
    let file: Vec<u8> = (0..100_000).map(|_| random.random()).collect();
    let text = BASE64_STANDARD.encode(&file);
    let wrapped = |line: usize, ending: &str, rest: &str| {
        let lines: Vec<&str> =
            text.as_bytes().chunks(line).map(|line| std::str::from_utf8(line).expect("text")).collect();
        format!("Received: {line}{ending}Content-Transfer-Encoding: base64{ending}{ending}{}{rest}", lines.join(ending))
    };
    let raw = [b"Content-Transfer-Encoding: binary\n\n".as_slice(), &file].concat();
    let mut parts: Vec<ContentRef> = [wrapped(76, "\r\n", "\r\n"), wrapped(72, "\n", ""), wrapped(1000, "\n", "\n\n")]
        .iter()
        .flat_map(|message| there_and_back(message.as_bytes()).expect("has a part").recipe.parts())
        .collect();
    parts.extend(there_and_back(&raw).expect("has a part").recipe.parts());
    assert_eq!(parts, vec![ContentRef { digest: key().digest(&file), size: file.len() as u64 }; 4]);
    // Under another key it is another one.
    let other = split(wrapped(76, "\r\n", "").as_bytes(), &PartKey::new([8; 32])).expect("bytes").expect("has a part");
    assert_ne!(other.recipe.parts()[0].digest, parts[0].digest);
}

/// A line that is cut brings some of them each time; wherever the file stands, they are the same ones.
#[test]
fn a_long_file_is_several_parts_however_it_is_wrapped() {
    let mut file = vec![0; LONGEST_PART as usize * 2 + 12_345];
    StdRng::seed_from_u64(2).fill_bytes(&mut file);
    let expected: Vec<ContentRef> = file
        .chunks(LONGEST_PART as usize)
        .map(|part| ContentRef { digest: key().digest(part), size: part.len() as u64 })
        .collect();
    let text = BASE64_STANDARD.encode(&file);
    let wrapped = |line: usize, ending: &str, rest: &str| {
        let lines: Vec<&str> =
            text.as_bytes().chunks(line).map(|line| std::str::from_utf8(line).expect("text")).collect();
        format!("Content-Transfer-Encoding: base64{ending}{ending}{}{rest}", lines.join(ending)).into_bytes()
    };
    let raw = [b"Content-Transfer-Encoding: binary\n\n".as_slice(), &file].concat();
    let of = |message: &[u8]| there_and_back(message).expect("has parts").recipe.parts();
    for line in [60, 64, 72, 76, text.len()] {
        for (ending, rest) in [("\r\n", "\r\n"), ("\n", "")] {
            assert_eq!(of(&wrapped(line, ending, rest)), expected, "lines of {line}");
        }
    }
    assert_eq!(of(&raw), expected);
    // Where no line ends at the right place, it is one.
    let whole = ContentRef { digest: key().digest(&file), size: file.len() as u64 };
    assert_eq!(of(&wrapped(100, "\r\n", "\r\n")), [whole]);
    // Exactly as long as the longest.
    let longest = [b"\n".as_slice(), &file[..LONGEST_PART as usize]].concat();
    assert_eq!(of(&longest), expected[..1]);
}

#[test]
fn what_is_not_exactly_base64_stays_as_it_is() {
    let data = BASE64_STANDARD.encode(vec![1; 90_000]);
    let head = "Content-Transfer-Encoding: base64\n\n";
    for body in [
        // Bits that decoding would forget, a stray character, lines of changing length.
        format!("{}AB==", &data[..40_000]),
        format!("{}!{}", &data[..40_000], &data[40_000..]),
        format!("{}\n{}\n{}", &data[..76], &data[76..4000], &data[4000..]),
    ] {
        let message = format!("{head}{body}");
        let split = there_and_back(message.as_bytes()).expect("large");
        assert_eq!(split.cuts[0].part.size, body.len() as u64);
    }
}

/// Real mail, hostile mail: only where it lies beside the checkout.
#[test]
fn collected_messages_come_back() {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/mail/odd-mail.tar.zst");
    if !archive.exists() {
        println!("no collected mail at {}", archive.display());
        return;
    }
    let folder = std::env::temp_dir().join(format!("understudy-content-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let unpacked = Command::new("tar").arg("--zstd").arg("-xf").arg(&archive).arg("-C").arg(&folder).status();
    if !unpacked.is_ok_and(|status| status.success()) {
        println!("tar cannot read {}", archive.display());
        return;
    }
    let mut files = Vec::new();
    list(&folder, &mut files);
    let mut parts = 0;
    for file in &files {
        let message = fs::read(file).expect("a file");
        if let Some(split) = there_and_back(&message) {
            parts += split.cuts.len();
        }
    }
    println!("{} messages, {parts} parts", files.len());
    fs::remove_dir_all(&folder).expect("the folder");
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

#[test]
fn messages_made_by_mutation_come_back() {
    understudy_fuzz::run("mime", |input| {
        // What stands in the corpus is shorter than any part: each line many times over.
        let mut long = Vec::new();
        for line in input.split_inclusive(|byte| *byte == b'\n') {
            let times = if line.len() > 40 && !line.contains(&b':') { 100 } else { 1 };
            (0..times).for_each(|_| long.extend_from_slice(line));
        }
        let of = |message: &[u8]| {
            there_and_back(message).map(|split| split.cuts.iter().map(|cut| cut.wrapping).collect::<Vec<_>>())
        };
        let mut hasher = DefaultHasher::new();
        (of(input), of(&long)).hash(&mut hasher);
        hasher.finish()
    });
}

#[test]
fn foreign_recipes_and_packed_bytes_are_refused_or_read() {
    understudy_fuzz::run("packed", |input| {
        let recipe = Recipe::decode(input, 1000).ok();
        if let Some(recipe) = &recipe {
            let encoded = recipe.encode();
            assert_eq!(Recipe::decode(&encoded, 1000).as_ref(), Ok(recipe));
        }
        let mut yielded = 0;
        let mut unpacker = understudy_content::Unpacker::new(|_: &Digest| None);
        let taken = unpacker.take(input, |plain| {
            yielded += plain.len();
            Ok::<_, understudy_content::PackingError>(())
        });
        assert!(yielded <= input.len() * (256 << 10));
        (recipe.is_some(), taken.map_err(|error| error.to_string()), yielded)
    });
}
