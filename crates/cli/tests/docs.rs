//! What the documents show works: configurations parse, commands are understood, links lead somewhere.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Roles and what looks at the machine: their usage is shown by other tests.
const NOT_RUN: [&str; 6] = ["up", "source", "recovery", "admin", "preflight", "config"];

/// Names in the documents that only look like metrics.
const NO_METRIC: [&str; 1] = ["understudy_door"];

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The README, the changelog and everything under `docs/`.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths =
        vec![checkout().join("README.md"), checkout().join("CHANGELOG.md"), checkout().join("CONTRIBUTING.md")];
    for folder in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(checkout().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

/// The fenced blocks of a language, each with the line it begins at.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, bool, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(opened)) => open = Some((number + 1, opened == language, String::new())),
            (Some((begin, wanted, block)), Some(_)) => {
                if *wanted {
                    found.push((*begin, std::mem::take(block)));
                }
                open = None;
            }
            (Some((_, _, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// Runs the program in an empty folder, with nothing of our own environment and nothing running.
fn understudy(dir: &Path, arguments: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("UNDERSTUDY__DATA_DIR", dir.join("data"))
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn every_configuration_shown_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("understudy.toml");
    let mut checked = 0;
    for (path, text) in documents() {
        for (line, block) in blocks(&text, "toml") {
            fs::write(&file, &block).unwrap();
            let arguments = ["config", "check", "--config", "understudy.toml"].map(str::to_owned);
            let output = understudy(dir.path(), &arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{}:{line}: {said}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 3, "only {checked} configurations were found");
}

#[test]
fn every_key_of_the_reference_exists_and_none_is_missing() {
    // `config check` names the valid keys of a table when an unknown one is far from all of them.
    let dir = tempfile::tempdir().unwrap();
    let reference = fs::read_to_string(checkout().join("docs/operations.md")).unwrap();
    let tables = [
        "database",
        "admin",
        "recovery",
        "source",
        "content",
        "smtp",
        "link",
        "routes",
        "nginx",
        "domain",
        "front_door",
        "server",
    ];
    for table in tables {
        let list = ["server", "domain", "front_door"].contains(&table);
        let head = if list { format!("[[{table}]]") } else { format!("[{table}]") };
        fs::write(dir.path().join("understudy.toml"), format!("{head}\nzzzzzzzzzzzzzzzz = 1\n")).unwrap();
        let arguments = ["config", "check", "--config", "understudy.toml"].map(str::to_owned);
        let output = understudy(dir.path(), &arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let listed = said.split_once("valid there: ").unwrap_or_else(|| panic!("{said}")).1;
        for key in listed.lines().next().unwrap().split(", ").map(str::trim) {
            assert!(reference.contains(key), "docs/operations.md does not name {key} of [{table}]");
        }
    }
}

#[test]
fn the_front_doors_shown_are_those_that_the_tests_run() {
    let shown = fs::read_to_string(checkout().join("docs/front-doors.md")).unwrap();
    let blocks: Vec<String> = blocks(&shown, "").into_iter().map(|(_, block)| block).collect();
    for file in fs::read_dir(checkout().join("docs/front-doors")).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(blocks.contains(&text), "docs/front-doors.md does not show {} as it is", path.display());
    }
}

#[test]
fn every_command_shown_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let joining = ["link", "join"].map(str::to_owned);
    let mut wrong: Vec<String> = Vec::new();
    let mut understood = 0;
    for (path, text) in documents() {
        for (line, block) in blocks(&text, "sh") {
            for command in block.replace("\\\n", " ").lines() {
                let Some(arguments) = command.trim().strip_prefix("understudy ") else { continue };
                let arguments = words(arguments);
                let verb = arguments.iter().find(|word| !word.starts_with('-') && !word.ends_with(".toml"));
                // A token is made when it is asked for: none can be shown (`tests/tests/pairing.rs`).
                if verb.is_some_and(|verb| NOT_RUN.contains(&verb.as_str())) || arguments.starts_with(&joining) {
                    continue;
                }
                let output = understudy(dir.path(), &arguments);
                // 2 would be wrong usage; nothing runs that could answer, so 1 is right.
                if output.status.code() != Some(1) {
                    let said = String::from_utf8_lossy(&output.stderr);
                    wrong.push(format!("{}:{line}: understudy {arguments:?}: {said}", path.display()));
                }
                understood += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(understood >= 8, "only {understood} commands were found");
}

/// A command line as a shell splits it, as far as the documents go: quotes, comments, no expansion.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let command = line.split_once(" # ").map_or(line, |(command, _)| command);
    for (index, part) in command.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    for (path, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let there = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(there.exists(), "{}: {target} is not there", path.display());
            if !heading.is_empty() {
                let headings = fs::read_to_string(&there).unwrap();
                assert!(
                    headings.lines().any(|line| anchor(line) == heading),
                    "{}: {target} has no such heading",
                    path.display()
                );
            }
        }
    }
}

/// A heading as a link names it: lower case, without punctuation, hyphens for spaces.
fn anchor(line: &str) -> String {
    let heading = line.trim_start_matches('#').trim().to_lowercase();
    heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_metric_that_is_shown_is_one_that_the_program_counts() {
    let code = code();
    let mut shown = 0;
    for name in ["docs/monitoring/alerts.yml", "docs/monitoring/grafana-dashboard.json", "docs/operations.md"] {
        let text = fs::read_to_string(checkout().join(name)).unwrap();
        for (at, _) in text.match_indices("understudy_") {
            // `understudy_door` and the like are no metrics, and stand in no expression.
            let name = text[at..].split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default();
            let metric =
                ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            if NO_METRIC.contains(&metric) {
                continue;
            }
            assert!(code.contains(&format!("\"{metric}\"")), "{metric} is counted nowhere");
            shown += 1;
        }
    }
    assert!(shown > 50, "only {shown} metrics were found");
}

#[test]
fn every_metric_that_the_program_counts_is_in_the_reference() {
    let reference = fs::read_to_string(checkout().join("docs/operations.md")).unwrap();
    // `…_tail` stands for a name that begins like the one before it.
    let mut named: Vec<String> = Vec::new();
    for row in reference.lines().filter(|line| line.starts_with("| `understudy_")) {
        let mut first = "";
        for name in row.split(" | ").next().unwrap().split('`').skip(1).step_by(2) {
            let name = name.split('{').next().unwrap();
            match name.strip_prefix('…') {
                Some(tail) => {
                    let begins = first.match_indices('_').map(|(at, _)| format!("{}{tail}", &first[..at]));
                    named.extend(begins);
                }
                None => {
                    first = name;
                    named.push(name.to_owned());
                }
            }
        }
    }
    let code = code();
    let mut counted = 0;
    for kind in ["counter!(\"", "gauge!(\"", "histogram!(\""] {
        for (at, _) in code.match_indices(kind) {
            let name = code[at + kind.len()..].split('"').next().unwrap();
            if name.starts_with("understudy_") {
                assert!(named.iter().any(|known| known == name), "docs/operations.md does not name {name}");
                counted += 1;
            }
        }
    }
    assert!(counted > 25, "only {counted} metrics were found");
}

/// What all crates consist of, their tests included.
fn code() -> String {
    let mut code = String::new();
    let mut folders = vec![
        checkout().join("tests/tests"),
        checkout().join("crates"),
        checkout().join("gateway-recovery"),
        checkout().join("gateway-source"),
        checkout().join("admin-api"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                code += &fs::read_to_string(path).unwrap();
            }
        }
    }
    code
}

#[test]
fn every_test_that_a_document_names_exists() {
    let code = code();
    let guarantees = fs::read_to_string(checkout().join("docs/guarantees.md")).unwrap();
    // Long names in code marks are tests; `mod::name` and `name_*` are shorthand.
    let names = guarantees.split('`').skip(1).step_by(2).map(|name| name.rsplit("::").next().unwrap_or(name));
    let tests: Vec<&str> =
        names.filter(|name| name.matches('_').count() >= 4 && !name.contains([' ', '.', '/'])).collect();
    assert!(tests.len() > 20, "only {} tests were found", tests.len());
    for name in tests {
        assert!(code.contains(name.trim_end_matches('*')), "docs/guarantees.md names {name}, which is not there");
    }
}
