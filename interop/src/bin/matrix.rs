//! Merges and checks what the tests have recorded, and writes it as the interop matrix into docs/interop.md.
//! `interop/run` calls it.
//!
//! Holds the versions of the peers, each read from the file that pins it, and the table. It knows of a test only what
//! the test has recorded.
//!
//! - `names`: prints the peers.
//! - `plan [NAME…]`: prints the suites of these peers, or of all, and on a second line what must be built for them.
//! - `tests`: reads cargo's messages from stdin and prints all tests, each on a line as `PASS SUITE TEST`, where PASS
//!   is `KUBESTREAM_THROUGH`.
//! - `show RECORD TESTS`: prints the table of a record, if everything passed and each of the tests is in it.
//! - `write RECORD TESTS docs/interop.md`: writes the same table into that file. A case that is no longer proven is an
//!   error too.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, stdin};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use kubestream_interop::kubectl;
use kubestream_interop::matrix::{Foreign, NOTHING, Over, THROUGH};
use serde_json::Value;

const BEGIN: &str = "<!-- The matrix: written by interop/run, not by hand. -->";
const END: &str = "<!-- The end of the matrix. -->";
const HEAD: &str = "| peer | version | role | protocol | through | what passes |\n|---|---|---|---|---|---|\n";

/// What must be built for a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Built {
    Go,
    Kubectl,
    CriTools,
    Node,
    Python,
    Java,
    Busybox,
    Wireshark,
    Gateways,
}

impl Built {
    const fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Kubectl => "kubectl",
            Self::CriTools => "cri-tools",
            Self::Node => "node",
            Self::Python => "python",
            Self::Java => "java",
            Self::Busybox => "busybox",
            Self::Wireshark => "wireshark",
            Self::Gateways => "gateways",
        }
    }
}

