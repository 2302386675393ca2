//! Runs `cri` as a kubelet's machine does.
//!
//! Looks at its socket. It makes no call.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Whoever can open the socket can run commands.
#[test]
fn the_socket_is_its_owners_alone_whatever_the_umask() {
    let folder = std::env::temp_dir().join(format!("kubestream-cri-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let socket = folder.join("cri.sock");
    for umask in ["0", "022", "077"] {
        let mut process = Command::new("sh")
            .args(["-c", "umask $1; exec \"$0\" --listen \"unix://$2\"", env!("CARGO_BIN_EXE_cri"), umask])
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(mode, 0o600, "umask {umask}: {mode:o}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
