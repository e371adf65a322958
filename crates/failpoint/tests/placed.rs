//! The list of failpoints is the failpoints there are.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use understudy_failpoint::{ALL, CANARY, MERGE, SWITCH, UIDS};

const CALL: &str = "failpoint::here(\"";

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

#[test]
fn every_failpoint_is_placed_and_every_place_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for role in ["gateway-source/src", "gateway-recovery/src"] {
        sources(&root.join(role), &mut files);
    }
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let listed: Vec<&str> = [ALL, CANARY, MERGE, SWITCH, UIDS].concat();
    for (at, name) in listed.iter().enumerate() {
        assert!(text.contains(&format!("\"{name}\"")), "{name} is listed and placed nowhere");
        assert!(!listed[..at].contains(name), "{name} is listed twice");
    }
    for (at, _) in text.match_indices(CALL) {
        let name = text[at + CALL.len()..].split('"').next().unwrap();
        assert!(listed.contains(&name), "{name} is placed and not listed");
    }
}