/// Where a peer's version is pinned.
enum Pinned {
    /// kubectl reports its own version, because another kubectl may be used than the one built here.
    Kubectl,
    /// A Go module, in one of this suite's modules.
    Go(&'static str, &'static str),
    Node(&'static str),
    Python(&'static str),
    /// A jar.
    Java(&'static str),
    /// The version that the machine has.
    Machine,
    /// The peer has no version.
    None,
}

const fn about(peer: Foreign) -> (Built, Pinned) {
    match peer {
        Foreign::Kubectl => (Built::Kubectl, Pinned::Kubectl),
        Foreign::ClientGo => (Built::Go, Pinned::Go("go", "k8s.io/client-go")),
        Foreign::ClientNode => (Built::Node, Pinned::Node("@kubernetes/client-node")),
        Foreign::Python => (Built::Python, Pinned::Python("kubernetes")),
        Foreign::ClientJava => (Built::Java, Pinned::Java("client-java")),
        Foreign::CriClient => (Built::Go, Pinned::Go("go", "k8s.io/cri-client")),
        Foreign::Crictl | Foreign::Critest => (Built::CriTools, Pinned::Go("go/cmd/crictl", "sigs.k8s.io/cri-tools")),
        Foreign::CriStreaming => (Built::Go, Pinned::Go("go", "k8s.io/cri-streaming")),
        Foreign::Apiserver => (Built::Go, Pinned::Go("go", "k8s.io/apiserver")),
        Foreign::Nginx | Foreign::Haproxy => (Built::Gateways, Pinned::Machine),
        Foreign::Spdystream => (Built::Go, Pinned::Go("go", "github.com/moby/spdystream")),
        Foreign::SpdyTransport => (Built::Node, Pinned::Node("spdy-transport")),
        Foreign::Netty => (Built::Java, Pinned::Java("netty-codec-http")),
        Foreign::Wireshark => (Built::Wireshark, Pinned::Machine),
        Foreign::GnuTar => (Built::Go, Pinned::Machine),
        Foreign::BusyboxTar => (Built::Busybox, Pinned::Machine),
        Foreign::Asciinema => (Built::Python, Pinned::Python("asciinema")),
        Foreign::Bytes => (Built::Go, Pinned::None),
    }
}

/// A cell of the matrix: one case of one peer over one protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fact {
    peer: Foreign,
    role: String,
    over: Over,
    through: String,
    case: String,
}

/// What one run has recorded.
#[derive(Debug, Default)]
struct Record {
    facts: BTreeSet<Fact>,
    /// What did not pass, as text.
    failed: Vec<String>,
    /// Each test that has recorded what it proves, as `PASS SUITE TEST`.
    tests: BTreeSet<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["names"] => {
            Foreign::ALL.iter().for_each(|peer| println!("{peer}"));
            Ok(())
        }
        ["plan", ref names @ ..] => plan(names),
        ["tests"] => tests(),
        ["show", record, tests] => show(record, tests),
        ["write", record, tests, page] => write(record, tests, page),
        _ => Err("matrix requires one of: names, plan, tests, show, write".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn suite(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: impl AsRef<Path>) -> Result<String, String> {
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.as_ref().display()))
}

/// A suite belongs to a peer if its source contains the peer's name.
fn plan(names: &[&str]) -> Result<(), String> {
    let peer = |name: &&str| Foreign::named(name).ok_or_else(|| format!("there is no peer {name}: see run --list"));
    let wanted = names.iter().map(peer).collect::<Result<Vec<_>, _>>()?;
    // Go's servers are always built, because tests of other peers use them too.
    let (mut suites, mut built) = (BTreeSet::new(), BTreeSet::from([Built::Go]));
    for entry in fs::read_dir(suite("tests")).map_err(|error| format!("tests: {error}"))? {
        let path = entry.map_err(|error| format!("tests: {error}"))?.path();
        let peers = peers_in(&read(&path)?);
        if wanted.is_empty() || peers.iter().any(|peer| wanted.contains(peer)) {
            suites.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
            built.extend(peers.iter().map(|peer| about(*peer).0));
        }
    }
    println!("{}", suites.into_iter().collect::<Vec<_>>().join(" "));
    println!("{}", built.into_iter().map(Built::name).collect::<Vec<_>>().join(" "));
    Ok(())
}

fn peers_in(source: &str) -> Vec<Foreign> {
    let words = source.split("Foreign::").skip(1);
    let words: BTreeSet<_> = words.filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next()).collect();
    Foreign::ALL.iter().copied().filter(|peer| words.contains(&*format!("{peer:?}"))).collect()
}

fn tests() -> Result<(), String> {
    let pass = std::env::var("KUBESTREAM_THROUGH").unwrap_or_default();
    for line in stdin().lock().lines() {
        let line = line.map_err(|error| format!("cargo's messages: {error}"))?;
        let message: Value = serde_json::from_str(&line).map_err(|error| format!("{error} in {line:?}"))?;
        let target = &message["target"];
        let (Some(program), Some(suite)) = (message["executable"].as_str(), target["name"].as_str()) else { continue };
        if target["kind"][0] != "test" {
            continue;
        }
        let listed = said(Command::new(program).args(["--list", "--format", "terse"]))?;
        for test in listed.lines().filter_map(|line| line.strip_suffix(": test")) {
            println!("{pass} {suite} {test}");
        }
    }
    Ok(())
}

fn said(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{command:?}: {error}"))
}

impl Record {
    fn read(lines: &str) -> Result<Self, String> {
        let mut record = Self::default();
        for line in lines.lines() {
            let row: Value = serde_json::from_str(line).map_err(|error| format!("{error} in {line:?}"))?;
            record.add(&row).ok_or_else(|| format!("{line:?} is not a row of the matrix"))?;
        }
        Ok(record)
    }

