//! The list of failpoints is the failpoints there are.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use understudy_failpoint::{ALL, CANARY, MENDING, MERGE, SWITCH, UIDS};

const CALL: &str = "failpoint::here(";
/// Behind a step of a dry run, which changes nothing and so is nowhere to crash.
const OF_NO_INTEREST: &str = "switch.stepped";

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The folders with what is built into the program: every `src` but this crate's, where nothing is placed.
fn roots() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let within = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.join("Cargo.toml").is_file() && path.join("src").is_dir()).collect()
    };
    let crates = [within(&root), within(&root.join("crates"))].concat();
    let of_tests = ["failpoint", "tests", "bench", "fuzz"];
    let placing = crates.into_iter().filter(|path| !of_tests.iter().any(|name| path.ends_with(name)));
    placing.map(|path| path.join("src")).collect()
}

/// What a call that begins here names, where it says that itself.
fn literal(arguments: &str) -> Option<&str> {
    arguments.trim_start().strip_prefix('"')?.split('"').next()
}

/// Names as failpoints have them that stand as texts in this source.
fn texts(source: &str) -> impl Iterator<Item = &str> {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    source
        .lines()
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .filter(move |text| text.split_once('.').is_some_and(|(group, step)| is_word(group) && is_word(step)))
}

/// The places of one source; of a call with a name that is put together, every name that stands in the source.
fn places(source: &str) -> BTreeSet<&str> {
    let calls = source.match_indices(CALL).map(|(at, _)| literal(&source[at + CALL.len()..]));
    let (named, put_together): (Vec<_>, Vec<_>) = calls.partition(Option::is_some);
    let mut places: BTreeSet<&str> = named.into_iter().flatten().collect();
    if !put_together.is_empty() {
        places.extend(texts(source));
    }
    places
}

#[test]
fn every_failpoint_is_placed_and_every_place_is_listed() {
    let listed: Vec<&str> = [ALL, CANARY, MERGE, SWITCH, UIDS, MENDING].concat();
    let roots = roots();
    for expected in ["gateway-source/src", "gateway-recovery/src", "admin-api/src", "crates/replication/src"] {
        assert!(roots.iter().any(|root| root.ends_with(expected)), "{expected} is not among {roots:?}");
    }
    let mut files = Vec::new();
    roots.iter().for_each(|root| sources(root, &mut files));
    let mut placed: Vec<(String, &PathBuf)> = Vec::new();
    for file in &files {
        let source = fs::read_to_string(file).unwrap();
        // Called by another name it would not be found here.
        for hidden in ["failpoint::here;", "failpoint::{", "failpoint::*"] {
            assert!(!source.contains(hidden), "{}: `{hidden}`: write `failpoint::here(…)`", file.display());
        }
        placed.extend(places(&source).into_iter().map(|name| (name.to_owned(), file)));
    }
    for (at, name) in listed.iter().enumerate() {
        assert!(placed.iter().any(|(place, _)| place == name), "{name} is listed and placed nowhere");
        assert!(!listed[..at].contains(name), "{name} is listed twice");
    }
    for (name, file) in placed {
        assert!(
            listed.contains(&name.as_str()) || name == OF_NO_INTEREST,
            "{name} is placed in {} and not listed",
            file.display()
        );
    }
}

#[test]
fn a_place_is_found_however_its_call_is_written() {
    let source = "failpoint::here(\"a.one\"); failpoint::here(\n    \"a.two\",\n); let text = \"a.three\";";
    assert_eq!(places(source).into_iter().collect::<Vec<_>>(), ["a.one", "a.two"]);
    let source = "failpoint::here(point(name)); match step { \"x\" => \"a.one\", _ => \"a.two\" } // \"no: a.three\"";
    assert_eq!(places(source).into_iter().collect::<Vec<_>>(), ["a.one", "a.two"]);
}
