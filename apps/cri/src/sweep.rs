//! Finds and kills what a container leaves behind: processes outside of its process group, such as those of its execs,
//! or daemons.
//!
//! A container's processes have its random id in their environment, which children inherit. A process that removes the
//! variable is not found.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// The variable with the id of the container.
pub(crate) const MARK: &str = "KUBESTREAM_CONTAINER";

/// Kills all remaining processes of a container. Blocks while it reads `/proc`.
pub(crate) fn kill(id: &str) {
    let mark = format!("{MARK}={id}");
    // A process that was forked meanwhile is found in the next pass.
    const LOOKS: usize = 5;
    for _ in 0..LOOKS {
        let mut found = false;
        for pid in marked(mark.as_bytes()) {
            found = true;
            // The process may have ended already.
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
