//! Feeds foreign bytes to what reads them, in ordinary tests on a stable compiler.
//!
//! In: the files of `fuzz/corpus/TARGET`, and a check that panics when something is wrong. Out: thousands of mutations of them, more
//! with `UNDERSTUDY_LONG=1`; the input that failed, in `target/fuzz`, with the seed that made it.
//! Keeps true: the files are tried as they are first, so that an input once found stays found.
//! Not here: the checks; each stands in the tests of the crate that reads the bytes.

mod mutate;

use std::{
    collections::HashSet,
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mutate::Mutator;

/// How long each target is fed in a short run, …
const SHORT: Duration = Duration::from_secs(2);
/// … and at most so often.
const SHORT_INPUTS: usize = 5_000;
/// How long in a long run.
const LONG: Duration = Duration::from_secs(180);
/// Nothing that is read may take longer.
const SLOWEST: Duration = Duration::from_secs(5);
/// Longer inputs find nothing that shorter ones do not.
const LONGEST: usize = 16 << 10;
/// Inputs kept for what they led to.
const KEPT: usize = 2_000;

/// Feeds `check` with the corpus of `target` and what is made of it. What `check` answers is what the input led to: an input that leads
/// to something new is worth changing further.
///
/// # Panics
///
/// Where `check` does, or takes too long; and where the corpus is missing.
pub fn run<Found: Hash>(target: &str, check: impl Fn(&[u8]) -> Found) {
    let is_long = env::var_os("UNDERSTUDY_LONG").is_some();
    let given = env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok());
    // A short run tries the same each time: what passed once passes again.
    let seed = given.unwrap_or_else(|| if is_long { rand::random() } else { 1 });
    let (time, inputs) = if is_long { (LONG, usize::MAX) } else { (SHORT, SHORT_INPUTS) };
    feed(target, seed, time, inputs, check);
}

/// The same for one seed, within this time and with at most so many inputs.
fn feed<Found: Hash>(target: &str, seed: u64, time: Duration, inputs: usize, check: impl Fn(&[u8]) -> Found) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut corpus = corpus(&root.join("corpus").join(target));
    assert!(!corpus.is_empty(), "fuzz/corpus/{target} holds nothing");
    let failed = root.join("../target/fuzz");
    let mut mutator = Mutator::new(seed, &corpus);
    let mut found = HashSet::new();
    for input in &corpus {
        found.insert(checked(target, seed, &failed, input, &check));
    }
    let began = Instant::now();
    let mut tried = 0;
    while tried < inputs && began.elapsed() < time {
        let mut input = mutator.from(&corpus);
        input.truncate(LONGEST);
        if found.insert(checked(target, seed, &failed, &input, &check)) && corpus.len() < KEPT {
            corpus.push(input);
        }
        tried += 1;
    }
    println!("{target}: {tried} inputs led to {} different results, UNDERSTUDY_SEED={seed}", found.len());
}

fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files.iter().filter_map(|file| fs::read(file).ok()).collect()
}

/// Checks one input; one that fails is kept.
fn checked<Found: Hash>(target: &str, seed: u64, failed: &Path, input: &[u8], check: &impl Fn(&[u8]) -> Found) -> u64 {
    let began = Instant::now();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| check(input)));
    let took = began.elapsed();
    if let Ok(found) = &outcome
        && took < SLOWEST
    {
        return hash(found);
    }
    let file = failed.join(format!("{target}-{:016x}", hash(input)));
    let kept = fs::create_dir_all(failed).and_then(|()| fs::write(&file, input));
    eprintln!("{target} failed within {took:?}, UNDERSTUDY_SEED={seed}: \"{}\"", input.escape_ascii());
    match kept {
        Ok(()) => eprintln!("the input is in {}; once mended, move it to fuzz/corpus/{target}", file.display()),
        Err(error) => eprintln!("the input could not be kept: {error}"),
    }
    match outcome {
        Ok(_) => panic!("{target} took {took:?} for {} bytes", input.len()),
        Err(cause) => panic::resume_unwind(cause),
    }
}

fn hash(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seed is fixed and time does not end it: what is tested is whether the inputs lead anywhere.
    fn feed_itself<Found: Hash>(check: impl Fn(&[u8]) -> Found) {
        feed("self", 1, Duration::MAX, SHORT_INPUTS, check);
    }

    #[test]
    fn what_stands_deep_in_a_corpus_is_found() {
        let reached = std::cell::Cell::new(0);
        feed_itself(|input| {
            let depth = input.split(|byte| *byte == b' ').filter(|word| *word == b"open").count();
            reached.set(reached.get().max(depth));
            depth
        });
        assert!(reached.get() > 4, "only {}", reached.get());
    }

    #[test]
    #[should_panic(expected = "three")]
    fn an_input_that_fails_is_told() {
        feed_itself(|input| {
            let zeros = input.iter().filter(|byte| **byte == 0).count();
            assert!(zeros < 3, "three");
            zeros
        });
    }
}
