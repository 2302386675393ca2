//! What a container has left behind: processes that its own group does not hold, such as what its execs have started, or daemons.
//!
//! Owns how they are known: every process of a container has its random id in its environment, which its children inherit. One
//! that drops it gets away.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// The variable that says which container a process is of.
pub(crate) const MARK: &str = "KUBESTREAM_CONTAINER";

/// Kills all that is left of a container. Blocks for as long as it takes to look through `/proc`.
pub(crate) fn kill(id: &str) {
    let mark = format!("{MARK}={id}");
    // Whoever was being forked meanwhile is seen the next time.
    const LOOKS: usize = 5;
    for _ in 0..LOOKS {
        let mut found = false;
        for pid in marked(mark.as_bytes()) {
            found = true;
            // Gone already, at best.
            let _ = kill_process(pid, Signal::KILL);
        }
        if !found {
            return;
        }
    }
}

fn marked(mark: &[u8]) -> impl Iterator<Item = Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(move |process| {
        let pid = Pid::from_raw(process.file_name().to_str()?.parse().ok()?)?;
        let environment = fs::read(process.path().join("environ")).ok()?;
        environment.split(|byte| *byte == 0).any(|variable| variable == mark).then_some(pid)
    })
}
