//! Compares docs/security.md with docs/limits.md, and with the tests that docs/security.md and docs/guarantees.md name.
//! `limits_documented.rs` compares the defaults of docs/limits.md with the code.
//!
//! Parses the tables of these pages. It knows no limit, threat or guarantee.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const SECURITY: &str = include_str!("../docs/security.md");
const GUARANTEES: &str = include_str!("../docs/guarantees.md");
const LIMITS: &str = include_str!("../docs/limits.md");

/// The rows of the table that begins with this cell, without its head.
fn rows(text: &'static str, head: &str, columns: usize) -> Vec<Vec<&'static str>> {
    let table = text.lines().skip_while(|line| !line.starts_with(&format!("| {head} |"))).skip(2);
    let rows: Vec<Vec<_>> = table
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(rows.iter().all(|row: &Vec<_>| row.len() == columns), "a bar too many or too few below {head}");
    assert!(!rows.is_empty(), "no table begins with {head}");
    rows
}

fn threats() -> Vec<Vec<&'static str>> {
    rows(SECURITY, "#", 5)
}

fn advisories() -> Vec<Vec<&'static str>> {
    rows(SECURITY, "advisory", 3)
}

fn guarantees() -> Vec<Vec<&'static str>> {
    [rows(GUARANTEES, "what came", 3), rows(GUARANTEES, "you can rely on", 3)].concat()
}

/// The settings of a line of docs/limits.md by their full names, each with its default.
fn settings(line: &[&'static str]) -> Vec<(String, &'static str)> {
    let mut prefix = "";
    let mut names = Vec::new();
    for name in line[1].split(", ").filter_map(|name| name.strip_prefix('`')?.strip_suffix('`')) {
        match name.rfind("::") {
            Some(end) => {
                prefix = &name[..end + 2];
                names.push(name.to_owned());
            }
            None => names.push(format!("{prefix}{name}")),
        }
    }
    names.into_iter().zip(line[2].split(", ")).collect()
}

/// The `file::name` of each test that a cell names.
fn tests(cell: &'static str) -> Vec<(&'static str, &'static str)> {
    let test = |test: &'static str| test.strip_prefix('`')?.strip_suffix('`')?.split_once("::");
    cell.split(", ").map(|named| test(named).unwrap_or_else(|| panic!("{named} is no test"))).collect()
}

/// True if the file has a test of this name that is run: a function with the attribute, or a property of quickcheck's
/// macro.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().collect();
    let of = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ").and_then(|line| line.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
    };
    let indent = |line: &str| line.len() - line.trim_start().len();
    let Some(at) = lines.iter().position(|line| of(line)) else { return false };
    let above = lines[..at].iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with(['#', '/']));
    let attributes: Vec<&str> = above.collect();
    if attributes.iter().any(|attribute| attribute.starts_with("#[ignore")) {
        return false;
    }
    let around = lines[..at].iter().rev().find(|line| !line.trim().is_empty() && indent(line) < indent(lines[at]));
    attributes.iter().any(|attribute| attribute.starts_with("#[test]") || attribute.starts_with("#[tokio::test"))
        || around.is_some_and(|line| line.trim() == "quickcheck! {")
}

fn source(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}, which a page names: {error}"))
}

#[test]
fn rows_are_numbered_and_each_has_its_tests() {
    for (at, row) in threats().iter().enumerate() {
        assert_eq!(row[0], (at + 1).to_string());
        assert!(row[1..].iter().all(|cell| !cell.is_empty()), "row {} has an empty cell", row[0]);
        assert!(!tests(row[4]).is_empty());
    }
    // The threats that the comments of the tests number, and those of later parts of the crate and of the programs.
    assert_eq!(threats().len(), 63);
}

#[test]
fn every_test_that_is_named_is_there() {
    let mut sources = BTreeMap::new();
    let named = threats().into_iter().map(|row| row[4]).chain(advisories().into_iter().map(|row| row[2]));
    let promised = guarantees().into_iter().map(|row| row[2]);
    for (file, name) in named.chain(promised).flat_map(tests) {
        let source = sources.entry(file).or_insert_with(|| source(file));
        assert!(has_test(source, name), "a page names {file}::{name}, which does not exist");
    }
    // The check can tell a test from other functions.
    let source = &sources["tests/limits.rs"];
    assert!(!has_test(source, "floods_leave_no_memory"), "part of a name");
    assert!(!has_test(source, "answer"), "a function");
    assert!(!has_test(source, "property"), "a function within a test");
    assert!(!has_test("#[test]\n#[ignore = \"slow\"]\nfn slow() {", "slow"), "a test that is not run");
}

/// In both directions: a default in docs/security.md is that of docs/limits.md, and every limit is named by a threat.
#[test]
fn every_limit_has_its_row_and_every_default_is_that_of_the_limits() {
    let lines = rows(LIMITS, "what", 4);
    let defaults: BTreeMap<String, &str> = lines.iter().flat_map(|line| settings(line)).collect();
    let (mut named, mut words) = (BTreeSet::new(), BTreeSet::new());
    for row in threats() {
        for limit in row[3].split(" · ").filter(|limit| *limit != "–") {
            if let Some(beginning) = limit.strip_prefix('*').and_then(|limit| limit.strip_suffix('*')) {
                let line = lines.iter().filter(|line| line[0].starts_with(beginning));
                let [line] = line.collect::<Vec<_>>()[..] else { panic!("row {}: which is *{beginning}*?", row[0]) };
                assert!(settings(line).is_empty(), "row {}: {} can be set", row[0], line[0]);
                words.insert(line[0]);
            } else {
                let cut = limit.strip_prefix('`').and_then(|limit| limit.split_once("` "));
                let (name, default) = cut.unwrap_or_else(|| panic!("row {}: {limit}", row[0]));
                assert_eq!(defaults.get(name), Some(&default), "row {}: the default of {name}", row[0]);
                named.insert(name.to_owned());
            }
        }
    }
    for line in &lines {
        let settings = settings(line);
        assert!(!settings.is_empty() || words.contains(line[0]), "no threat names *{}*", line[0]);
        for (name, _) in settings {
            assert!(named.contains(&name), "no threat names `{name}`");
        }
    }
}

#[test]
fn every_replay_has_its_advisory() {
    let replayed: Vec<_> = advisories().into_iter().flat_map(|row| tests(row[2])).collect();
    let source = source("tests/advisories.rs");
    let replays: Vec<&str> = source.lines().filter_map(|line| line.strip_prefix("fn ")?.strip_suffix("() {")).collect();
    assert!(replays.len() >= 10, "{replays:?}");
    for name in replays {
        assert!(replayed.contains(&("tests/advisories.rs", name)), "docs/security.md does not name {name}");
    }
}
