//! The messages and exit statuses of the program.
//!
//! Tests no server and no case, only the command line.

#![allow(clippy::expect_used)]

use std::net::TcpListener;
use std::process::{Command, Output};

use conformance::cases::ALL;
use serde_json::Value;

fn conformance(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_conformance")).args(arguments).output().expect("it runs")
}

fn exits(arguments: &[&str], code: i32) -> String {
    let Output { status, stdout, stderr } = conformance(arguments);
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert_eq!(status.code(), Some(code), "{arguments:?}: {said}");
    said
}

#[test]
fn every_case_is_listed_with_what_it_is_about() {
    let said = exits(&["--list"], 0);
    assert_eq!(said.lines().count(), ALL.len());
    for case in ALL {
        assert!(said.lines().any(|line| line.starts_with(case.name) && line.ends_with(case.about)), "{}", case.name);
    }
}

#[test]
fn a_case_that_passes_is_a_success_and_in_each_form_of_the_result() {
    let folder = tempfile::tempdir().expect("a folder");
    let [json, junit] = ["result.json", "result.xml"].map(|name| folder.path().join(name));
    let [json_file, junit_file] = [&json, &junit].map(|path| path.to_str().expect("a path"));
    let asked = ["--only", "output/apart", "--column", "SPDY v4", "WS v5", "--json", json_file, "--junit", junit_file];
    let said = exits(&asked, 0);
    assert!(said.contains("2 passed, 0 failed, 0 noted, 0 not offered"), "{said}");
    let result: Value = serde_json::from_slice(&std::fs::read(json).expect("a result")).expect("JSON");
    let cells = result["cases"][0]["results"].as_array().expect("results");
    let cells: Vec<_> = cells.iter().map(|cell| (cell["column"].as_str(), cell["result"].as_str())).collect();
    assert_eq!(cells, [(Some("SPDY v4"), Some("pass")), (Some("WS v5"), Some("pass"))]);
    let report = std::fs::read_to_string(junit).expect("a result");
    assert_eq!(report.matches("<testcase").count(), 2, "{report}");
    assert!(!report.contains("<failure"), "{report}");
}

#[test]
fn a_server_that_is_not_there_is_a_failure() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let server = format!("http://{nobody}");
    let said = exits(&["--server", &server, "--patience", "2", "--only", "output/apart", "--column", "SPDY v4"], 1);
    assert!(said.contains("Connection refused"), "{said}");
}

#[test]
fn what_makes_no_sense_is_said_before_anything_is_tried() {
    for (asked, why) in [
        (&["--only", "no/such"][..], "there is no case \"no/such\""),
        (&["--column", "SPDY v9"], "there is no column \"SPDY v9\""),
        (&["--create"], "--kubeconfig"),
        (&["--kubelet"], "--server"),
        (&["--kubeconfig", "/no/such/file", "--pod", "web"], "/no/such/file"),
        (&["--runs", "0"], "--runs"),
        (&["--server", "http://127.0.0.1:1", "--pod", "../demo"], "invalid pod name"),
    ] {
        let said = exits(asked, 2);
        assert!(said.contains(why), "{asked:?}: {said}");
    }
}