    fn add(&mut self, row: &Value) -> Option<()> {
        let text = |name: &str| row[name].as_str();
        let (peer, role, through) = (Foreign::named(text("peer")?)?, text("role")?, text("through")?);
        // The table joins values with it, and is parsed again when it is rewritten.
        if through.contains(", ") {
            return None;
        }
        let test = format!("{} {} {}", text("pass")?, text("suite")?, text("test")?);
        for over in row["over"].as_array()? {
            let over = Over::named(over.as_str()?)?;
            for case in text("cases")?.split("; ") {
                if row["passed"].as_bool()? {
                    let (role, through, case) = (role.to_owned(), through.to_owned(), case.to_owned());
                    self.facts.insert(Fact { peer, role, over, through, case });
                } else {
                    self.failed.push(format!("{peer}, {role}, {over}, through {through}: {case} ({test})"));
                }
            }
        }
        self.tests.insert(test);
        Some(())
    }

    /// Checks that every test passed and recorded what it proves.
    fn check(&self, tests: &str) -> Result<(), String> {
        let forgotten: Vec<_> = tests.lines().filter(|test| !self.tests.contains(*test)).collect();
        let mut wrong = String::new();
        if tests.is_empty() {
            wrong += "no test was listed\n";
        }
        for failed in &self.failed {
            let _ = writeln!(wrong, "failed: {failed}");
        }
        for test in forgotten {
            let _ = writeln!(wrong, "this test did not finish, or proves nothing for the matrix: {test}");
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

fn checked(record: &str, tests: &str) -> Result<(BTreeSet<Fact>, String), String> {
    let record = Record::read(&read(record)?)?;
    record.check(&read(tests)?)?;
    let peers: BTreeSet<_> = record.facts.iter().map(|fact| fact.peer).collect();
    let versions: BTreeMap<_, _> =
        peers.into_iter().map(|peer| Ok((peer, version(peer)?))).collect::<Result<_, String>>()?;
    let table = table(&record.facts, &versions);
    Ok((record.facts, table))
}

fn show(record: &str, tests: &str) -> Result<(), String> {
    print!("{}", checked(record, tests)?.1);
    Ok(())
}

fn write(record: &str, tests: &str, page: &str) -> Result<(), String> {
    let (facts, table) = checked(record, tests)?;
    let text = read(page)?;
    let parts = text.split_once(BEGIN).and_then(|(above, rest)| Some((above, rest.split_once(END)?)));
    let (above, (was, below)) = parts.ok_or_else(|| format!("{page} must contain {BEGIN} and {END}"))?;
    let was = parsed(was);
    let now = format!("{above}{BEGIN}\n\n{table}\n{END}{below}");
    if now != text {
        fs::write(page, now).map_err(|error| format!("{page}: {error}"))?;
        println!("wrote {page}");
    }
    let lost: BTreeSet<_> = was?.difference(&facts).cloned().collect();
    if lost.is_empty() {
        return Ok(());
    }
    // This is reported once: the new file no longer contains it, and the author of the commit has seen this message.
    let lost = table_of(&lost, &|_| String::new());
    Err(format!("{page} claimed these cases, and no test proves them any more:\n{lost}"))
}

fn version(peer: Foreign) -> Result<String, String> {
    let version = match about(peer).1 {
        Pinned::Kubectl => {
            let said = said(Command::new(kubectl()).args(["version", "--client", "-o", "json"]))?;
            let version: Value = serde_json::from_str(&said).map_err(|error| format!("kubectl's version: {error}"))?;
            version["clientVersion"]["gitVersion"].as_str().map(str::to_owned)
        }
        Pinned::Go(ours, module) => {
            let mut list = Command::new("go");
            list.args(["list", "-m", "-f", "{{.Version}}", module]).current_dir(suite(ours));
            Some(said(&mut list)?)
        }
        Pinned::Node(package) => {
            let lock: Value = serde_json::from_str(&read(suite("node/package-lock.json"))?)
                .map_err(|error| format!("package-lock.json: {error}"))?;
            lock["packages"][format!("node_modules/{package}")]["version"].as_str().map(str::to_owned)
        }
        Pinned::Python(package) => {
            let pins = read(suite("python/requirements.txt"))?;
            let pin = |line: &str| line.strip_prefix(package)?.strip_prefix("==").map(str::to_owned);
            pins.lines().find_map(pin)
        }
        Pinned::Java(jar) => {
            let pins = read(suite("java/jars.sha256"))?;
            // The name of another jar may begin with this name, followed by another word.
            let names = pins.lines().filter_map(|line| line.split_whitespace().nth(1));
            let mut versions = names.filter_map(|name| name.strip_prefix(jar)?.strip_prefix('-')?.strip_suffix(".jar"));
            versions.find(|version| version.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned)
        }
        // The machine chooses these versions, so the file would change with the machine.
        Pinned::Machine => Some("the machine's".to_owned()),
        Pinned::None => Some(NOTHING.to_owned()),
    };
    let version = version.ok_or_else(|| format!("the version of {peer} was not found where it should be pinned"))?;
    let version = version.trim();
    Ok(version.strip_prefix('v').unwrap_or(version).to_owned())
}

fn table(facts: &BTreeSet<Fact>, versions: &BTreeMap<Foreign, String>) -> String {
    table_of(facts, &|peer| versions[&peer].clone())
}

/// Makes one row for all cases of a peer in a role that passed over the same protocols and through the same hops.
fn table_of(facts: &BTreeSet<Fact>, version: &dyn Fn(Foreign) -> String) -> String {
    let mut by_case: BTreeMap<_, BTreeMap<_, BTreeSet<_>>> = BTreeMap::new();
    for Fact { peer, role, over, through, case } in facts {
        let known = THROUGH.iter().position(|(_, said)| said == through);
        // First nothing, then what the passes put between, then what single tests put there.
        let rank = if through == NOTHING { 0 } else { known.map_or(usize::MAX, |at| at + 1) };
        by_case.entry((peer, role, case)).or_default().entry((rank, through)).or_default().insert(*over);
    }
    let mut rows: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for ((peer, role, case), by_through) in by_case {
        let mut by_over: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (through, over) in by_through {
            by_over.entry(over).or_default().insert(through);
        }
        for (over, through) in by_over {
            rows.entry((peer, role, over, through)).or_default().push(case);
        }
    }
    let mut table = HEAD.to_owned();
    for ((peer, role, over, through), cases) in rows {
        let through: Vec<_> = through.into_iter().map(|(_, said)| said.as_str()).collect();
        let cells = [peer.text(), &version(*peer), role, &protocols(&over), &through.join(", "), &cases.join("; ")];
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    }
    table
}

/// Names protocols with their common part once: `SPDY v3, v4; WebSocket v5`.
fn protocols(over: &BTreeSet<Over>) -> String {
    let (mut said, mut last) = (String::new(), None);
    for over in over {
        let (family, version) = halves(*over);
        match last {
            Some(last) if last == family => said += ", ",
            Some(_) => said = format!("{said}; {family}"),
            None => said += family,
        }
        if last != Some(family) && !family.is_empty() {
            said.push(' ');
        }
        said += version;
        last = Some(family);
    }
    said
}

fn halves(over: Over) -> (&'static str, &'static str) {
    over.text().rsplit_once(' ').unwrap_or_else(|| ("", over.text()))
}

/// Parses a table back into facts.
fn parsed(table: &str) -> Result<BTreeSet<Fact>, String> {
    let mut facts = BTreeSet::new();
    for line in table.trim().lines().skip(HEAD.lines().count()) {
        let cells = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |"));
        let cells: Vec<_> = cells.unwrap_or_default().split(" | ").collect();
        let [peer, _, role, over, through, cases] = cells[..] else { return Err(format!("{line:?} is not a row")) };
        let Some(peer) = Foreign::named(peer) else { return Err(format!("there is no peer {peer:?} any more")) };
        for group in over.split("; ") {
            let mut said = Vec::new();
            for name in group.split(", ") {
                // The first name of a group is given in full.
                let family = said.first().map_or("", |first| halves(*first).0);
                let over = Over::named(name).or_else(|| Over::named(&format!("{family} {name}")));
                said.push(over.ok_or_else(|| format!("there is no protocol {name:?} any more"))?);
            }
            for over in said {
                for through in through.split(", ") {
                    for case in cases.split("; ") {
                        let (role, through, case) = (role.to_owned(), through.to_owned(), case.to_owned());
                        facts.insert(Fact { peer, role, over, through, case });
                    }
                }
            }
        }
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(over: Over, through: &str, case: &str) -> Fact {
        let (role, through, case) = ("client of `node`".to_owned(), through.to_owned(), case.to_owned());
        Fact { peer: Foreign::Kubectl, role, over, through, case }
    }

    fn facts() -> BTreeSet<Fact> {
        let mut facts = BTreeSet::new();
        for over in Over::ALL {
            for through in [NOTHING, "`proxy`"] {
                facts.insert(fact(*over, through, "everywhere"));
                facts.insert(fact(*over, through, "everywhere, too"));
            }
        }
        facts.insert(fact(Over::SpdyV4, NOTHING, "here"));
        facts.insert(fact(Over::SpdyV4, "`proxy`", "on each its own"));
        facts.insert(fact(Over::WebSocketV5, NOTHING, "on each its own"));
        facts
    }

    fn shown(facts: &BTreeSet<Fact>) -> String {
        table_of(facts, &|_| "1".to_owned())
    }

    #[test]
    fn a_table_says_what_was_recorded_and_says_it_once() {
        let table = shown(&facts());
        assert_eq!(parsed(&table), Ok(facts()), "{table}");
        assert_eq!(table.lines().count(), 2 + 4, "{table}");
        let row = "| kubectl | 1 | client of `node` | SPDY v4 | – | here |\n";
        assert!(table.contains(row), "{table}");
        assert_eq!(table.matches("everywhere; everywhere, too |\n").count(), 1, "{table}");
        assert!(table.contains(" | SPDY v1, v2, v3, v4; WebSocket \"\", v1, base64, "), "{table}");
    }

    #[test]
    fn what_failed_and_who_forgot_are_errors() {
        let row = r#"{"pass":"","suite":"s","test":"t","passed":PASSED,"peer":"kubectl","role":"r","through":"–","over":["SPDY v4"],"cases":"a; b"}"#;
        let record = |passed| Record::read(&row.replace("PASSED", passed)).unwrap();
        assert_eq!((record("true").facts.len(), record("true").check(" s t\n")), (2, Ok(())));
        let failed = record("false").check(" s t\n").unwrap_err();
        assert_eq!(failed.lines().count(), 2, "{failed}");
        assert!(record("true").check(" s t\nproxy s t\n").unwrap_err().contains("nothing for the matrix"));
        assert!(record("true").check("").is_err());
        assert!(Record::read(&row.replace("PASSED", "true").replace("SPDY v4", "SPDY v9")).is_err());
        assert!(Record::read(&row.replace("PASSED", "true").replace('–', "nginx, `proxy`")).is_err());
    }

    #[test]
    fn what_is_gone_is_an_error_once_and_what_is_by_hand_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let row = r#"{"pass":"","suite":"s","test":"t","passed":true,"peer":"bytes","role":"client of us","through":"–","over":["HTTP/1.1"],"cases":"CASES"}"#;
        fs::write(file("page"), format!("above\n{BEGIN}\n{END}\nbelow\n")).unwrap();
        fs::write(file("tests"), " s t\n").unwrap();
        let written = |cases: &str| {
            fs::write(file("record"), row.replace("CASES", cases)).unwrap();
            write(&file("record"), &file("tests"), &file("page"))
        };
        assert_eq!(written("one; two"), Ok(()));
        let lost = written("one; three").unwrap_err();
        assert!(lost.contains("| two |") && !lost.contains("one"), "{lost}");
        assert_eq!(written("one; three"), Ok(()));
        let page = read(file("page")).unwrap();
        assert!(
            page.starts_with("above\n") && page.ends_with("\nbelow\n") && page.contains("| one; three |"),
            "{page}"
        );
    }

    #[test]
    fn a_peer_is_told_from_one_whose_name_begins_so() {
        assert_eq!(peers_in("with(Foreign::Crictl, …) Foreign::Critest)"), [Foreign::Crictl, Foreign::Critest]);
    }
}
